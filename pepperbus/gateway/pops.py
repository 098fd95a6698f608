"""Pops that lease (`pop = leased`): RPOP, LPOP, BRPOP, BLPOP and (B)RPOPLPUSH, and what settles the job that a connection has.

A job belongs to the connection that popped it. Its next pop, QUIT, or LREM of that job says that it is done (LREM alone for
what was moved to another list); a connection that merely closes gives it back with an attempt spent, as a killed process closes
its socket too. Knows sessions; the way of a job is `popping`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pepperbus.errors import StorageError, StorageUnavailable
from pepperbus.gateway import reads
from pepperbus.gateway.place import Jobs, Place
from pepperbus.gateway.popping import CALM_S, Pop, let_go
from pepperbus.gateway.pushes import NOAUTH
from pepperbus.gateway.route import Target
from pepperbus.gateway.session import Answer, Block, Later, Session, Wait
from pepperbus.ids import parse_id
from pepperbus.job import Job, job_json
from pepperbus.storage.contract import Leased
from pepperbus.wire import resp

MOST = 100  # jobs of one RPOP key count
MOST_KEPT, MOST_BYTES = 1000, 64 << 20  # what one connection may have by (B)RPOPLPUSH


def rpop(session: Session, args: resp.Command) -> Answer:
    """`RPOP queue/topic`: leased, or for good where the topic says `pop = once`."""
    if len(args) >= 2 and (place := leased_place(session, session.front.routes.target(args[1]))) is not None:
        return _pop_now(session, args, place)
    answer = reads.rpop(session, args)
    if session.holding and isinstance(answer, Later):
        return Later(lambda: _done_before(session) or answer.run(), answer.after)
    return answer


def _done_before(session: Session) -> bytes:
    """The topic was `pop = leased` when this connection popped from it last: its next pop says what it always said."""
    had = [one for one in session.holding if not one.kept]
    if not had:
        return b""
    try:
        with let_go(session, had):
            had[0].lane.storage.settle(session.process.owner, [one.done() for one in had])
    except StorageUnavailable:
        return resp.error("TRYAGAIN storage unavailable")
    except StorageError as error:
        return resp.error(f"UNKNOWN {error}")
    return b""


def lpop(session: Session, args: resp.Command) -> Answer:
    """The same as RPOP: which job is next in line is not the reader's to choose."""
    found = _place(session, args[1]) if len(args) >= 2 else _arity(args)
    return found if isinstance(found, bytes) else _pop_now(session, args, found)


def _pop_now(session: Session, args: resp.Command, place: Place) -> Answer:
    target = session.front.routes.target(args[1])
    if not may_take(session, place):
        return resp.error(f"NOAUTH {NOAUTH}")
    count = _count(args)
    if isinstance(count, bytes):
        return count
    pop = Pop(session, [(args[1], place)], max(count, 1), lambda key, jobs: _reply(session, target, jobs, count))
    return Later(pop.now, pop.after)


def _count(args: resp.Command) -> int | bytes:
    """The count of `RPOP key count`; 0 when none was said."""
    if len(args) == 2:
        return 0
    if len(args) > 3:
        return _arity(args)
    word = args[2]  # bytes: of text, also "²" is a digit; and int() refuses thousands of them
    number = int(word[:18]) if word.isdigit() else 0
    return min(number, MOST) or resp.error("ERR value is out of range")


def brpop(session: Session, args: resp.Command) -> Answer:
    """`BRPOP key [key …] timeout`: the next job of the first topic that has one; timeout in seconds, 0 = for ever."""
    if len(args) < 3:
        return Wait(CALM_S, _arity(args))
    seconds = _seconds(args[-1])
    if isinstance(seconds, bytes):
        return Wait(CALM_S, seconds)
    places: list[tuple[bytes, Place]] = []
    for key in args[1:-1]:
        found = _place(session, key)
        if isinstance(found, bytes):
            return Wait(CALM_S, found)
        places.append((key, found))

    def reply(key: bytes, jobs: Jobs) -> bytes:
        if not jobs:
            return nothing(session)
        return resp.array((resp.bulk(key), _one(session.front.routes.target(key), jobs[0])))

    pop = Pop(session, places, 1, reply, seconds)
    return Block(pop.wait, pop.stop, pop.after)


def rpoplpush(session: Session, args: resp.Command) -> Answer:
    """RPOPLPUSH and LMOVE: leased until LREM of the second list, whatever its name; the list itself is not needed."""
    if len(args) != (5 if _moves(args) else 3):
        return _arity(args)
    found = _room(session, args[1])
    if isinstance(found, bytes):
        return Wait(CALM_S, found)
    pop = Pop(session, [(args[1], found)], 1, _bare(session), kept=True)
    return Later(pop.now, pop.after)


def brpoplpush(session: Session, args: resp.Command) -> Answer:
    """BRPOPLPUSH and BLMOVE: the same, waiting for a job."""
    seconds = _seconds(args[-1]) if len(args) == (6 if _moves(args) else 4) else _arity(args)
    if isinstance(seconds, bytes):
        return Wait(CALM_S, seconds)
    found = _room(session, args[1])
    if isinstance(found, bytes):
        return Wait(CALM_S, found)
    pop = Pop(session, [(args[1], found)], 1, _bare(session), seconds, kept=True)
    return Block(pop.wait, pop.stop, pop.after)


