"""What operations and the check say in English has its Chinese: every sentence of the sources below, each found again."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pepperbus
from pepperbus.web.said import reason, said, sentences

ROOT = Path(pepperbus.__file__).parent
CHECK = (
    *("values", "queue", "command", "schedules", "timing", "joboptions", "canary", "canary_check", "limits", "check"),
    *("alarms", "backoff", "intakes", "load", "node", "reach", "references", "signon", "source", "tracing"),
)
OPERATIONS = (
    *("queues", "queue_text", "schedules", "drain", "office", "push", "closing", "rights", "jobs", "replays", "find"),
    *("errors", "marks", "history", "elsewhere", "consumer", "consumers", "samples", "pause", "purge", "alarms"),
    *("nodes", "itself", "systems"),
    *("alarm_files", "deploys", "storage_files", "imports", "versions", "users", "tokens", "logins", "sessions"),
    *("exports", "gateway_client", "steer", "office", "drafts", "node_file", "queue_files", "life", "tail", "failed"),
)
ELSEWHERE = (
    *("accounts/audit.py", "accounts/directory.py", "accounts/model.py", "accounts/passwords.py"),
    *("accounts/sessions.py", "accounts/store.py", "alarms/store.py", "replay/store.py", "replay/tables.py"),
    *("names.py", "ids.py", "web/pages/schedule_edit.py", "web/oidc.py", "web/replays.py", "web/errands.py"),
    *("storage/redis_wire.py", "web/live.py", "web/logins.py", "web/pages/form.py"),
    *("master/control.py", "master/listeners.py", "nodes/errands.py", "storage/__init__.py", "storage/embedded.py"),
    *("storage/embedded_compact.py", "storage/embedded_engine.py", "storage/embedded_file.py"),
    *("storage/redis.py", "storage/redis_facts.py", "storage/redis_push.py", "storage/redis_url.py"),
    *("alarms/mail.py", "alarms/service.py", "alarms/webhook.py"),
    *("ticker/alarms.py", "ticker/drains.py", "ticker/intake_elements.py", "ticker/intake_source.py"),
    *("ticker/intake_store.py", "ticker/replay_second.py", "ticker/replays.py", "ticker/schedules.py"),
)
SOURCES = (
    *(ROOT / "config" / f"{one}.py" for one in CHECK),
    *(ROOT / "operations" / f"{one}.py" for one in OPERATIONS),
    *(ROOT / one for one in ELSEWHERE),
)
#: Sentences that are returned, yielded or gathered: how the node is, what a storage says of itself, who must not be reached.
TOLD = tuple(
    ROOT / one for one in ("config/reach.py", "operations/status.py", "storage/redis_facts.py", "web/guard.py")
)
#: Where reasons are given: `reason=` and `detail=`, what those names become, and what a transport fails with.
REASONS = (
    *("verdict.py", "paced.py", "fastcgi_exchange.py", "fastcgi_pool.py", "fpm_status.py", "http.py"),
    *("http_answer.py", "http_connection.py", "http_exchange.py"),
    *("command_answers.py", "command_crew.py", "command_exec.py", "command_stdin.py"),
)
#: Nothing but blanks between marks: another's sentence with a place in front, found by its parts or shown as it is.
BARE = {"{1}: {2}", "{1}{2}", "{1}", "{1}: {2}: {3}", "{1}: {2}{3}"}
#: Reasons that are nothing but another's words.
OTHERS = {"‹x›: ‹x›", "‹x›: ‹x›: ‹x›"}
#: Where the autoscaling's reasons are made; as they are put together.
WHY = (
    "4 of 2..16: keeps up: 3.2 of 4 in use",
    "2 of 2..16: not looked at yet",
    "6 of 2..16: more: 120 wait, 30 s to clear; this is the most it may have",
    "6 of 2..16: 8 at once: 3 were refused by the target",
    "4 of 2..16: less: only 1.0 of 4 in use",
    "8 of 2..16: 8 at once do 12.5 a second, 6 did 12.1",
    "2 of 1..4: 93% of a core each, but this machine has no core free",
    "2 of 1..4: more: 7 wait, 93% of a core each",
)
MISTAKES = (
    "/etc/pepperbus/queues.d/orders.conf:7: [topics] [[mail]] timeout = 5: a duration needs its unit: 5s, 5m, 5h "
    "(ms, s, m, h, d are known) (default 60m)",
    "orders.conf:9: [schedule] [[tick]] expression = 61 * * * *: the minute is wrong; allowed: 0-59, with * , - and /",
    "no queue 'order' (did you mean 'orders'?)",
)
_BLANK = re.compile(r"\{(\d)\}")


def _sentence(node: ast.expr) -> str:
    """The text of a literal; of an f-string with its blanks numbered."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    parts, n = [], 0
    for part in node.values if isinstance(node, ast.JoinedStr) else ():
        n += not isinstance(part, ast.Constant)
        parts.append(str(part.value) if isinstance(part, ast.Constant) else f"{{{n}}}")
    return "".join(parts)


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def raised(file: Path) -> Iterator[str]:
    """What it raises, or notes as a mistake, itself or by a name that its function gave it."""
    tree = ast.parse(file.read_text())
    named: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named.setdefault(node.targets[0].id, []).append(node.value)
    for node in ast.walk(tree):
        given: list[ast.expr] = []
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            given = node.exc.args
        elif isinstance(node, ast.Call) and _called(node) in ("mistake", "abort"):
            given = node.args[1:]
        for one in (
            meant for arg in given for meant in (named.get(arg.id, []) if isinstance(arg, ast.Name) else [arg])
        ):
            yield from filter(None, map(_sentence, (one.body, one.orelse) if isinstance(one, ast.IfExp) else (one,)))


