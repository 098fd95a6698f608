"""Reading a topic as a stream (`run = pull`): XREADGROUP and XACK, the way of jobs to their readers and back.

Floor 4. Looking is `stream_looks`, moving what readers have `stream_claims`. Answers have the very shapes of Redis 7 in
both protocols, because libraries take them apart. Knows sessions, the handout and groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import gevent

from pepperbus.errors import StorageError, StorageUnavailable
from pepperbus.gateway import entries
from pepperbus.gateway.circle import Give, ListThem
from pepperbus.gateway.entries import Id
from pepperbus.gateway.kin import Unheard
from pepperbus.gateway.place import Jobs, Place, Waiter
from pepperbus.gateway.popping import CALM_S
from pepperbus.gateway.pops import may_take
from pepperbus.gateway.pushes import NOAUTH
from pepperbus.gateway.route import Target
from pepperbus.gateway.session import Answer, Block, Later, Session, Wait
from pepperbus.gateway.taken import remember_elsewhere
from pepperbus.job import State
from pepperbus.storage.contract import Outcome, Settle, Stored
from pepperbus.wire import resp

COUNT = 10  # entries of one read that names no COUNT: each is leased, so not all there are
MOST = 1000  # of one look
MOST_AT_ONCE = 100  # of one read, whatever its COUNT

BAD_ID = resp.error("ERR Invalid stream ID specified as stream command argument")
NOT_A_NUMBER = resp.error("ERR value is not an integer or out of range")
SYNTAX = resp.error("ERR syntax error")


def arity(args: resp.Command) -> bytes:
    name = b"|".join(args[:2]) if args[0].upper() in (b"XINFO", b"XGROUP") else args[0]
    return resp.error(f"ERR wrong number of arguments for '{name.decode(errors='replace').lower()}' command")


def number(word: bytes) -> int | None:
    """A whole number as clients write it; None for anything else."""
    digits = word.removeprefix(b"-")
    return int(word) if digits.isdigit() and len(digits) < 19 else None


# -- which topic, and who may ----------------------------------------------------------------------------------------


def find(session: Session, key: bytes, group: bytes | None = None) -> Place | bytes:
    """The topic of a stream's key, or why this client gets nothing there. A bare queue's group names its topic."""
    if not session.trusted:
        return resp.error(f"NOAUTH {NOAUTH}")
    target = session.front.routes.target(key)
    topic = _topic(target, group)
    if topic is None:
        if group is None:
            return resp.error(f"NOQUEUE queue or Topic not exist {target.key}")
        text = f"No such key '{target.key}' or consumer group '{_text(group)}' in XREADGROUP with GROUP option"
        return resp.error(f"NOGROUP {text}")
    place = session.front.handout.places.get(f"{target.queue}/{topic}")
    if place is None or not place.topic.pulled:
        why = f"this bus brings the jobs of {target.key} to their consumer; to read them, set run = pull in {topic}"
        return resp.error(f"NOPERM {why}")
    if not may_take(session, place):
        return resp.error(f"NOPERM to read it log in as AUTH {place.name}:password")
    if group is not None and group != topic.encode():
        return resp.error(f"NOGROUP {target.key} has one consumer group, its topic: {topic}")
    return place


def _topic(target: Target, group: bytes | None) -> str | None:
    if target.route is None:
        return None
    topics = target.route.queue.topics
    if target.topic or group is not None:
        name = target.topic or _text(group or b"")
        return name if name in topics else None
    pulled = [name for name, topic in topics.items() if topic.pulled]
    return pulled[0] if len(pulled) == 1 else None


def _text(word: bytes) -> str:
    return word[:128].decode(errors="replace")


def guarded(work: Callable[[], bytes]) -> bytes:
    """What the trouble of a storage, or of another gateway, is called in an answer."""
    try:
        return work()
    except StorageUnavailable:
        return resp.error("TRYAGAIN storage unavailable")
    except StorageError as error:
        return resp.error(f"UNKNOWN {error}")
    except Unheard as error:
        return resp.error(f"{error.reply} {error}")


# -- XREADGROUP --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Wish:
    """What an XREADGROUP asks for."""

    consumer: bytes = b""
    count: int = COUNT
    block_ms: int = -1  # -1: does not block; 0: for ever
    streams: list[tuple[bytes, Place, Id | None]] = field(default_factory=list)  # None: new entries


def xreadgroup(session: Session, args: resp.Command) -> Answer:
    """`XREADGROUP GROUP topic consumer [COUNT n] [BLOCK ms] STREAMS queue/topic … > …`."""
    wish = _wish(session, args)
    if isinstance(wish, bytes):
        if wish.startswith(b"-ERR"):
            return wish
        return Wait(CALM_S, wish)  # a loop around what is not there must not spin
    read = _Read(session, wish)
    if wish.block_ms >= 0 and all(after is None for _, _, after in wish.streams):
        return Block(read.wait, read.stop, read.after)
    return Later(read.now, read.after)


def _wish(session: Session, args: resp.Command) -> _Wish | bytes:
    if len(args) < 7:
        return arity(args)
    words = [word.upper() for word in args]
    if words[1] != b"GROUP":
        return resp.error("ERR Missing GROUP option for XREADGROUP")
    wish, at = _Wish(args[3]), 4
    while at < len(args) and words[at] != b"STREAMS":
        if words[at] == b"NOACK":
            return resp.error("ERR NOACK is not offered: every entry is acknowledged with XACK, or comes back")
        if words[at] not in (b"COUNT", b"BLOCK") or at + 1 >= len(args):
            return SYNTAX
        said = number(args[at + 1])
        if said is None:
            return (
                NOT_A_NUMBER if words[at] == b"COUNT" else resp.error("ERR timeout is not an integer or out of range")
            )
        if words[at] == b"COUNT":
            wish.count = min(max(said, 1), MOST_AT_ONCE)
        elif said < 0:
            return resp.error("ERR timeout is negative")
        else:
            wish.block_ms = said
        at += 2
    named = args[at + 1 :]
    if at >= len(args) or not named:
        return SYNTAX
    if len(named) % 2:
        text = "for each stream key an ID or '$' must be specified."
        return resp.error(f"ERR Unbalanced 'xreadgroup' list of streams: {text}")
    half = len(named) // 2
    return _streams(session, wish, args[2], list(zip(named[:half], named[half:], strict=True)))


def _streams(session: Session, wish: _Wish, group: bytes, named: list[tuple[bytes, bytes]]) -> _Wish | bytes:
    for key, word in named:
        place = find(session, key, group)
        if isinstance(place, bytes):
            return place
        after = None if word == b">" else entries.parse(word)
        if word == b"$":
            return resp.error("ERR The $ ID is meaningless in the context of XREADGROUP: use > for new entries")
        if after is None and word != b">":
            return BAD_ID
        if after is None and place.group.is_full(wish.consumer):
            return resp.error(f"OOM too many entries of {place.name} are not acknowledged: XACK some first")
        wish.streams.append((key, place, after))
    return wish


class _Read:
    """One XREADGROUP."""

    __slots__ = ("_arrive", "_new", "_session", "_stopped", "_waiter", "_wish")

    def __init__(self, session: Session, wish: _Wish) -> None:
        self._session = session
        self._wish = wish
        self._new: list[tuple[Place, Jobs]] = []  # leased, not yet in the client's hands
        self._waiter: Waiter | None = None
        self._stopped = False

    def now(self) -> bytes:
        """What there is. Blocks while the storage is asked."""
        return guarded(self._look)

    def wait(self, arrive: Callable[[bytes], None]) -> bytes | None:
        """What there is; None: `arrive` is called with the reply once there is something, or time is over."""
        handout, wish = self._session.front.handout, self._wish
        self._arrive = arrive
        places = [place for _, place, _ in wish.streams]
        seen = [place.rings for place in places]
        reply = self.now()
        if reply.startswith(b"-"):
            gevent.sleep(CALM_S)
        elif not (self._new or self._stopped):
            self._waiter = Waiter(places, wish.count, wish.block_ms / 1000, self._received)
            handout.waiting.wait(self._waiter, seen)
            return None
        return reply

    def _received(self, place: Place | None, jobs: Jobs) -> None:
        found = []
        if place is not None:
            self._new = [(place, jobs)]
            key = next(key for key, one, _ in self._wish.streams if one is place)
            found = [(key, _encoded(jobs))]
        self._arrive(entries.streams(found, self._session.protocol))

    def _look(self) -> bytes:
        session, wish = self._session, self._wish
        found: list[tuple[bytes, Sequence[bytes]]] = []
        for key, place, after in wish.streams:
            now_ms = session.process.clock.now_ms()
            place.group.consumer(wish.consumer, now_ms)
            if after is not None:
                found.append((key, own(session, place, wish, after)))
                continue
            try:
                jobs = session.front.handout.lease(place, wish.count)
            except Exception:  # StorageError, or a bug of an engine
                if not self._new:
                    raise
                break  # what the streams before gave is the answer, and is in nobody else's hands
            if jobs:
                self._new.append((place, jobs))
                found.append((key, _encoded(jobs)))
        return entries.streams(found, session.protocol)

    def stop(self) -> None:
        """The client has gone while it waited."""
        self._stopped = True
        if self._waiter is not None:
            self._waiter.stop()

    def after(self, written: bool) -> None:
        """The reply is in the socket's hands, or can no longer get there."""
        session = self._session
        handout, clock = session.front.handout, session.process.clock
        for place, jobs in self._new:
            if not written:
                handout.untake(place, jobs)
                continue
            consumer = place.group.consumer(self._wish.consumer, clock.now_ms())
            for taken in handout.take(place, jobs, f"{_text(consumer.name)} at {session.client.decode()}"):
                place.group.deliver(taken, consumer, session, clock.now_ms(), clock.monotonic())