def _room(session: Session, key: bytes) -> Place | bytes:
    """The topic that `key` means, unless this connection has too much that it did not say to be done."""
    kept = session.holding
    if len(kept) >= MOST_KEPT or sum(len(one.job.content) for one in kept) >= MOST_BYTES:
        return resp.error("OOM this connection has too many jobs that are not done: LREM some first")
    return _place(session, key)


def _moves(args: resp.Command) -> bool:
    return args[0].upper().endswith(b"MOVE")


def _bare(session: Session) -> Callable[[bytes, Jobs], bytes]:
    """The content alone: who moves between lists compares it with LREM."""
    return lambda key, jobs: resp.bulk(jobs[0][1].content) if jobs else resp.null(session.protocol)


def _seconds(word: bytes) -> float | bytes:
    try:
        seconds = float(word)
    except ValueError:
        return resp.error("ERR timeout is not a float or out of range")
    if not math.isfinite(seconds) or seconds > 1e9:
        return resp.error("ERR timeout is out of range")
    return resp.error("ERR timeout is negative") if seconds < 0 else seconds


def nothing(session: Session) -> bytes:
    """What Redis says when a blocking command got nothing."""
    return resp.null(3) if session.protocol == 3 else b"*-1\r\n"


def _arity(args: resp.Command) -> bytes:
    return resp.error(f"ERR wrong number of arguments for '{args[0].decode(errors='replace').lower()}' command")


# -- which topic, and who may ----------------------------------------------------------------------------------------


def leased_place(session: Session, target: Target) -> Place | None:
    """The topic that a key means to a pop: `queue/topic`, or the bare name of a queue with one such topic."""
    if target.route is None:
        return None
    topics = target.route.queue.topics
    names = [target.topic] if target.topic else [t.name for t in topics.values() if t.pop == "leased"]
    if len(names) != 1 or names[0] not in topics or topics[names[0]].pop != "leased":
        return None
    return session.front.handout.places.get(f"{target.queue}/{names[0]}")


def may_take(session: Session, place: Place) -> bool:
    topic, login = place.topic, session.login
    if session.local and session.front.routes.queues[topic.queue].queue.open:
        return True
    return login is not None and login.may_pop(topic.queue, topic.name)


def _place(session: Session, key: bytes) -> Place | bytes:
    """The topic that `key` means, or why this client gets nothing there."""
    target = session.front.routes.target(key)
    if session.login is None and not session.trusted:
        return resp.error(f"NOAUTH {NOAUTH}")
    place = leased_place(session, target)
    if place is None:
        return resp.error(_why_not(target))
    if not may_take(session, place):
        return resp.error(f"NOPERM to take jobs log in as AUTH {place.name}:password")
    return place


def _why_not(target: Target) -> str:
    if target.route is None or (target.topic and target.topic not in target.route.queue.topics):
        return f"NOQUEUE queue or Topic not exist {target.key}"
    topics = target.route.queue.topics
    leased = [name for name, topic in topics.items() if topic.pop == "leased"]
    if len(leased) > 1 and not target.topic:
        return f"ERR {target.key} has several topics to pop from: name one, such as {target.queue}/{leased[0]}"
    name = f"topic {target.topic}" if target.topic else "its topic"
    pulled = all(target.route.queue.topics[topic].pulled for topic in ([target.topic] if target.topic else topics))
    way = "are read as a stream" if pulled else "are brought to their consumer"
    return f"NOPERM the jobs of {target.key} {way}; to pop them, set pop = leased in {name}"


def _reply(session: Session, target: Target, jobs: Jobs, count: int) -> bytes:
    """RPOP's answer: one value, or with a count (> 0) an array of them."""
    if not jobs:
        return nothing(session) if count and target.plain else resp.null(session.protocol)
    if not target.plain:
        return _json(jobs)
    return resp.array([resp.bulk(job.content) for _, job in jobs]) if count else resp.bulk(jobs[0][1].content)


def _one(target: Target, one: tuple[Leased, Job]) -> bytes:
    return resp.bulk(one[1].content) if target.plain else _json([one])


def _json(jobs: Jobs) -> bytes:
    return resp.bulk(b'{"jobs":[%b]}' % b",".join([job_json(job, leased.attempt) for leased, job in jobs]))


# -- saying that it is done -------------------------------------------------------------------------------------------


def lrem(session: Session, args: resp.Command) -> Answer:
    """`LREM key n <job id or content>` of a job that this connection has says that it is done; else as ever."""
    if session.holding and len(args) == 4 and (mine := _mine(session, args[1], args[3])):
        return Later(lambda: _done(session, mine))
    return reads.lrem(session, args)


def _mine(session: Session, key: bytes, word: bytes) -> list[int]:
    """The indexes in `holding` that are meant: of the topic that is named, or of what was moved to a list of that name."""
    target = session.front.routes.target(key)
    place = leased_place(session, target)
    try:
        number = parse_id(word.decode())
    except ValueError:
        number = 0
    return [
        index
        for index, one in enumerate(session.holding)
        if (one.place is place or (one.kept and target.route is None))
        and (one.leased.job_id == number or one.job.content == word)
    ][:1]


def _done(session: Session, indexes: Sequence[int]) -> bytes:
    one = session.holding[indexes[0]]
    try:
        with let_go(session, [one]):
            one.lane.storage.settle(session.process.owner, [one.done()])
    except StorageUnavailable:
        return resp.error("TRYAGAIN storage unavailable")
    except StorageError as error:
        return resp.error(f"UNKNOWN {error}")
    return resp.integer(1)
