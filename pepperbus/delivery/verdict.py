"""What an answer means for its jobs and for the target it came from.

Floor 2. Pure functions over values: no socket, no clock, no log. `judge` asks the rules of `RULES` one after the
other; the first that has an opinion decides. A new rule is one function and its line in `RULES`, and its case in
tests/unit/test_verdict.py. The order is the contract's: how far the exchange came, what PHP said on stderr, the
consumer's own verdict header, then the topic's `contract` (`sdk`: headers; `status`: HTTP status).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime

from pepperbus.config.model import Topic
from pepperbus.delivery import verdict_php as php
from pepperbus.delivery.contract import Act, Answer, Request, TargetEffect, Transport, Verdict

DONE = Verdict(Act.DONE, TargetEffect.FINE, True, 200)
NO_CODE = "this script does not answer Code: set contract = status"
ENDED_EARLY = "did it exit before its header('Code: 200')?"
NOT_SEEN = "php-fpm sees no such file, or its user may not read it"
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
    if dedicated and answer.transport is Transport.ANSWERED and not answer.stderr and _plainly_done(answer, topic):
        return DONE
    return judge_by_rules(answer, request, topic, dedicated=dedicated)


def judge_by_rules(answer: Answer, request: Request, topic: Topic, *, dedicated: bool) -> Verdict:
    """`judge` without the short cut."""
    case = Case(answer, request, topic, dedicated)
    for rule in RULES:
        verdict = rule(case)
        if verdict is not None:
            return verdict
    raise AssertionError("the last rule always decides")


def _plainly_done(answer: Answer, topic: Topic) -> bool:
    """Nothing but success: what nearly every job ends with, and the rules would take 20 steps to say."""
    headers = answer.headers
    if "failed-jobs" in headers or "x-pepperbus-verdict" in headers:
        return False
    return headers.get("code") == "200" if topic.contract == "sdk" else answer.status == 200


def judge_ping(answer: Answer, request: Request) -> tuple[bool, str]:
    """Whether the consumer serves `queue/topic` of this ping, and if not, why.

    It must answer `Code: 200` and name the topic in `Consume-Topics` or in the body; notices around it and trailing
    commas do no harm. The reason is `NO_CODE` when the answer has no Code: asking again will not help.
    """
    if answer.transport is not Transport.ANSWERED:
        return False, answer.detail or answer.transport.value
    if trouble := _script_refused(answer) or php.fatal(answer.stderr):
        return False, trouble
    code = answer.headers.get("code")
    if code is None:
        return False, NO_CODE
    if code.strip() != "200":
        return False, php.one_line(f"the ping was answered with Code: {code}: {php.text(answer.body)}")
    wanted = f"{request.queue}/{request.topic}"
    listed = _NAMES.split(answer.headers.get("consume-topics", "")) + _NAMES.split(php.text(answer.body))
    if wanted in listed:
        return True, ""
    names = [name for name in listed if "/" in name]
    return False, php.one_line(f"the script does not list {wanted}, only: {', '.join(names) or 'nothing'}")


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
    reason = "; ".join(filter(None, (case.answer.detail or "cut after sending", php.fatal(case.answer.stderr))))
    return Verdict(Act.RETRY, TargetEffect.STRAINED, True, 502, reason=_may_have_run(php.one_line(reason)))


def _may_have_run(reason: str) -> str:
    """What whoever reads of the failure must know before running the job again."""
    return f"{reason}; may have run"


def timeout(case: Case) -> Verdict | None:
    if case.answer.transport is not Transport.TIMEOUT:
        return None
    reason = case.answer.detail or f"no answer within {case.request.deadline_s:g} s"
    return Verdict(Act.RETRY, TargetEffect.STRAINED, True, 504, reason=_may_have_run(reason), zombie=True)


def of_command(case: Case) -> Verdict | None:
    """Processes of our own: what they print is no answer, and after our timeout they are dead for certain."""
    if case.topic.run != "command":
        return None
    if case.answer.transport is Transport.TIMEOUT:
        reason = case.answer.detail
        return Verdict(Act.RETRY, TargetEffect.STRAINED, True, 504, reason=_may_have_run(reason))
    if case.answer.transport is not Transport.ANSWERED:
        return None
    if case.answer.status == 503:  # the job's own word, not the target's: others go on
        after = case.topic.backoff.wait_s(1)
        return Verdict(Act.BACK, TargetEffect.FINE, False, 503, *_error(case.answer), after)
    return verdict_header(case) or Verdict(Act.DONE, TargetEffect.FINE, True, 200)


def script_not_served(case: Case) -> Verdict | None:
    """php-fpm refused the path before anything ran: no job is to blame, the topic stops until it is served."""
    trouble = _script_refused(case.answer)
    if trouble is None:
        return None
    reason = php.one_line(f"{case.topic.script or case.answer.detail}: {trouble}")
    return Verdict(Act.BACK, TargetEffect.STOPPED, False, case.answer.status, reason=reason)


def post_max_size(case: Case) -> Verdict | None:
    """The script saw an empty $_POST and always will. Before `php_fatal`: what it died of then is only the echo.

    With a raw body php://input is complete in spite of the warning.
    """
    if case.topic.body == "raw":
        return None
    sizes = php.post_refused(case.answer.stderr, b"" if case.dedicated else case.answer.body)
    if sizes is None:
        return None
    sent, limit = sizes
    reason = f"the form has {sent} bytes, post_max_size of the pool is {limit} bytes: raise post_max_size"
    return Verdict(Act.DEAD, TargetEffect.FINE, True, 413, "post_max_size", reason)


def php_fatal(case: Case) -> Verdict | None:
    """A fatal or parse error, whatever the headers say: PHP answers 200 when output was sent before it died."""
    reason = php.fatal(case.answer.stderr)
    if reason is None and not case.dedicated:
        reason = php.shown_fatal(case.answer.body)
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
        reason = php.one_line(f"Failed-Jobs names jobs that were not sent: {', '.join(listed)}")
        return _failed(500, "", reason)
    verdict = verdict_header(case)
    if verdict is None or verdict.act is Act.DONE:
        code = _code(case.answer)
        verdict = _failed(500 if code is None or code == 200 else code, *_error(case.answer))
    return replace(verdict, reason=verdict.reason or "named in Failed-Jobs", failed_ids=failed)


def verdict_header(case: Case) -> Verdict | None:
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
    return _failed(500, error_code, php.one_line(f"X-Pepperbus-Verdict: {word} is not done, retry, dead or pause"))


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
        text = text or (ENDED_EARLY if said is None and case.answer.status == 200 else "")
        return _failed(500, error_code, php.one_line(f"{lack} (HTTP status {case.answer.status}): {text}".rstrip(": ")))
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
    """Refused, so no attempt is spent and only `max_age` ends it; without Retry-After the topic's first wait holds."""
    if case.answer.status not in (429, 503):
        return None
    error_code, reason = _status_error(case.answer)
    after = retry_after(case) or case.topic.backoff.wait_s(1)
    return Verdict(Act.BACK, TargetEffect.BUSY, False, case.answer.status, error_code, reason, after)


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
        reason = php.one_line(f"HTTP status {case.answer.status}: redirects are not followed (to {location})")
    return _failed(case.answer.status, error_code, reason)