def given(file: Path) -> Iterator[str]:
    """The reasons it gives: sentences of several words, without the place in front."""
    for node in ast.walk(ast.parse(file.read_text())):
        found: list[ast.expr] = []
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found = [node.value] if node.targets[0].id in ("reason", "why") else []
        elif isinstance(node, ast.keyword):
            found = [node.value] if node.arg in ("reason", "detail") else []
        elif isinstance(node, ast.Call):
            found = (
                node.args if _called(node) in ("Failed", "dismiss", "one_line", "_refused", "_lost", "_answer") else []
            )
        for one in found:
            for part in one.values if isinstance(one, ast.BoolOp) else [one]:
                if " " in (text := _sentence(part).removeprefix("{1}: ")):
                    yield _BLANK.sub(lambda blank: "‹x›", text)


def told(file: Path) -> Iterator[str]:
    """Sentences of several words that it returns, yields, appends or puts into a list it makes."""
    for node in ast.walk(ast.parse(file.read_text())):
        found: list[ast.expr | None] = []
        if isinstance(node, ast.Return | ast.Yield):
            found = [node.value]
        elif isinstance(node, ast.ListComp):
            found = [node.elt]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append":
            found = list(node.args)
        for text in (_sentence(one) for one in found if one is not None):
            if len(re.findall(r"[A-Za-z]{2,}", _BLANK.sub("", text))) > 1:
                yield text


@pytest.mark.parametrize("file", TOLD, ids=lambda file: f"{file.parent.name}.{file.stem}")
def test_what_is_told_of_the_node_has_its_chinese(file: Path) -> None:
    sentences = [_BLANK.sub("‹x›", text) for text in told(file)]
    assert sentences
    commands = ("CONFIG SET ",)
    assert not [text for text in sentences if said(text, "zh") == text and not text.startswith(commands)]


@pytest.mark.parametrize("name", REASONS)
def test_every_reason_has_its_chinese(name: str) -> None:
    reasons = set(given(ROOT / "delivery" / name))
    assert not {one for one in reasons if reason(one, "zh") == one and one not in OTHERS}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: f"{file.parent.name}.{file.stem}")
def test_every_sentence_has_its_chinese(file: Path) -> None:
    exact, patterns = sentences("zh")
    known = {parts for parts, *_rest in patterns}
    missing = {
        one
        for one in raised(file)
        if one not in BARE and one not in exact and tuple(_BLANK.split(one)[::2]) not in known
    }
    assert not missing, missing


def test_the_blanks_are_the_same_and_each_sentence_is_found_again() -> None:
    exact, patterns = sentences("zh")
    assert not [text for text, chinese in exact.items() if not chinese]
    for parts, numbers, chinese in patterns:
        assert sorted(numbers) == sorted(_BLANK.findall(chinese)), chinese
        text = "‹x›".join(parts)
        found = said(text, "zh")
        assert found == _BLANK.sub("‹x›", chinese) or "{1}{2}" in chinese or found != text, (text, found)


@pytest.mark.parametrize("text", [*WHY, *MISTAKES])
def test_no_english_word_is_left(text: str) -> None:
    found = said(text, "zh")
    place = found.rpartition(": ")[0] if ".conf:" in text else ""
    left = set(re.findall(r"[A-Za-z]{2,}", found.removeprefix(place))) - {"ms", "order", "orders"}
    assert not left, found
    assert said(text, "en") == text


def test_a_mistake_of_a_whole_topic_is_no_less_chinese() -> None:
    line = (
        'orders.conf:3: [topics] [[main]]: run = command needs command: what to run, such as "php /data/app/worker.php"'
    )
    assert said(line, "zh").endswith('[[main]]: run = command 需要 command：要运行什么，如 "php /data/app/worker.php"')


@pytest.mark.parametrize(
    ("text", "chinese"),
    [
        (
            "node office: its sidecar failed at this; its log says more",
            "节点 office：它的 web 进程在此出错；详情见其日志",
        ),
        (
            "anna may not queues.put: that needs the role admin in system shop",
            "anna 无权执行 queues.put：需要系统 shop 的 admin 角色",
        ),
        (
            "unix:/run/php.sock: closed without an answer; may have run",
            "unix:/run/php.sock: 没有应答就关闭了连接；可能已经执行过",
        ),
        ("attempt 3 of 3 failed: HTTP status 500: boom", "第 3 次尝试失败（共 3 次）：HTTP 状态码 500：boom"),
        (
            "halted: 20 of the last 40 attempts failed, the last with: no",
            "已停住：最近 40 次尝试中失败了 20 次，最后一次是：no",
        ),
        ("anna may not purge.purge: that needs the role operator", "anna 无权执行 purge.purge：需要角色 operator"),
        ("orders/mail is paused: `pepperbus resume orders/mail`", "orders/mail 已暂停：`pepperbus resume orders/mail`"),
        ("its consumer is down: `pepperbus status` says why", "它的消费者状态为不可用：原因见 `pepperbus status`"),
    ],
)
def test_what_operations_refuse_is_said_whole(text: str, chinese: str) -> None:
    assert said(text, "zh") == chinese


def test_what_php_says_is_left_alone() -> None:
    text = "PHP Fatal error:  Uncaught Error: month in /data/a.php:3"
    assert said(text, "zh") == text
    assert reason("no account 17 found", "zh") == "no account 17 found"


def test_words_of_others_take_no_time() -> None:
    assert said("x (" * 20_000, "zh") == "x (" * 20_000


def test_what_nobody_knows_is_shown_as_it_is() -> None:
    assert said("the moon is full", "zh") == "the moon is full"
