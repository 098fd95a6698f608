"""Commands that bring jobs in: LPUSH, RPUSH, ZADD, and MULTI … EXEC around them.

Knows sessions and the group commit. Each command answers exactly once, in the words its key asks for: the JSON bulk of
the Go system (`orders/anything`), or Redis' own (`orders`), see `route.Target`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from pepperbus.gateway import unique
from pepperbus.gateway.commit import BACKLOG
from pepperbus.gateway.replies import job_list, json_error, json_failure, plain_failure
from pepperbus.gateway.route import QueueRoute, Target
from pepperbus.gateway.session import Answer, Session, Transaction
from pepperbus.gateway.submission import Submission
from pepperbus.job import stored_form
from pepperbus.storage.contract import Push
from pepperbus.wire import resp

NOAUTH = "Authentication required."
_YEAR_2000, _YEAR_5138 = 946_684_800, 100_000_000_000


def lpush(session: Session, args: resp.Command) -> Answer:
    return _push(session, args, args[2:], (), False)


def rpush(session: Session, args: resp.Command) -> Answer:
    """Ahead of all waiting jobs, unless the queue says `rpush = normal`."""
    return _push(session, args, args[2:], (), True)


def zadd(session: Session, args: resp.Command) -> Answer:
    """`ZADD queue t value [t value …]`: not before unix time t, or t = `+60`, in 60 seconds."""
    if len(args) > 2 and args[2].upper() in (b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"):
        return _refused(session, args, "ERR", "ZADD takes no options here: two equal values are two jobs")
    if len(args) % 2:
        return _refused(session, args, "ERR", "ZADD wants times and values in pairs")
    now_ms = session.process.clock.now_ms()
    times = []
    for word in args[2::2]:
        due_ms = _due_ms(word, now_ms)
        if isinstance(due_ms, str):
            return _refused(session, args, "ERR", due_ms)
        times.append(due_ms)
    return _push(session, args, args[3::2], times, False)


def _due_ms(word: bytes, now_ms: int) -> int | str:
    """When a job is due, 0 for at once; a text says what is wrong with the time."""
    text = word.decode(errors="replace")
    try:
        number = float(text)
    except ValueError:
        return f"{text!r} is not a time: unix seconds, or +60 for in 60 seconds"
    if not math.isfinite(number):
        return f"{text!r} is not a time: unix seconds, or +60 for in 60 seconds"
    if text.startswith("+"):
        return now_ms + int(number * 1000) if 0 < number < _YEAR_5138 else 0
    if number >= _YEAR_5138:
        return f"{text} looks like milliseconds: the time is in unix seconds, or +60 for in 60 seconds"
    if number < _YEAR_2000:
        return f"{text} is before the year 2000: the time is in unix seconds, or +{text} for in {text} seconds"
    due_ms = int(number * 1000)
    return due_ms if due_ms > now_ms else 0


def _push(
    session: Session, args: resp.Command, values: list[bytes], times: list[int] | tuple[()], rpush: bool
) -> Answer:
    routes = session.front.routes
    if len(args) < 2:
        return _refused(session, args, "ERR", "Invalid Args")
    target = routes.target(args[1])
    route = target.route
    if route is None or route is not session.granted or target.old_error:
        refusal = _check(session, args, target)
        if refusal is not None:
            return refusal
        assert route is not None
    if not values:
        return _refused(session, args, "ERR", "empty jobs", target)
    if trouble := route.trouble:
        return _unavailable(session, target, trouble)
    ahead = rpush and route.queue.rpush == "front"
    if (
        len(values) == 1
        and not (times or ahead)
        and session.transaction is None
        and route.simple
        and not session.traceparent
    ):
        return routes.express(args[0], args[1], target).bring(session, values, len(values[0]))
    return _push_any(session, target, route, values, times, ahead)


def _push_any(
    session: Session, target: Target, route: QueueRoute, values: list[bytes], times: list[int] | tuple[()], ahead: bool
) -> Answer:
    """Several values, several storages, for later, ahead of others, limited or in MULTI."""
    next_id, now_ms, client = session.process.ids.next, session.process.turn_ms, session.client
    trace = _trace(session)
    numbers = [next_id() for _ in values]
    bodies = [stored_form(n, trace, value, now_ms, client) for n, value in zip(numbers, values, strict=True)]
    dues = times or [0] * len(values)
    success = resp.integer(len(values)) if target.plain else job_list(numbers, trace)
    size = sum(map(len, bodies))
    topics = route.lanes[0][1] if len(route.lanes) == 1 else ()  # several storages: `_submit` fills them in
    jobs = [Push(n, body, topics, due, ahead) for n, body, due in zip(numbers, bodies, dues, strict=True)]
    if session.transaction is not None:
        return _queue(session.transaction, route, jobs, success, size, None if target.plain else (numbers, trace))
    failure = plain_failure if target.plain else json_failure(trace)
    if route.unique:
        phrase = lambda holder: success if target.plain else job_list([holder(n) for n in numbers], trace)  # noqa: E731
        return unique.submit(session.waiter, [(route, jobs)], phrase, failure, session.arrived, size)
    submission = Submission(((route, len(jobs)),), session.waiter, success, failure, session.arrived, size)
    if topics:
        route.lanes[0][0].add(submission, jobs)
    else:
        _submit(submission, [(route, jobs)])
    return submission


def _submit(submission: Submission, pushes: list[tuple[QueueRoute, list[Push]]]) -> None:
    """Give each storage its share: one list for all queues that lie there."""
    shares: dict[int, tuple] = {}
    for route, jobs in pushes:
        for lane, topics in route.lanes:
            share = shares.setdefault(id(lane), (lane, []))[1]
            share.extend([job._replace(topics=topics) for job in jobs])
    submission.lacking = len(shares)
    for lane, share in shares.values():
        lane.add(submission, share)


# -- refusals ----------------------------------------------------------------------------------------------


def _trace(session: Session) -> bytes:
    return session.traceparent or b"%d%b" % (session.process.ids.next(), session.trace_tail)


def _check(session: Session, args: resp.Command, target: Target) -> bytes | None:
    """Why this client may not push there now, None when it may. Order as in the Go system: key, login, queue."""
    if target.old_error:
        session.process.log.warning("parse_job", f"ParseJob fail: invalid job meta info: {target.key}", key=target.key)
        return _refused(session, args, "ERR", f"ParseJob fail: invalid job meta info: {target.key}")
    if not session.may_push(target):
        if target.plain and session.login is not None:
            if target.route is None:
                return _refused(session, args, "NOQUEUE", f"queue or Topic not exist {target.queue}", target)
            return _refused(session, args, "NOPERM", f"this login may not push to {target.queue}", target)
        return _refused(session, args, "NOAUTH", NOAUTH, target)
    if target.route is None or not target.route.queue.topics:
        return _refused(session, args, "NOQUEUE", f"queue or Topic not exist {target.queue}", target)
    session.granted = target.route
    return None


def _refused(session: Session, args: resp.Command, code: str, text: str, target: Target | None = None) -> bytes:
    """A push that never began: counted, and a MULTI around it will not run."""
    if target is not None and target.route is not None:
        target.route.count_failed(1, unknown=False)
    if session.transaction is not None:
        session.transaction.refuse()
        return resp.error(f"{code} {text}")
    if target is None and len(args) > 1:
        found = session.front.routes.target(args[1])
        if found.plain:
            return resp.error(f"{code} {text}")
        if not text.startswith(("Invalid Args", "ParseJob")):
            target = found
    if target is not None and target.plain:
        return resp.error(f"{code} {text}")
    json_text = f"{code} {text}" if code == "NOAUTH" else text
    return json_error(_trace(session) if target is not None else b"", json_text)


def _unavailable(session: Session, target: Target, text: str) -> bytes:
    assert target.route is not None
    target.route.count_failed(1, unknown=False)
    if session.transaction is not None:
        session.transaction.refuse()
        return resp.error(f"TRYAGAIN {text}")
    return resp.error(f"TRYAGAIN {text}") if target.plain else json_error(_trace(session), text)


# -- MULTI ---------------------------------------------------------------------------------------------------


def multi(session: Session, args: resp.Command) -> Answer:
    if session.transaction is not None:
        session.transaction.refuse()
        return resp.error("ERR MULTI calls can not be nested")
    session.transaction = Transaction()
    return resp.OK


def discard(session: Session, args: resp.Command) -> Answer:
    if session.transaction is None:
        return resp.error("ERR DISCARD without MULTI")
    session.transaction = None
    return resp.OK


def exec_(session: Session, args: resp.Command) -> Answer:
    """All pushes since MULTI as one submission; one error stands for all of them, since none happened."""
    transaction, session.transaction = session.transaction, None
    if transaction is None:
        return resp.error("ERR EXEC without MULTI")
    if transaction.refused:
        return resp.error("EXECABORT Transaction discarded because of previous errors.")
    if not transaction.pushes:
        return resp.array(())
    pushes = []
    for meant, jobs in transaction.pushes:
        route = session.front.routes.queues.get(meant.name)
        if route is not meant and (refusal := _no_longer(meant.name, route)):
            return refusal
        assert route is not None
        pushes.append((route, jobs))
    if any(route.unique for route, _ in pushes):
        phrase = partial(_phrase, transaction)
        waiter, size = session.waiter, transaction.size
        return unique.submit(waiter, pushes, phrase, plain_failure, session.arrived, size)
    routes = [(route, len(jobs)) for route, jobs in pushes]
    success = resp.array(transaction.replies)
    submission = Submission(routes, session.waiter, success, plain_failure, session.arrived, transaction.size)
    _submit(submission, pushes)
    return submission


def _no_longer(name: str, route: QueueRoute | None) -> bytes:
    """Why a push that was taken in before a new configuration must not run under it; b"" when it may."""
    if route is None:
        return resp.error(f"EXECABORT queue or Topic not exist {name}")
    return resp.error(f"EXECABORT {route.trouble}") if route.trouble else b""


def _phrase(transaction: Transaction, holder: Callable[[int], int]) -> bytes:
    """EXEC's reply when some of its jobs were there already."""
    named = zip(transaction.replies, transaction.named, strict=True)
    return resp.array([job_list([holder(n) for n in one[0]], one[1]) if one else reply for reply, one in named])


def _queue(
    transaction: Transaction,
    route: QueueRoute,
    jobs: list[Push],
    success: bytes,
    size: int,
    named: tuple[list[int], bytes] | None,
) -> bytes:
    """Keep a push for EXEC; nothing is kept of what will not run, nor more than could be stored at once.

    `named`: the ids and the trace that the reply tells, None when it tells none.
    """
    if transaction.refused:
        return resp.QUEUED
    transaction.size += size + 200 * len(jobs)
    if transaction.size > BACKLOG:
        transaction.refuse()
        return resp.error(f"OOM more than {BACKLOG >> 20} MiB between MULTI and EXEC")
    transaction.pushes.append((route, jobs))
    transaction.replies.append(success)
    transaction.named.append(named)
    return resp.QUEUED
