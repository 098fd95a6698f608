"""All gateways of this node as one consumer group: what each of them has handed out, asked of all and put together.

Floor 4. An entry stays with the gateway that leased it, whoever claims it; the claim is made there, so that of two who claim
one gets it. Other nodes are not asked. Knows groups and the kin; the shapes of answers are `streams`' and `stream_claims`'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from pepperbus.gateway import entries
from pepperbus.gateway.entries import Id
from pepperbus.gateway.group import Absent, Group, Pending
from pepperbus.gateway.handout import Handout
from pepperbus.gateway.place import Place
from pepperbus.gateway.process import Process
from pepperbus.wire import resp


class Held(NamedTuple):
    """An entry that a reader has and did not acknowledge."""

    entry: Id
    job_id: int
    consumer: bytes
    delivered_ms: int
    times: int  # delivered so far


class Reader(NamedTuple):
    """A name that readers gave."""

    name: bytes
    pending: int
    seen_ms: int


class Company(NamedTuple):
    """The readers of a topic; the ends of what they have (None: nothing), and the highest entry ever handed out."""

    readers: list[Reader]
    lowest: Id | None
    highest: Id | None
    last: Id


class _Question(msgspec.Struct, tag=True, array_like=True):
    topic: str


class ListThem(_Question):
    """Entries of a range, lowest first, up to `n`; of one reader or of all, idle for `idle_ms` at least."""

    low: Id
    high: Id
    consumer: bytes | None
    idle_ms: int
    n: int


class WhoReads(_Question):
    """The readers."""


class Give(_Question):
    """Deliver these jobs to reader `to`, if they are still with `owner` (None: anybody) and have been idle for so long."""

    to: bytes
    jobs: list[int]
    idle_ms: int
    owner: bytes | None
    just_id: bool


class Dismiss(_Question):
    """A reader was deleted: what it had goes back into the line."""

    consumer: bytes


class Forget(_Question):
    """These jobs were acknowledged."""

    jobs: list[int]


Question = ListThem | WhoReads | Give | Dismiss | Forget
Given = list[tuple[Id, bytes]]

_encode = msgspec.msgpack.Encoder().encode
_question = msgspec.msgpack.Decoder(Question)
_held = msgspec.msgpack.Decoder(list[Held])
_company = msgspec.msgpack.Decoder(Company)
_given = msgspec.msgpack.Decoder(Given)
_count = msgspec.msgpack.Decoder(int)


class Circle:
    """The groups of all gateways of this node, seen from one of them."""

    def __init__(self, process: Process, handout: Handout, ask: Callable[[bytes], list[bytes]]) -> None:
        """`ask` asks all others; it may block and raises Unheard."""
        self._process = process
        self._handout = handout
        self._ask = ask
        self._elsewhere = Absent()

    # -- asked here: all block and raise Unheard ------------------------------------------------------------------------

    def held(self, place: Place, wish: ListThem) -> list[Held]:
        """What readers have, lowest first."""
        found = self._list(place.group, wish)
        for answer in self._ask(_encode(wish)):
            found += _held.decode(answer)
        return sorted(found)[: wish.n]

    def company(self, place: Place) -> Company:
        mine = self._who(place.group)
        readers = {one.name: one for one in mine.readers}
        lowest, highest, last = mine.lowest, mine.highest, mine.last
        for answer in self._ask(_encode(WhoReads(place.name))):
            more = _company.decode(answer)
            for one in more.readers:
                known = readers.get(one.name, Reader(one.name, 0, 0))
                readers[one.name] = Reader(one.name, known.pending + one.pending, max(known.seen_ms, one.seen_ms))
            lowest = min((one for one in (lowest, more.lowest) if one is not None), default=None)
            highest = max((one for one in (highest, more.highest) if one is not None), default=None)
            last = max(last, more.last)
        return Company([readers[name] for name in sorted(readers)], lowest, highest, last)

    def give(self, place: Place, give: Give, session: Any) -> list[bytes]:
        """The replies for what went to the reader, in the order in which it was asked for."""
        place.group.consumer(give.to, self._process.clock.now_ms())
        found = dict(self._give(place, give, session))
        if len(found) < len(give.jobs):
            for answer in self._ask(_encode(give)):
                found.update(_given.decode(answer))
        return [found[entry] for job_id in give.jobs if (entry := entries.entry_of(job_id)) in found]

    def dismiss(self, place: Place, consumer: bytes) -> int:
        """How many entries that reader had."""
        others = self._ask(_encode(Dismiss(place.name, consumer)))
        return self._dismiss(place, consumer) + sum(map(_count.decode, others))

    def forget(self, place: Place, jobs: Sequence[int]) -> None:
        """The storage knows that they are done, though they were read through another gateway."""
        self._ask(_encode(Forget(place.name, list(jobs))))

    # -- what the others ask ------------------------------------------------------------------------------------------

    def answer(self, asked: bytes) -> bytes:
        question = _question.decode(asked)
        place = self._handout.places.get(question.topic)
        if place is None:
            return b""  # this one has not read the new configuration yet, and has nothing of that topic
        match question:
            case ListThem():
                return _encode(self._list(place.group, question))
            case WhoReads():
                return _encode(self._who(place.group))
            case Give():
                return _encode(self._give(place, question, self._elsewhere))
            case Dismiss():
                return _encode(self._dismiss(place, question.consumer))
            case Forget():
                self._handout.forget(place, question.jobs)
        return _encode(0)

    def _list(self, group: Group, wish: ListThem) -> list[Held]:
        now_ms, found = self._process.clock.now_ms(), list[Held]()
        for one in group.between(wish.low, wish.high, wish.consumer):
            if len(found) >= wish.n:
                break
            if now_ms - one.delivered_ms >= wish.idle_ms:
                found.append(Held(one.entry, one.taken.leased.job_id, one.consumer.name, one.delivered_ms, one.count))
        return found

    def _who(self, group: Group) -> Company:
        readers = [Reader(one.name, one.pending, one.seen_ms) for one in group.consumers.values()]
        low, high = group.ends()
        return Company(readers, low, high, group.last)

    def _give(self, place: Place, give: Give, session: Any) -> Given:
        """Another attempt for each, so that a poisonous one ends as dead."""
        clock, group = self._process.clock, place.group
        now_ms, now = clock.now_ms(), clock.monotonic()
        given: Given = []
        for pending in filter(None, map(group.get, give.jobs)):
            if now_ms - pending.delivered_ms < give.idle_ms or give.owner not in (None, pending.consumer.name):
                continue
            if not give.just_id and not self._counts(place, pending):
                continue
            group.redeliver(pending, group.consumer(give.to, now_ms), session, now_ms, now)
            reply = resp.bulk(entries.spell(pending.entry)) if give.just_id else _encoded(pending)
            given.append((pending.entry, reply))
        return given

    def _counts(self, place: Place, pending: Pending) -> bool:
        """One attempt more; False when there is none left."""
        taken = pending.taken
        if taken.leased.attempt >= place.topic.attempts:
            self._handout.fail(place.group.drop_all([pending]), "read again and never acknowledged")
            return False
        taken.leased = taken.leased._replace(attempt=taken.leased.attempt + 1)
        taken.further += 1
        pending.count += 1
        return True

    def _dismiss(self, place: Place, consumer: bytes) -> int:
        group = place.group
        had = group.between(entries.LOWEST, entries.HIGHEST, consumer)
        self._handout.fail(group.drop_all(had), "its reader was deleted")
        group.consumers.pop(consumer, None)
        return len(had)


def _encoded(pending: Pending) -> bytes:
    return entries.encode(pending.taken.job, pending.taken.leased.attempt)
