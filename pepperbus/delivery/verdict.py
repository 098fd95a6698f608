"""What an answer means for its jobs and for the target it came from.

Floor 2. Pure functions over values: no socket, no clock, no log. `judge` asks the rules of `RULES` one after the
other; the first that has an opinion decides. A new rule is one function and its line in `RULES`, and its case in
tests/unit/test_verdict.py. The order is the contract's: how far the exchange came, what PHP said on stderr, the
consumer's own verdict header, then the topic's `contract` (`sdk`: headers; `status`: HTTP status).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Act, Answer, Request, TargetEffect, Transport, Verdict

NO_CODE = "this script does not answer Code: set contract = status"
_REASON = 300  # characters of a reason

_SCRIPT = re.compile(
    rb"(?:Primary script unknown|Access to the script '[^\n]*' has been denied|Unable to open primary)"
)
_SCRIPT_LINE = re.compile(rb"(?:Primary script|Access to|Unable to open)[^\n]*")
_POST_SIZE = re.compile(rb"POST Content-Length of (\d+) bytes exceeds the limit of (\d+) bytes")
_SHOWN_POST_SIZE = re.compile(_POST_SIZE.pattern + rb" in (?:<b>)?Unknown(?:</b>)? on line (?:<b>)?0")
_FATAL = re.compile(rb"PHP ((?:Fatal|Parse|Recoverable fatal) error): *(.{0,4000})", re.DOTALL)
_PLACE = re.compile(r"(.*?) in ([^\n]*?)(?::(\d+)(?=\n|$)| on line (\d+))", re.DOTALL)
_SHOWN_FATAL = re.compile(
    rb"(?:^|\n|>)(?:PHP )?(?:<b>)?((?:Fatal|Parse|Recoverable fatal) error)(?:</b>)?: +"
    rb"(.{0,4000}? on line (?:<b>)?\d+)",
    re.DOTALL,
)
_TAGS = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_NAMES = re.compile(r"[,\s<>]+")


@dataclass(frozen=True, slots=True)
class Case:
    """What the rules look at."""

    answer: Answer
    request: Request
    topic: Topic
    dedicated: bool


Rule = Callable[[Case], Verdict | None]


def judge(answer: Answer, request: Request, topic: Topic, *, dedicated: bool = True) -> Verdict:
    """The verdict on one data call.

    `dedicated`: the php-fpm pool serves the bus alone, so PHP's errors are known to go to stderr; in a shared pool
    they may be displayed, and the body is scanned for them as well. With `Failed-Jobs`, `act` is what becomes of
    `failed_ids` only and the other jobs of the request are done.
    """
    case = Case(answer, request, topic, dedicated)
    for rule in RULES:
        verdict = rule(case)
        if verdict is not None:
            return verdict
    raise AssertionError("the last rule always decides")


def judge_ping(answer: Answer, request: Request) -> tuple[bool, str]:
    """Whether the consumer serves `queue/topic` of this ping, and if not, why.

    It must answer `Code: 200` and name the topic in `Consume-Topics` or in the body; notices around it and trailing
    commas do no harm. The reason is `NO_CODE` when the answer has no Code: asking again will not help.
    """
    if answer.transport is not Transport.ANSWERED:
        return False, answer.detail or answer.transport.value
    if trouble := script_trouble(answer) or php_error(answer.stderr):
        return False, trouble
    code = answer.headers.get("code")
    if code is None:
        return False, NO_CODE
    if code.strip() != "200":
        return False, one_line(f"the ping was answered with Code: {code}: {_text(answer.body)}")
    wanted = f"{request.queue}/{request.topic}"
    listed = _NAMES.split(answer.headers.get("consume-topics", "")) + _NAMES.split(_text(answer.body))
    if wanted in listed:
        return True, ""
    names = [name for name in listed if "/" in name]
    return False, one_line(f"the script does not list {wanted}, only: {', '.join(names) or 'nothing'}")


# 1. How far the exchange came. `code` is what the journal shows: 502 to 504, as a proxy would say.


def no_listener(case: Case) -> Verdict | None:
    if case.answer.transport is Transport.NO_LISTENER:
        return _refused(case, TargetEffect.DOWN, 502, "nobody listens")
    return None


def forbidden(case: Case) -> Verdict | None:
    if case.answer.transport is Transport.FORBIDDEN:
        return _refused(case, TargetEffect.STOPPED, 502, "the address may not be used")
    return None


def busy(case: Case) -> Verdict | None:
    if case.answer.transport is Transport.BUSY:
        return _refused(case, TargetEffect.BUSY, 503, "busy")
    return None


def unsendable(case: Case) -> Verdict | None:
    if case.answer.transport is Transport.UNSENDABLE:
        return Verdict(Act.DEAD, TargetEffect.NEUTRAL, False, 400, reason=case.answer.detail or "cannot be sent")
    return None


def cut(case: Case) -> Verdict | None:
    """May have run: never sent again at once. What PHP said before the cut is the better reason."""
    if case.answer.transport is not Transport.CUT:
        return None
    reason = "; ".join(filter(None, (case.answer.detail or "cut after sending", php_error(case.answer.stderr))))
    return Verdict(Act.RETRY, TargetEffect.STRAINED, True, 502, reason=one_line(reason), may_have_run=True)


def timeout(case: Case) -> Verdict | None:
    if case.answer.transport is not Transport.TIMEOUT:
        return None
    reason = case.answer.detail or f"no answer within {case.request.deadline_s:g} s"
    return Verdict(Act.RETRY, TargetEffect.STRAINED, True, 504, reason=reason, zombie=True, may_have_run=True)


def script_not_served(case: Case) -> Verdict | None:
    """php-fpm refused the path before anything ran: no job is to blame, the topic stops until it is served."""
    trouble = script_trouble(case.answer)
    if trouble is None:
        return None
    reason = one_line(f"{case.topic.script or case.answer.detail}: {trouble}")
    return Verdict(Act.BACK, TargetEffect.STOPPED, False, case.answer.status, reason=reason)


def post_max_size(case: Case) -> Verdict | None:
    """The script saw an empty $_POST and always will. Before `php_fatal`: what it died of then is only the echo.

    With a raw body php://input is complete in spite of the warning.
    """
    if case.topic.body == "raw":
        return None
    found = _POST_SIZE.search(case.answer.stderr)
    if found is None and not case.dedicated and b"POST Content-Length of" in case.answer.body:
        found = _SHOWN_POST_SIZE.search(case.answer.body)
    if found is None:
        return None
    sent, limit = (int(number) for number in found.groups())
    reason = f"the form has {sent} bytes, post_max_size of the pool is {limit} bytes: raise post_max_size"
    return Verdict(Act.DEAD, TargetEffect.FINE, True, 413, "post_max_size", reason)


def php_fatal(case: Case) -> Verdict | None:
    """A fatal or parse error, whatever the headers say: PHP answers 200 when output was sent before it died."""
    reason = php_error(case.answer.stderr)
    if reason is None and not case.dedicated:
        reason = _shown_error(case.answer.body)
    if reason is None:
        return None
    return Verdict(Act.RETRY, TargetEffect.FINE, True, 500, "php", reason)


# 2. The consumer's own verdict.


def failed_jobs(case: Case) -> Verdict | None:
    """`Failed-Jobs: id,id`: these failed (by the verdict header's word, else retried), the others are done."""
    listed = case.answer.headers.get("failed-jobs", "").replace(",", " ").split()
    if not listed:
        return None
    known = {str(delivered.job.id): delivered.job.id for delivered in case.request.jobs}
    failed = frozenset(known[word] for word in listed if word in known)
    if len(failed) < len(set(listed)):
        reason = one_line(f"Failed-Jobs names jobs that were not sent: {', '.join(listed)}")
        return _failed(500, "", reason)
    said = _by_word(case) if case.answer.headers.get("x-pepperbus-verdict", "").strip().lower() != "done" else None
    verdict = said or _failed(_code(case.answer) or 500, *_error(case.answer))
    return Verdict(
        verdict.act,
        verdict.effect,
        verdict.spent,
        verdict.code,
        verdict.error_code,
        verdict.reason or "named in Failed-Jobs",
        verdict.after_s,
        pause=verdict.pause,
        failed_ids=failed,
    )


def verdict_header(case: Case) -> Verdict | None:
    return _by_word(case)


def _by_word(case: Case) -> Verdict | None:
    """`X-Pepperbus-Verdict: done|retry|dead|pause`, with `Retry-After`."""
    word = case.answer.headers.get("x-pepperbus-verdict")
    if word is None:
        return None
    after = retry_after(case)
    error_code, reason = _error(case.answer)
    match word.strip().lower():
        case "done":
            return Verdict(Act.DONE, TargetEffect.FINE, True, 200)
        case "retry":
            return Verdict(Act.RETRY, TargetEffect.FINE, True, 500, error_code, reason or "verdict retry", after)
        case "dead":
            return Verdict(Act.DEAD, TargetEffect.FINE, True, 500, error_code, reason or "verdict dead")
        case "pause":
            reason = reason or "the consumer asked for a pause"
            return Verdict(Act.BACK, TargetEffect.FINE, False, 503, error_code, reason, after, pause=True)
    return _failed(500, error_code, one_line(f"X-Pepperbus-Verdict: {word} is not done, retry, dead or pause"))


# 3. `contract = sdk`: the header Code decides, HTTP's status is ignored.


def sdk(case: Case) -> Verdict | None:
    if case.topic.contract != "sdk":
        return None
    code = _code(case.answer)
    error_code, text = _error(case.answer)
    if code == 200:
        return Verdict(Act.DONE, TargetEffect.FINE, True, 200)
    if code == 404:
        reason = "the consumer does not know " + case.topic.full_name
        return Verdict(Act.UNREGISTERED, TargetEffect.NEUTRAL, False, 404, error_code, text or reason)
    if code is None:
        said = case.answer.headers.get("code")
        lack = "no Code in the answer" if said is None else f"Code: {said} is not a number"
        return _failed(500, error_code, one_line(f"{lack} (HTTP status {case.answer.status}): {text}".rstrip(": ")))
    return _failed(code, error_code, text or f"Code: {code}")


# 3. `contract = status`: HTTP's status decides. The last rule has an opinion on everything.


def succeeded(case: Case) -> Verdict | None:
    """2xx; an empty body is a success too."""
    if 200 <= case.answer.status <= 299:
        return Verdict(Act.DONE, TargetEffect.FINE, True, case.answer.status)
    return None


def dead_on(case: Case) -> Verdict | None:
    """Before the rules that follow, so that a topic can say that its 404 is final."""
    if case.answer.status not in case.topic.dead_on:
        return None
    return Verdict(Act.DEAD, TargetEffect.FINE, True, case.answer.status, *_status_error(case.answer))


def asked_to_wait(case: Case) -> Verdict | None:
    if case.answer.status not in (429, 503):
        return None
    error_code, reason = _status_error(case.answer)
    return Verdict(
        Act.RETRY, TargetEffect.BUSY, False, case.answer.status, error_code, reason, after_s=retry_after(case)
    )


def gone(case: Case) -> Verdict | None:
    if case.answer.status not in (404, 410):
        return None
    return Verdict(Act.BACK, TargetEffect.PROBE, False, case.answer.status, *_status_error(case.answer))


def not_allowed(case: Case) -> Verdict | None:
    if case.answer.status not in (401, 403):
        return None
    return Verdict(Act.BACK, TargetEffect.STOPPED, False, case.answer.status, *_status_error(case.answer))


def anything_else(case: Case) -> Verdict | None:
    """3xx too: redirects are never followed."""
    error_code, reason = _status_error(case.answer)
    if location := case.answer.headers.get("location"):
        reason = one_line(f"HTTP status {case.answer.status}: redirects are not followed (to {location})")
    return _failed(case.answer.status, error_code, reason)


RULES: tuple[Rule, ...] = (
    no_listener,
    forbidden,
    busy,
    unsendable,
    cut,
    timeout,
    script_not_served,
    post_max_size,
    php_fatal,
    failed_jobs,
    verdict_header,
    sdk,
    succeeded,
    dead_on,
    asked_to_wait,
    gone,
    not_allowed,
    anything_else,
)


# What the rules share.


def script_trouble(answer: Answer) -> str | None:
    """php-fpm's own words for a script it does not serve. PHP's messages carry a prefix; these lines do not."""
    if answer.status not in (403, 404) or not answer.stderr or not _SCRIPT.search(answer.stderr):
        return None
    found = _SCRIPT_LINE.search(answer.stderr)
    return one_line(_text(found.group())) if found else None


def php_error(stderr: bytes) -> str | None:
    """The first fatal or parse error on stderr as `PHP Fatal error: text in FILE:LINE`; None when there is none."""
    found = _FATAL.search(stderr) if stderr else None
    if found is None:
        return None
    return _placed(found.group(1).decode(), _text(found.group(2)).split("PHP message:")[0])


def _shown_error(body: bytes) -> str | None:
    """The same displayed in the body, as HTML or plain text (display_errors = 1)."""
    if b"error" not in body:
        return None
    found = _SHOWN_FATAL.search(body)
    return _placed(found.group(1).decode(), _TAGS.sub("", _text(found.group(2)))) if found else None


def _placed(kind: str, text: str) -> str:
    place = _PLACE.match(text)
    if place is None:
        return one_line(f"PHP {kind}: {text.splitlines()[0] if text else ''}")
    message, file, line = place.group(1), place.group(2), place.group(3) or place.group(4)
    where = f" in {file}:{line}"
    return one_line(f"PHP {kind}: {message}", _REASON - len(where)) + where


def retry_after(case: Case) -> float | None:
    """`Retry-After` in seconds, held between 1 s and 1 h; None when absent or unreadable (RFC 9110, 10.2.3)."""
    said = case.answer.headers.get("retry-after", "").strip()
    if not said:
        return None
    if re.fullmatch(r"-?[0-9]+", said):
        seconds = float(said[:20])
    else:
        try:
            when = parsedate_to_datetime(said)
        except (ValueError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        seconds = when.timestamp() - case.request.now_ms / 1000
    return min(max(seconds, 1.0), 3600.0)


def one_line(text: str, limit: int = _REASON) -> str:
    """For people: blanks run together, control characters spelled out, cut at `limit` characters."""
    line = " ".join(text[: limit * 8].split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _text(data: bytes) -> str:
    return data[:65536].decode("utf-8", "replace")


def _code(answer: Answer) -> int | None:
    said = answer.headers.get("code", "").strip()
    return int(said) if re.fullmatch(r"[0-9]{1,9}", said) else None


def _error(answer: Answer) -> tuple[str, str]:
    """The consumer's error code and the start of its body."""
    return one_line(answer.headers.get("error-code", ""), 64), one_line(_text(answer.body[:4096]))


def _status_error(answer: Answer) -> tuple[str, str]:
    error_code, text = _error(answer)
    return error_code, one_line(f"HTTP status {answer.status}: {text}".rstrip(": "))


def _refused(case: Case, effect: TargetEffect, code: int, words: str) -> Verdict:
    return Verdict(Act.BACK, effect, False, code, reason=case.answer.detail or words)


def _failed(code: int, error_code: str, reason: str) -> Verdict:
    return Verdict(Act.RETRY, TargetEffect.FINE, True, code, error_code, reason)
