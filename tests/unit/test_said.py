"""What operations and the check say in English has its Chinese: every sentence of the sources below, each found again."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pepperbus
from pepperbus.web.said import said, sentences

ROOT = Path(pepperbus.__file__).parent
CHECK = ("values", "queue", "command", "schedules", "timing", "joboptions", "canary", "canary_check", "limits")
OPERATIONS = ("queues", "queue_text", "schedules", "drain", "office", "push", "closing")
SOURCES = (
    *(ROOT / "config" / f"{one}.py" for one in CHECK),
    *(ROOT / "operations" / f"{one}.py" for one in OPERATIONS),
)
#: Nothing but blanks between marks: another's sentence with a place in front, found by its parts or shown as it is.
BARE = {"{1}: {2}", "{1}{2}"}
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
    "no queue 'order'; did you mean orders?",
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


def raised(file: Path) -> Iterator[str]:
    """What it raises, or notes as a mistake."""
    for node in ast.walk(ast.parse(file.read_text())):
        given: list[ast.expr] = []
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            given = node.exc.args
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "mistake":
            given = node.args[1:]
        for one in given:
            yield from filter(None, map(_sentence, (one.body, one.orelse) if isinstance(one, ast.IfExp) else (one,)))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: f"{file.parent.name}.{file.stem}")
def test_every_sentence_has_its_chinese(file: Path) -> None:
    exact, patterns = sentences("zh")
    known = exact.keys() | {_numbered(pattern.pattern) for pattern, *_rest in patterns}
    missing = {
        one
        for one in raised(file)
        if one not in BARE and _numbered(re.escape(_BLANK.sub("(.*?)", one))) not in known and one not in exact
    }
    assert not missing, missing


def _numbered(pattern: str) -> str:
    return pattern.replace(re.escape("(.*?)"), "(.*?)")


def test_the_blanks_are_the_same_and_each_sentence_is_found_again() -> None:
    exact, patterns = sentences("zh")
    assert not [text for text, chinese in exact.items() if not chinese]
    for pattern, numbers, chinese in patterns:
        assert sorted(numbers) == sorted(_BLANK.findall(chinese)), chinese
        text = re.sub(r"\\(.)", r"\1", pattern.pattern.replace("(.*?)", "‹x›"))
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


def test_what_nobody_knows_is_shown_as_it_is() -> None:
    assert said("the moon is full", "zh") == "the moon is full"