RULES: tuple[Rule, ...] = (
    no_listener,
    forbidden,
    busy,
    unsendable,
    of_command,
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


def _script_refused(answer: Answer) -> str | None:
    """Only with php-fpm's own 403 or 404: a script may log these words too."""
    trouble = php.script_refused(answer.stderr) if answer.status in (403, 404) else None
    return f"{trouble}: {NOT_SEEN}" if trouble == "Primary script unknown" else trouble


def _code(answer: Answer) -> int | None:
    said = answer.headers.get("code", "").strip()
    return int(said) if re.fullmatch(r"[0-9]{1,9}", said) else None


def _error(answer: Answer) -> tuple[str, str]:
    """The consumer's error code and the start of its body."""
    return php.one_line(answer.headers.get("error-code", ""), 64), php.one_line(php.text(answer.body[:4096]))


def _status_error(answer: Answer) -> tuple[str, str]:
    error_code, text = _error(answer)
    return error_code, php.one_line(f"HTTP status {answer.status}: {text}".rstrip(": "))


def _refused(case: Case, effect: TargetEffect, code: int, words: str) -> Verdict:
    return Verdict(Act.BACK, effect, False, code, reason=case.answer.detail or words)


def _failed(code: int, error_code: str, reason: str) -> Verdict:
    return Verdict(Act.RETRY, TargetEffect.FINE, True, code, error_code, reason)