def _encoded(jobs: Jobs) -> list[bytes]:
    return [entries.encode(job, leased.attempt) for leased, job in jobs]


def own(session: Session, place: Place, wish: _Wish, after: Id) -> list[bytes]:
    """What this reader has and did not acknowledge, beyond entry `after`: delivered once more."""
    low = (after[0], after[1] + 1) if after != entries.LOWEST else after
    circle, name = session.front.circle, wish.consumer
    held = circle.held(place, ListThem(place.name, low, entries.HIGHEST, name, 0, wish.count))
    return circle.give(place, Give(place.name, name, [one.job_id for one in held], 0, name, False), session)


# -- XACK --------------------------------------------------------------------------------------------------------------


def xack(session: Session, args: resp.Command) -> Answer:
    """`XACK queue/topic topic id …`: they are done, whoever read them, and through whichever gateway."""
    if len(args) < 4:
        return arity(args)
    place = find(session, args[1], args[2])
    if isinstance(place, bytes):
        return resp.integer(0) if place.startswith(b"-NOGROUP") else place
    parsed = [entries.parse(word) for word in args[3:]]
    if None in parsed:
        return BAD_ID
    jobs = list(dict.fromkeys(entries.job_of(entry) for entry in parsed if entry is not None))
    return Later(lambda: guarded(lambda: _acknowledge(session, place, jobs)))


