"""The readers of one topic (`run = pull`) and what each has read and not acknowledged: a stream's consumer group.

Floor 4. Plain memory of this gateway: what other gateways handed out they know, and `circle` asks them. Knows no RESP and no
storage. Times: `now_ms` is wall time, `now` monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from pepperbus.gateway.entries import Id, entry_of
from pepperbus.gateway.taken import Taken, forget

MOST_PENDING = 10_000  # entries that one reader may have, and
MOST_BYTES = 64 << 20  # what all entries of a group may take: beyond, they are to be acknowledged first
MOST_CONSUMERS = 10_000  # remembered names; one that has nothing and came longest ago is forgotten first


class Hand(Protocol):
    """Whose connection an entry went to, and how many it has: while it has any it may stay when the gateway leaves."""

    unacked: int


class Absent:
    """Readers whose connections are other gateways'."""

    __slots__ = ("unacked",)

    def __init__(self) -> None:
        self.unacked = 0


class Consumer:
    """One reader, by the name it gave."""

    __slots__ = ("name", "pending", "seen_ms")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.pending = 0
        self.seen_ms = 0


class Pending:
    """One entry that was read and not acknowledged."""

    __slots__ = ("consumer", "count", "delivered_ms", "entry", "expires", "session", "taken")

    def __init__(self, taken: Taken, consumer: Consumer, session: Hand) -> None:
        self.taken = taken
        self.entry: Id = entry_of(taken.leased.job_id)
        self.consumer = consumer
        self.session = session
        self.count = taken.leased.attempt
        self.delivered_ms = 0
        self.expires = 0.0


class Group:
    """One topic's readers. A topic is a group by itself, as every topic gets every job."""

    def __init__(self) -> None:
        self.consumers: dict[bytes, Consumer] = {}
        self.last: Id = (0, 0)  # the highest entry handed out here
        self._bytes = 0
        self._pending: dict[int, Pending] = {}  # job id -> entry, in the order in which they expire

    def __len__(self) -> int:
        return len(self._pending)

    def consumer(self, name: bytes, now_ms: int) -> Consumer:
        """The reader of that name, who has shown that it lives."""
        found = self.consumers.get(name)
        if found is None:
            if len(self.consumers) >= MOST_CONSUMERS:
                self._forget_one()
            found = self.consumers[name] = Consumer(name)
        found.seen_ms = now_ms
        return found

    def _forget_one(self) -> None:
        idle = [one for one in self.consumers.values() if not one.pending]
        if idle:
            del self.consumers[min(idle, key=lambda one: one.seen_ms).name]

    def deliver(self, taken: Taken, consumer: Consumer, session: Hand, now_ms: int, now: float) -> None:
        """One that is here already was taken from this node for lost and came back: whoever had it has it no more."""
        if (before := self.drop(taken.leased.job_id)) is not None:
            forget(before.taken)
        pending = Pending(taken, consumer, session)
        self.last = max(self.last, pending.entry)
        self._put(pending, consumer, session, now_ms, now)

    def redeliver(self, pending: Pending, consumer: Consumer, session: Hand, now_ms: int, now: float) -> None:
        """Another reader has it now, or the same one once more: its time begins anew."""
        self.drop(pending.taken.leased.job_id)
        self._put(pending, consumer, session, now_ms, now)

    def _put(self, pending: Pending, consumer: Consumer, session: Hand, now_ms: int, now: float) -> None:
        pending.consumer, pending.session = consumer, session
        pending.delivered_ms = now_ms
        pending.expires = now + pending.taken.place.topic.lease
        consumer.pending += 1
        self._bytes += len(pending.taken.job.content)
        session.unacked += 1
        self._pending[pending.taken.leased.job_id] = pending

    def is_full(self, name: bytes) -> bool:
        """Whether this reader has so much that it gets nothing more."""
        reader = self.consumers.get(name)
        return self._bytes >= MOST_BYTES or (reader is not None and reader.pending >= MOST_PENDING)

    def get(self, job_id: int) -> Pending | None:
        return self._pending.get(job_id)

    def drop(self, job_id: int) -> Pending | None:
        """Acknowledged, or taken away."""
        pending = self._pending.pop(job_id, None)
        if pending is not None:
            pending.consumer.pending -= 1
            self._bytes -= len(pending.taken.job.content)
            pending.session.unacked -= 1
        return pending

    def drop_all(self, pending: Iterable[Pending]) -> list[Taken]:
        return [one.taken for one in pending if self.drop(one.taken.leased.job_id) is not None]

    def between(self, low: Id, high: Id, consumer: bytes | None = None) -> list[Pending]:
        """Entries of the range, lowest first; of one reader or of all."""
        found = [
            one for one in self._pending.values() if low <= one.entry <= high and consumer in (None, one.consumer.name)
        ]
        return sorted(found, key=lambda one: one.entry)

    def ends(self) -> tuple[Id | None, Id | None]:
        """The lowest and the highest entry that somebody has."""
        having = [one.entry for one in self._pending.values()]
        return (min(having), max(having)) if having else (None, None)

    def expired(self, now: float) -> list[Pending]:
        return list(self._overdue(now))

    def _overdue(self, now: float) -> Iterator[Pending]:
        for one in self._pending.values():  # a reload may have made the lease longer or shorter: good enough
            if one.expires > now:
                return
            yield one
