"""Every rule of the verdict, and every answer php-fpm was measured to give, as one table of cases."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import product
from typing import Any

import pytest

from pepperbus.config.backoff import Backoff
from pepperbus.config.model import Topic
from pepperbus.delivery import verdict_php
from pepperbus.delivery.contract import Act, Answer, Delivered, Request, TargetEffect, Transport
from pepperbus.delivery.verdict import ENDED_EARLY, NO_CODE, NOT_SEEN, RULES, Case, judge, judge_by_rules, judge_ping
from pepperbus.job import Job
from pepperbus.operations import life

NOW_MS = 1_800_000_000_000
JOBS = tuple(Delivered(Job(9223372036854775809 + i, "t", b"x", NOW_MS), 1) for i in range(3))
ONE = Request("orders", "mail", "t-1", JOBS[:1], deadline_s=60.0, now_ms=NOW_MS)
THREE = Request("orders", "mail", "t-1", JOBS, now_ms=NOW_MS)
SDK = Topic("orders", "mail", "local", "fastcgi", script="/data/app/consume.php", contract="sdk")
STATUS = Topic("orders", "mail", "local", "fastcgi", script="/data/app/consume.php", contract="status")
RAW = Topic("orders", "mail", "local", "fastcgi", contract="status", body="raw")
COMMAND = Topic("orders", "mail", "local", "command", command=("php", "a"), contract="status")

TRACE = b"\nStack trace:\n#0 {main}\n  thrown in "
FATAL = b"PHP message: PHP Fatal error:  Uncaught Exception: boom in /app/x.php:3" + TRACE + b"/app/x.php on line 3\n"
PARSE = b'PHP message: PHP Parse error:  syntax error, unexpected token ";" in /app/x.php on line 7\n'
MEMORY = (
    b"PHP message: PHP Fatal error:  Allowed memory size of 2097152 bytes exhausted (tried to allocate 4096 bytes)"
    b" in /app/my dir/x.php on line 12\n"
)
POST_SIZE = (
    b"PHP message: PHP Warning:  PHP Request Startup: POST Content-Length of 9437203 bytes exceeds the limit of 8388608"
    b" bytes in Unknown on line 0\n"
)
NOTICE = (
    b"PHP message: PHP Warning:  Undefined variable $a in /app/x.php on line 3\nPHP message: hello from error_log\n"
)
SHOWN_HTML = (
    b"some output<br />\n<b>Fatal error</b>:  Uncaught Exception: boom in /app/x.php:3"
    + TRACE
    + b"<b>/app/x.php</b> on line <b>3</b><br />\n"
)
SHOWN_TEXT = b"PHP Fatal error:  Uncaught Exception: boom in /app/x.php:3" + TRACE + b"/app/x.php on line 3\n"
SHOWN_PARSE = (
    b"<br />\n<b>Parse error</b>:  syntax error, unexpected token in <b>/app/x.php</b> on line <b>7</b><br />\n"
)
UNKNOWN = b"Primary script unknown\n"
DENIED = b"Access to the script '/app/x.txt' has been denied (see security.limit_extensions)\n"


def answer(status: int = 200, body: bytes = b"", stderr: bytes = b"", **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(Transport.ANSWERED, status, names, body, stderr)


def failed(transport: Transport, detail: str = "", stderr: bytes = b"") -> Answer:
    return Answer(transport, detail=detail, stderr=stderr)


DONE: dict[str, Any] = {"act": Act.DONE, "effect": TargetEffect.FINE}
RETRY: dict[str, Any] = {"act": Act.RETRY, "effect": TargetEffect.FINE, "spent": True}
DEAD: dict[str, Any] = {"act": Act.DEAD, "effect": TargetEffect.FINE, "spent": True}
BACK: dict[str, Any] = {"act": Act.BACK, "spent": False}
STOPPED = BACK | {"effect": TargetEffect.STOPPED}
CUT: dict[str, Any] = {
    "act": Act.RETRY,
    "effect": TargetEffect.STRAINED,
    "spent": True,
    "zombie": False,
}
MAYBE = "; may have run"
BOOM = {"reason": "PHP Fatal error: Uncaught Exception: boom in /app/x.php:3", "code": 500}
RESET = failed(Transport.CUT, "unix:/run/php.sock: Connection reset by peer after the request was sent")

# What it is, the answer, the topics it holds for, what the verdict must say.
CASES: list[tuple[str, Answer, tuple[Topic, ...], dict[str, Any]]] = [
    # processes of our own
    ("command done, PHP's words in its output", answer(stderr=FATAL), (COMMAND,), DONE),
    (
        "command timeout",
        failed(Transport.TIMEOUT, "php a: not done within 60 s; killed"),
        (COMMAND,),
        CUT | {"code": 504, "reason": "php a: not done within 60 s; killed" + MAYBE},
    ),
    (
        "command died",
        failed(Transport.CUT, "php a: exit status 9"),
        (COMMAND,),
        CUT | {"reason": "php a: exit status 9" + MAYBE},
    ),
    (
        "command retry later",
        answer(503, b"exit status 75: busy", error_code="75"),
        (COMMAND,),
        BACK | {"effect": TargetEffect.FINE, "after_s": 5.0, "reason": "exit status 75: busy", "error_code": "75"},
    ),
    (
        "command failed",
        answer(200, b"exit status 3", x_pepperbus_verdict="retry", error_code="3"),
        (COMMAND,),
        RETRY | {"error_code": "3", "reason": "exit status 3"},
    ),
    # how far the exchange came
    ("no listener", failed(Transport.NO_LISTENER, "x: ENOENT"), (SDK, STATUS), BACK | {"effect": TargetEffect.DOWN}),
    ("no access", failed(Transport.FORBIDDEN, "x: EACCES"), (SDK, STATUS), STOPPED | {"reason": "x: EACCES"}),
    ("busy", failed(Transport.BUSY), (SDK, STATUS), BACK | {"effect": TargetEffect.BUSY}),
    ("cut", RESET, (SDK, STATUS), CUT | {"reason": RESET.detail + MAYBE}),
    (
        "cut, PHP had died",
        failed(Transport.CUT, "EOF", FATAL),
        (SDK,),
        CUT | {"reason": "EOF; " + BOOM["reason"] + MAYBE},
    ),  # type: ignore[operator]
    (
        "our timeout",
        failed(Transport.TIMEOUT),
        (SDK, STATUS),
        CUT | {"zombie": True, "code": 504, "reason": "no answer within 60 s" + MAYBE},
    ),
    (
        "unsendable",
        failed(Transport.UNSENDABLE, "NUL in a param"),
        (SDK, STATUS),
        {"act": Act.DEAD, "effect": TargetEffect.NEUTRAL, "spent": False, "reason": "NUL in a param"},
    ),
    # what PHP says on stderr, whatever the headers say
    ("fatal, 500", answer(500, b"", FATAL), (SDK, STATUS), RETRY | BOOM),
    ("fatal after output: 200", answer(200, b"half", FATAL), (SDK, STATUS), RETRY | BOOM),
    ("fatal after Code: 200", answer(200, b"ok", FATAL, code="200"), (SDK, STATUS), RETRY | BOOM),
    ("fatal after verdict done", answer(200, b"ok", FATAL, x_pepperbus_verdict="done"), (SDK, STATUS), RETRY | BOOM),
    ("notice, then fatal", answer(200, b"ok", NOTICE + FATAL, code="200"), (SDK, STATUS), RETRY | BOOM),
    (
        "parse error",
        answer(500, b"", PARSE),
        (SDK, STATUS),
        RETRY | {"reason": 'PHP Parse error: syntax error, unexpected token ";" in /app/x.php:7'},
    ),
    (
        "out of memory",
        answer(500, b"", MEMORY),
        (SDK, STATUS),
        RETRY
        | {
            "reason": "PHP Fatal error: Allowed memory size of 2097152 bytes exhausted (tried to allocate 4096 bytes)"
            " in /app/my dir/x.php:12"
        },
    ),
    ("other stderr, sdk", answer(200, b"ok", NOTICE, code="200"), (SDK,), DONE),
    ("other stderr, status", answer(200, b"", NOTICE), (STATUS,), DONE),
    (
        "script missing, traversal, directory",
        answer(404, b"File not found.\n", UNKNOWN),
        (SDK, STATUS),
        STOPPED | {"reason": f"/data/app/consume.php: Primary script unknown: {NOT_SEEN}"},
    ),
    (
        "wrong extension",
        answer(403, b"Access denied.\n", DENIED),
        (SDK, STATUS),
        STOPPED
        | {
            "reason": "/data/app/consume.php: Access to the script '/app/x.txt' has been denied"
            " (see security.limit_extensions)"
        },
    ),
    ("a script that logs those words", answer(200, b"", b"PHP message: " + UNKNOWN, code="200"), (SDK, STATUS), DONE),
    (
        "post_max_size",
        answer(200, b"", POST_SIZE),
        (SDK, STATUS),
        DEAD
        | {
            "code": 413,
            "reason": "the form has 9437203 bytes, post_max_size of the pool is 8388608 bytes: raise post_max_size",
        },
    ),
    ("post_max_size, then the script dies of it", answer(500, b"", POST_SIZE + FATAL), (SDK, STATUS), DEAD),
    ("post_max_size, raw: php://input is whole", answer(200, b"", POST_SIZE), (RAW,), DONE),
    # the consumer's verdict header
    ("verdict done", answer(500, x_pepperbus_verdict="done"), (SDK, STATUS), DONE),
    ("verdict Done", answer(200, x_pepperbus_verdict=" Done "), (SDK, STATUS), DONE),
    ("verdict retry", answer(200, b"later", x_pepperbus_verdict="retry"), (SDK, STATUS), RETRY | {"reason": "later"}),
    (
        "verdict retry after",
        answer(200, code="200", x_pepperbus_verdict="retry", retry_after="90"),
        (SDK, STATUS),
        RETRY | {"after_s": 90.0},
    ),
    (
        "verdict dead",
        answer(200, b"no such\norder", error_code="E7", code="200", x_pepperbus_verdict="dead"),
        (SDK, STATUS),
        DEAD | {"reason": "no such order", "error_code": "E7"},
    ),
    ("verdict pause", answer(200, x_pepperbus_verdict="pause"), (SDK, STATUS), BACK | {"pause": True}),
    (
        "verdict unknown",
        answer(200, x_pepperbus_verdict="okay"),
        (SDK, STATUS),
        RETRY | {"reason": "X-Pepperbus-Verdict: okay is not done, retry, dead or pause"},
    ),
    # contract = sdk
    ("Code: 200", answer(200, b"whatever", code="200"), (SDK,), DONE | {"code": 200}),
    ("Code: 200 with HTTP 500", answer(500, code="200"), (SDK,), DONE),
    (
        "Code: 404",
        answer(200, code="404"),
        (SDK,),
        {"act": Act.UNREGISTERED, "spent": False, "effect": TargetEffect.NEUTRAL},
    ),
    (
        "Code: 500",
        answer(200, b"db is away", code="500", error_code="17"),
        (SDK,),
        RETRY | {"code": 500, "error_code": "17", "reason": "db is away"},
    ),
    ("Code: 400", answer(200, code="400"), (SDK,), RETRY | {"code": 400, "reason": "Code: 400"}),
    ("Code: 201", answer(200, code="201"), (SDK,), RETRY | {"code": 201}),
    ("Code: 502", answer(200, code="502"), (SDK,), RETRY | {"code": 502}),
    (
        "no Code",
        answer(200, b"hello"),
        (SDK,),
        RETRY | {"code": 500, "reason": "no Code in the answer (HTTP status 200): hello"},
    ),
    (
        "no Code, empty",
        answer(200),
        (SDK,),
        RETRY | {"reason": f"no Code in the answer (HTTP status 200): {ENDED_EARLY}"},
    ),
    ("no Code, 204", answer(204), (SDK,), RETRY | {"reason": "no Code in the answer (HTTP status 204)"}),
    ("Code garbage", answer(200, code="2x0"), (SDK,), RETRY | {"code": 500}),
    ("Code twice", answer(200, code="200, 500"), (SDK,), RETRY | {"code": 500}),
    ("Retry-After alone means nothing", answer(200, code="500", retry_after="9"), (SDK,), RETRY | {"after_s": None}),
    # contract = status
    ("200", answer(200, b"fine"), (STATUS, RAW), DONE),
    ("200, empty", answer(200), (STATUS, RAW), DONE),
    ("204", answer(204), (STATUS,), DONE | {"code": 204}),
    ("Code is not looked at", answer(200, code="500"), (STATUS,), DONE),
    ("429", answer(429, retry_after="7"), (STATUS,), BACK | {"effect": TargetEffect.BUSY, "after_s": 7.0}),
    ("503", answer(503), (STATUS,), BACK | {"effect": TargetEffect.BUSY, "after_s": 5.0}),
    ("404", answer(404), (STATUS,), BACK | {"effect": TargetEffect.PROBE}),
    ("410", answer(410), (STATUS,), BACK | {"effect": TargetEffect.PROBE}),
    ("400", answer(400, b"bad"), (STATUS,), DEAD | {"reason": "HTTP status 400: bad", "code": 400}),
    ("413", answer(413), (STATUS,), DEAD),
    ("415", answer(415), (STATUS,), DEAD),
    ("422", answer(422), (STATUS,), DEAD),
    ("401", answer(401), (STATUS,), STOPPED),
    ("403", answer(403), (STATUS,), STOPPED),
    (
        "302",
        answer(302, location="http://169.254.169.254/\r\nx"),
        (STATUS,),
        RETRY | {"reason": "HTTP status 302: redirects are not followed (to http://169.254.169.254/ x)"},
    ),
    ("500", answer(500, b"<h1>Oops</h1>\n"), (STATUS,), RETRY | {"reason": "HTTP status 500: <h1>Oops</h1>"}),
    ("418", answer(418), (STATUS,), RETRY | {"reason": "HTTP status 418"}),
    ("100 is no answer", answer(100), (STATUS,), RETRY),
    # php-fpm as measured, where the rows above do not say it already
    ("fpm never started: ENOENT", failed(Transport.NO_LISTENER), (STATUS,), BACK | {"effect": TargetEffect.DOWN}),
    ("fpm dead, stale socket", failed(Transport.NO_LISTENER), (STATUS,), BACK | {"effect": TargetEffect.DOWN}),
    ("unix backlog full: EAGAIN", failed(Transport.BUSY), (STATUS,), BACK | {"effect": TargetEffect.BUSY}),
    ("TCP backlog full: timeout", failed(Transport.BUSY), (STATUS,), BACK | {"effect": TargetEffect.BUSY}),
    ("child killed mid-script", RESET, (STATUS,), CUT),
    ("request_terminate_timeout", RESET, (STATUS,), CUT),
    ("reload without process_control_timeout", RESET, (STATUS,), CUT),
    ("reload with it", answer(200), (STATUS,), DONE),
    ("exit(1), exit(255): 200", answer(200), (STATUS,), DONE),
    ("exit(1) to an sdk topic", answer(200), (SDK,), RETRY),
    ("log_errors=0 and output sent: cannot be seen", answer(200, b"half"), (STATUS,), DONE),
    ("the same to an sdk topic: no Code", answer(200, b"half"), (SDK,), RETRY),
    ("empty PARAMS: 200 with nothing", answer(200), (SDK,), RETRY),
    ("guarded and closed before the terminator", failed(Transport.BUSY), (SDK,), BACK),
    ("children stopped", failed(Transport.TIMEOUT), (SDK,), CUT | {"zombie": True}),
    ("200 lines of error_log", answer(200, b"", b"PHP message: noise\n" * 200, code="200"), (SDK,), DONE),
]


@pytest.mark.parametrize(
    ("given", "topic", "expected"),
    [pytest.param(given, topic, e, id=f"{what} [{topic.contract}]") for what, given, ts, e in CASES for topic in ts],
)
def test_row(given: Answer, topic: Topic, expected: dict[str, Any]) -> None:
    verdict = judge(given, ONE, topic)
    assert {key: getattr(verdict, key) for key in expected} == expected
    assert "\n" not in verdict.reason
    assert verdict.act is Act.DONE or verdict.reason, "whatever is not done says why"


@pytest.mark.parametrize("shown", [SHOWN_HTML, SHOWN_TEXT], ids=["html", "text"])
@pytest.mark.parametrize("topic", [SDK, STATUS], ids=["sdk", "status"])
def test_a_fatal_error_shown_in_the_body_counts_in_a_shared_pool(shown: bytes, topic: Topic) -> None:
    given = answer(200, shown, code="200")
    verdict = judge(given, ONE, topic, dedicated=False)
    assert (verdict.act, verdict.reason) == (Act.RETRY, BOOM["reason"])
    assert judge(given, ONE, topic, dedicated=True).act is Act.DONE


def test_a_parse_error_shown_in_the_body() -> None:
    verdict = judge(answer(200, SHOWN_PARSE), ONE, STATUS, dedicated=False)
    assert verdict.reason == "PHP Parse error: syntax error, unexpected token in /app/x.php:7"


def test_post_max_size_shown_in_the_body() -> None:
    body = (
        b"<br />\n<b>Warning</b>:  PHP Request Startup: POST Content-Length of 99 bytes exceeds the limit of 9 bytes"
        b" in <b>Unknown</b> on line <b>0</b><br />\n"
    )
    assert judge(answer(200, body), ONE, STATUS, dedicated=False).act is Act.DEAD
    assert judge(answer(200, body), ONE, STATUS, dedicated=True).act is Act.DONE


@pytest.mark.parametrize("body", [b"Fatal error rate: 3", b"no error at all", b'{"error": "Parse error: x"}'])
def test_a_body_that_only_talks_of_errors_is_no_error(body: bytes) -> None:
    assert judge(answer(200, body), ONE, STATUS, dedicated=False).act is Act.DONE


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("30", 30.0),
        ("0", 1.0),
        ("-5", 1.0),
        ("315360000", 3600.0),
        ("9" * 5000, 3600.0),
        (format_datetime(datetime.fromtimestamp(NOW_MS / 1000, UTC) + timedelta(seconds=45), usegmt=True), 45.0),
        (format_datetime(datetime.fromtimestamp(NOW_MS / 1000, UTC) - timedelta(days=9), usegmt=True), 1.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("soon", None),
        ("1.5", None),
        ("Mon, 99 Foo 2026 99:99:99 GMT", None),
        ("", None),
    ],
)
def test_retry_after_is_held_between_a_second_and_an_hour(said: str, seconds: float | None) -> None:
    assert judge(answer(200, x_pepperbus_verdict="retry", retry_after=said), ONE, SDK).after_s == seconds


def test_a_refusal_without_retry_after_waits_the_topics_first_step() -> None:
    topic = Topic("orders", "mail", "local", "http", contract="status", backoff=Backoff("fixed", (12.0,), False))
    assert judge(answer(503), ONE, topic).after_s == 12.0


def ids(*which: int) -> str:
    return ",".join(str(JOBS[i].job.id) for i in which)


@pytest.mark.parametrize(
    ("headers", "act", "which"),
    [
        ({"code": "200", "failed_jobs": ids(1)}, Act.RETRY, (1,)),
        ({"code": "500", "failed_jobs": ids(0, 2)}, Act.RETRY, (0, 2)),
        ({"x_pepperbus_verdict": "done", "failed_jobs": ids(1) + ", "}, Act.RETRY, (1,)),
        ({"x_pepperbus_verdict": "dead", "failed_jobs": ids(2)}, Act.DEAD, (2,)),
        ({"x_pepperbus_verdict": "retry", "retry_after": "9", "failed_jobs": ids(2)}, Act.RETRY, (2,)),
    ],
)
def test_failed_jobs_names_the_ones_that_failed(headers: dict[str, str], act: Act, which: tuple[int, ...]) -> None:
    verdict = judge(answer(200, **headers), THREE, SDK)
    assert verdict.act is act
    assert verdict.spent
    assert verdict.failed_ids == {JOBS[i].job.id for i in which}
    assert verdict.code != 200
    assert verdict.reason


@pytest.mark.parametrize("listed", ["17", "all", ids(0) + ",17"])
def test_failed_jobs_that_were_never_sent_fail_the_whole_request(listed: str) -> None:
    verdict = judge(answer(200, code="200", failed_jobs=listed), THREE, SDK)
    assert (verdict.act, verdict.failed_ids) == (Act.RETRY, frozenset())


def test_an_empty_failed_jobs_says_nothing() -> None:
    assert judge(answer(200, code="200", failed_jobs=" "), THREE, SDK).act is Act.DONE


def test_a_topic_may_say_that_its_404_is_final() -> None:
    topic = Topic("orders", "mail", "local", "http", contract="status", dead_on=(404, 429))
    assert judge(answer(404), ONE, topic).act is Act.DEAD
    assert judge(answer(429), ONE, topic).act is Act.DEAD
    assert judge(answer(400), ONE, topic).act is Act.RETRY


def test_reasons_stay_short_and_printable() -> None:
    verdict = judge(answer(500, b"\x1b[31m" + b"x" * 100_000), ONE, STATUS)
    assert len(verdict.reason) <= 320
    assert verdict.reason.isprintable()


@pytest.mark.parametrize(
    "junk", [b"PHP Fatal error:", b"PHP Fatal error:  " + b"(" * 60_000, b"<b>Fatal error</b>: " * 3000]
)
def test_odd_error_texts_do_no_harm(junk: bytes) -> None:
    assert judge(answer(200, b"", junk), ONE, SDK).act is Act.RETRY
    judge(answer(200, junk, code="200"), ONE, SDK, dedicated=False)


def test_the_short_cut_says_what_the_rules_say() -> None:
    codes = ({}, {"code": "200"}, {"code": " 200"}, {"code": "404"}, {"code": "500"})
    words: tuple[dict[str, str], ...] = ({}, {"x-pepperbus-verdict": "dead"}, {"failed-jobs": ""}, {"failed-jobs": "1"})
    said = (b"", NOTICE, FATAL, POST_SIZE, UNKNOWN)
    bodies = (b"", b"fine", SHOWN_TEXT, SHOWN_PARSE)
    seen = set()
    for transport, status, code, word, stderr, body in product(
        (Transport.ANSWERED, Transport.CUT), (200, 201, 403, 404, 500), codes, words, said, bodies
    ):
        given = Answer(transport, status, {**code, **word}, body, stderr)
        for topic, dedicated in product((SDK, STATUS, RAW), (True, False)):
            verdict = judge(given, ONE, topic, dedicated=dedicated)
            assert verdict == judge_by_rules(given, ONE, topic, dedicated=dedicated), given
            seen.add(verdict.act)
    assert {Act.DONE, Act.DEAD, Act.RETRY, Act.BACK} <= seen


def test_every_rule_decides_some_case() -> None:
    """A rule that no case reaches is dead or untested."""
    reached = set()
    headed = (("failed", answer(200, failed_jobs=ids(0)), (SDK,), {}),)
    for _, given, topics, _ in (*CASES, *headed):
        for topic in topics:
            case = Case(given, ONE, topic, True)
            reached.add(next(rule.__name__ for rule in RULES if rule(case)))
    assert reached == {rule.__name__ for rule in RULES}


PING = Request("orders", "mail", "", ping=True, now_ms=NOW_MS)


@pytest.mark.parametrize(
    "given",
    [
        answer(200, b"orders/mail", code="200"),
        answer(200, b"orders/audit,orders/mail,", code="200"),
        answer(200, b"orders/audit, orders/mail\n", code="200"),
        answer(200, b"", code="200", consume_topics="a/b,orders/mail,"),
        answer(200, b"\nNotice: Undefined x in /app/x.php on line 3\norders/mail,", NOTICE, code="200"),
        answer(200, b"<br />\n<b>Notice</b>: x in <b>/a.php</b> on line <b>3</b><br />\norders/mail,", code="200"),
        answer(500, b"orders/mail", code=" 200 "),
    ],
)
def test_registered(given: Answer) -> None:
    assert judge_ping(given, PING) == (True, "")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer(200, b"orders/mail"), NO_CODE),
        (answer(200, b""), NO_CODE),
        (answer(200, b"orders/mail", code="404"), "Code: 404"),
        (answer(200, b"orders/mails,xorders/mail", code="200"), "does not list orders/mail, only: orders/mails"),
        (answer(200, b"", code="200"), "only: nothing"),
        (answer(200, b"orders/mail", FATAL, code="200"), "boom in /app/x.php:3"),
        (answer(404, b"File not found.\n", UNKNOWN), "Primary script unknown"),
        (failed(Transport.NO_LISTENER, "unix:/x: ENOENT"), "unix:/x: ENOENT"),
        (failed(Transport.TIMEOUT), "timeout"),
    ],
)
def test_not_registered(given: Answer, reason: str) -> None:
    registered, why = judge_ping(given, PING)
    assert not registered
    assert reason in why


def test_the_text_that_tells_people_what_to_set() -> None:
    assert NO_CODE == "this script does not answer Code: set contract = status"


SPACES, DIGITS = b" " * 22, b"9" * 5000


@pytest.mark.parametrize(
    ("judged", "said"),
    [
        (verdict_php.shown_fatal, (b">Fatal error:" + SPACES) * 29_000),
        (verdict_php.shown_fatal, b">Fatal error: " * 75_000),
        (verdict_php.shown_fatal, b">Fatal error: x" + b" on line " * 100_000),
        (verdict_php.fatal, b"PHP Fatal error: " + b" in  on line " * 5000),
        (verdict_php.script_refused, b"Access to the script '" * 2900),
        (verdict_php.post_refused, b"POST Content-Length of " + DIGITS + b" bytes exceeds the limit of 3 bytes"),
        (lambda said: life.php_place(said.decode()), b" in /x" * 11_000),
        (lambda said: life.php_place(said.decode()), b" in /x:" + DIGITS),
    ],
)
def test_whatever_a_script_prints_is_read_at_once(judged: Callable[[bytes], object], said: bytes) -> None:
    """Who looks at it holds up a whole worker, or the sidecar; some of these took minutes."""
    began = time.process_time()
    judged(said)
    assert time.process_time() - began < 5


def test_a_displayed_fatal_error_is_found_behind_words_that_look_like_one() -> None:
    body = b">Fatal error: so " + b"y" * 4100 + b"\n<b>Fatal error</b>:  real one in <b>/a.php</b> on line <b>7</b>"
    assert verdict_php.shown_fatal(body) == "PHP Fatal error: real one in /a.php:7"