def _acknowledge(session: Session, place: Place, jobs: Sequence[int]) -> bytes:
    front, process, group = session.front, session.process, place.group
    mine = [pending for job_id in jobs if (pending := group.get(job_id)) is not None]
    known = {pending.taken.leased.job_id for pending in mine}
    others = [found for job_id in jobs if job_id and job_id not in known for found in _read_elsewhere(place, job_id)]
    lying = [(place.lane, one.job_id) for one in others]
    lying += [(one.taken.lane, one.taken.leased.job_id) for one in mine]
    if not lying:
        return resp.integer(0)
    done = group.drop_all(mine)  # while this is being stored their leases must not end
    try:
        count = 0
        for lane in dict.fromkeys(lane for lane, _ in lying):
            settles = [Settle(place.name, job_id, Outcome.DONE) for where, job_id in lying if where is lane]
            count += lane.storage.settle(process.owner, settles)
    except Exception:  # StorageError, or a bug of an engine: either way their leases must end some day
        for pending in mine:
            group.redeliver(pending, pending.consumer, pending.session, pending.delivered_ms, process.clock.monotonic())
        raise
    front.handout.remember_done(done)
    for stored in others:
        remember_elsewhere(process, place, stored, f"acknowledged by {session.client.decode()}")
    if others:
        with suppress(Unheard):  # then it ends there with its lease
            front.circle.forget(place, [one.job_id for one in others])
    return resp.integer(count)


def _read_elsewhere(place: Place, job_id: int) -> list[Stored]:
    """The job, if somebody had it before: through another gateway, or for longer than the lease."""
    found = place.lane.storage.find(job_id, [place.name])
    return [one for one in found if one.state is State.LEASED or one.attempts]
