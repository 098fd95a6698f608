"""Pops that lease (`pop = leased`): RPOP, LPOP, BRPOP, BLPOP, and what settles the job that a connection has.

A job belongs to the connection that popped it. Its next pop, QUIT, or LREM of that job says that it is done; a connection that
merely closes gives it back with an attempt spent, as a killed process closes its socket too. Knows sessions and the handout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import gevent

from pepperbus.errors import StorageError, StorageUnavailable
from pepperbus.gateway import reads
from pepperbus.gateway.handout import Place
from pepperbus.gateway.pushes import NOAUTH
from pepperbus.gateway.routes import Target
from pepperbus.gateway.session import Answer, Block, Later, Session, Wait
from pepperbus.gateway.taken import Taken
from pepperbus.gateway.waiting import Waiter
from pepperbus.ids import parse_id
from pepperbus.job import Job, job_json
from pepperbus.storage.contract import Leased
from pepperbus.wire import resp

CALM_S = 1.0  # before a blocking command is refused, so that a loop around it does not spin
MOST = 100  # jobs of one RPOP key count

Jobs = list[tuple[Leased, Job]]


def rpop(session: Session, args: resp.Command) -> Answer:
    """`RPOP queue/topic`: leased, or for good where the topic says `pop = once`."""
    if len(args) >= 2 and (place := leased_place(session, session.front.routes.target(args[1]))) is not None:
        return _pop_now(session, args, place)
    return reads.rpop(session, args)


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
    pop = _Pop(session, [(args[1], place)], max(count, 1), lambda key, jobs: _reply(session, target, jobs, count))
    return Later(pop.now, pop.after)


def _count(args: resp.Command) -> int | bytes:
    """The count of `RPOP key count`; 0 when none was said."""
    if len(args) == 2:
        return 0
    if len(args) > 3:
        return _arity(args)
    text = args[2].decode(errors="replace")
    return min(int(text), MOST) if text.isdigit() and text != "0" else resp.error("ERR value is out of range")


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

    pop = _Pop(session, places, 1, reply, seconds)
    return Block(pop.wait, pop.stop, pop.after)


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
    leased = [name for name, topic in target.route.queue.topics.items() if topic.pop == "leased"]
    if len(leased) > 1 and not target.topic:
        return f"ERR {target.key} has several topics to pop from: name one, such as {target.queue}/{leased[0]}"
    name = f"topic {target.topic}" if target.topic else "its topic"
    return f"NOPERM this bus brings the jobs of {target.key} to their consumer; to pop them, set pop = leased in {name}"


# -- the pop itself ------------------------------------------------------------------------------------------------


class _Pop:
    """One pop of one connection: what it had is settled, what comes next is leased."""

    __slots__ = ("_arrive", "_jobs", "_n", "_place", "_places", "_reply", "_seconds", "_session", "_stopped", "_waiter")

    def __init__(
        self,
        session: Session,
        places: list[tuple[bytes, Place]],
        n: int,
        reply: Callable[[bytes, Jobs], bytes],
        seconds: float = 0.0,
    ) -> None:
        """`reply` makes the answer from the key and the jobs that came from it."""
        self._session = session
        self._places = places
        self._n = n
        self._reply = reply
        self._seconds = seconds
        self._place: Place | None = None
        self._jobs: Jobs = []
        self._waiter: Waiter | None = None
        self._stopped = False

    def now(self) -> bytes:
        """For RPOP: what there is. Blocks while the storage is asked."""
        try:
            found = self._look()
        except StorageUnavailable:
            return resp.error("TRYAGAIN storage unavailable")
        except StorageError as error:
            return resp.error(f"UNKNOWN {error}")
        return found or self._reply(self._places[0][0], [])

    def wait(self, arrive: Callable[[bytes], None]) -> bytes | None:
        """For BRPOP: what there is; None: `arrive` is called with the reply once there is something, or time is over."""
        handout = self._session.front.handout
        self._arrive = arrive
        seen = [place.rings for _, place in self._places]
        reply = self.now()
        if reply.startswith(b"-"):
            gevent.sleep(CALM_S)
        elif not (self._jobs or self._stopped):
            self._waiter = Waiter([place for _, place in self._places], self._n, self._seconds, self._received)
            handout.waiting.wait(self._waiter, seen)
            return None
        return reply

    def _received(self, place: Place | None, jobs: Jobs) -> None:
        self._place, self._jobs = place, jobs
        self._arrive(self._answer(place, jobs) if place is not None else self._reply(b"", []))

    def _look(self) -> bytes:
        """Settle what the connection has, then take what there is; b"" when there is nothing."""
        handout = self._session.front.handout
        first = self._places[0][1]
        jobs = self._settle_and_take(first) if self._session.holding else handout.lease(first, self._n)
        if jobs:
            return self._got(first, jobs)
        for _, place in self._places[1:]:
            if jobs := handout.lease(place, self._n):
                return self._got(place, jobs)
        return b""

    def _settle_and_take(self, place: Place) -> Jobs:
        """What it had is done; in the same trip the next, where both lie in one storage."""
        session = self._session
        handout = session.front.handout
        with let_go(session, session.holding) as had:
            ends = [one.done() for one in had]
            if had[0].place.lane is place.lane:
                jobs = handout.settle_and_lease(place, self._n, ends)
            else:
                had[0].place.lane.storage.settle(session.front.owner, ends)
                jobs = None
        return handout.lease(place, self._n) if jobs is None else jobs

    def _got(self, place: Place, jobs: Jobs) -> bytes:
        self._place, self._jobs = place, jobs
        return self._answer(place, jobs)

    def _answer(self, place: Place, jobs: Jobs) -> bytes:
        return self._reply(next(key for key, one in self._places if one is place), jobs)

    def stop(self) -> None:
        """The client has gone while it waited."""
        self._stopped = True
        if self._waiter is not None:
            self._waiter.stop()

    def after(self, written: bool) -> None:
        """The reply is in the socket's hands, or can no longer get there."""
        if self._place is None or not self._jobs:
            return
        session = self._session
        handout = session.front.handout
        if written:
            session.holding = handout.take(self._place, self._jobs, session.client.decode())
        else:
            handout.untake(self._place, self._jobs)


@contextmanager
def let_go(session: Session, had: list[Taken]) -> Iterator[list[Taken]]:
    """Around storing that `had` is done: it is out of the connection's hands, and back in them when that fails."""
    session.holding = [one for one in session.holding if one not in had]
    try:
        yield had
    except StorageError:
        session.holding += had
        if session.left:
            session.gone()
        raise
    session.front.handout.remember_done(had)


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
    """The indexes in `holding` that are meant."""
    place = leased_place(session, session.front.routes.target(key))
    try:
        number = parse_id(word.decode())
    except ValueError:
        number = 0
    return [
        index
        for index, one in enumerate(session.holding)
        if one.place is place and (one.leased.job_id == number or one.job.content == word)
    ][:1]


def _done(session: Session, indexes: Sequence[int]) -> bytes:
    one = session.holding[indexes[0]]
    try:
        with let_go(session, [one]):
            one.place.lane.storage.settle(session.front.owner, [one.done()])
    except StorageUnavailable:
        return resp.error("TRYAGAIN storage unavailable")
    except StorageError as error:
        return resp.error(f"UNKNOWN {error}")
    return resp.integer(1)
