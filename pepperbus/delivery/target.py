"""When may a topic's consumer be given work: places, window, breaker, registration. Nothing here knows a wire or a storage.

Floor 2. A target is closed for one of the reasons in `Closed`; while it is closed nothing is claimed, so jobs stay in the
storage, unleased and without attempts spent. State lives in the shared words of two `Slots`: what concerns the address
(down, busy, strained) in the pool's, what concerns one topic (stopped, unregistered) in the topic's, so that all workers
of the node act as one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import IntEnum
from zlib import crc32

from pepperbus.delivery.contract import TargetEffect
from pepperbus.delivery.slots import (
    BAD,
    CALM,
    CLOSED_KIND,
    CLOSED_UNTIL,
    CONSUMER,
    OK,
    REGISTERED,
    SPAN_START,
    TRIES,
    WINDOW,
    Slots,
)

#: Strained exchanges (cut, timed out) open the breaker when they are more than half of at least this many in the span.
_STRAIN_COUNT = 20
_STRAIN_SPAN_NS = 10_000_000_000


class Closed(IntEnum):
    """Why nothing is sent. The words are shared memory: never renumber while a bus runs."""

    OPEN = 0
    BUSY = 1  # full a moment ago: opens by itself
    DOWN = 2  # nobody listens: a connect or ping must succeed first
    STOPPED = 3  # misconfigured: a ping (sdk) or one waiting job (status) must succeed first
    ABSENT = 4  # 404/410 under `status`: one waiting job must succeed first
    STRAINED = 5  # mostly cut or timed out: one waiting job must succeed first
    UNREGISTERED = 6  # the script has not said that it knows the topic
    HALTED = 7  # too many of the last attempts failed: one waiting job must succeed first


#: First wait and longest wait (seconds) before the next probe. A down target is cheap to ask, so it is asked often:
#: the topic is back within 2 s after its consumer is.
_PROBE_WAITS = {
    Closed.BUSY: (0.02, 1.0),
    Closed.DOWN: (0.1, 1.5),
    Closed.STOPPED: (1.0, 15.0),
    Closed.ABSENT: (1.0, 15.0),
    Closed.STRAINED: (1.0, 30.0),
    Closed.UNREGISTERED: (0.0, 2.0),
    Closed.HALTED: (1.0, 60.0),
}


class Target:
    """One topic's target as one process sees it. `pool` may be the same object for several topics."""

    def __init__(self, pool: Slots, topic: Slots, needs_ping: bool) -> None:
        self.pool = pool
        self.topic = topic
        self.needs_ping = needs_ping
        self.why = ""
        self.trial = False  # a closed target lets one job through to find out

    def serves(self, consumer: str) -> None:
        """Which consumer this topic has now (script, URL, pool): another one must register anew, for all workers."""
        mark = crc32(consumer.encode()) | 1 << 32
        if self.topic.words[CONSUMER] != mark:
            self.topic.words[CONSUMER] = mark
            self.topic.words[REGISTERED] = 0
            self._open(self.topic)

    # -- places --------------------------------------------------------------------------------------------------

    def take(self, again: Callable[[], None]) -> tuple[int, int] | None:
        """A place in the topic's and in the pool's limit, or None; then `again` is called once when it is worth asking."""
        mine = self.topic.take()
        if mine is None:
            return None  # our own exchanges or another worker's: the end of ours, or the sweep, asks again
        if self.pool is self.topic:
            return mine, -1
        shared = self.pool.take()
        if shared is None:
            self.topic.give(mine)
            if again not in self.pool.waiting:
                self.pool.waiting.append(again)
            return None
        return mine, shared

    def give(self, places: tuple[int, int]) -> None:
        self.topic.give(places[0])
        if places[1] >= 0:
            self.pool.give(places[1])

    # -- open or closed ------------------------------------------------------------------------------------------

    def closed(self) -> Closed:
        """Why nothing may be sent now; OPEN when something may."""
        if not self.pool.words[CLOSED_KIND] and not self.topic.words[CLOSED_KIND]:  # asked several times a job
            return Closed.UNREGISTERED if self.needs_ping and not self.topic.words[REGISTERED] else Closed.OPEN
        for slots in (self.pool, self.topic):
            kind = slots.words[CLOSED_KIND]
            if kind:
                if kind == Closed.BUSY and time.monotonic_ns() >= slots.words[CLOSED_UNTIL]:
                    slots.words[CLOSED_KIND] = 0
                    continue
                return Closed(kind)
        if self.needs_ping and not self.topic.words[REGISTERED]:
            return Closed.UNREGISTERED
        return Closed.OPEN

    def probe_in(self) -> float:
        """Seconds until a closed target may be asked again."""
        until = max(
            slots.words[CLOSED_UNTIL]
            for slots in (self.pool, self.topic)
            if slots.words[CLOSED_KIND] or slots is self.topic
        )
        return max(0.0, (until - time.monotonic_ns()) / 1e9)

    def hands_on(self) -> bool:
        """Whether the places of an exchange that was answered well may go straight to the next job of this topic.

        Only while nothing is closed, narrowed or wanted by anybody else, so that `fine` would only count (which `counted`
        does for many); `give` and `take` are for all other cases.
        """
        pool, topic, size = self.pool, self.topic, len(CALM)
        return (
            pool.page[:size] == CALM
            and topic.page[:size] == CALM
            and not pool.waiting
            and not self.why
            and not (self.needs_ping and not topic.words[REGISTERED])
        )

    def counted(self, n: int) -> None:
        """So many exchanges were answered whose places were handed on."""
        self._count(OK, n)

    def fine(self) -> None:
        """An exchange was answered."""
        pool, topic = self.pool.words, self.topic.words
        if pool[WINDOW]:
            self.pool.grow()
        self._count(OK)
        if pool[CLOSED_KIND] or pool[TRIES] or topic[CLOSED_KIND] or topic[TRIES] or self.why:
            self._reopen()

    def report(self, effect: TargetEffect, reason: str = "") -> None:
        """What an exchange said about the target."""
        match effect:
            case TargetEffect.FINE:
                self.fine()
            case TargetEffect.BUSY:
                self.pool.halve()
                self._close(self.pool, Closed.BUSY, reason)
            case TargetEffect.DOWN:
                self._close(self.pool, Closed.DOWN, reason)
                self.topic.words[REGISTERED] = 0
            case TargetEffect.STOPPED:
                self._close(self.topic, Closed.STOPPED, reason)
                self.topic.words[REGISTERED] = 0
            case TargetEffect.PROBE:
                self._close(self.topic, Closed.ABSENT, reason)
            case TargetEffect.STRAINED:
                self.pool.halve()
                if self._count(BAD):
                    self._close(self.pool, Closed.STRAINED, reason)

    @property
    def halted(self) -> bool:
        """Whether it failed so much that further failures cost nothing; see `paced`."""
        return False

    def failed(self, reason: str) -> bool:
        """An attempt was spent and failed, whatever that says of the target. Whether the topic halts now because of it."""
        return False

    def unregister(self, reason: str) -> None:
        """The consumer answered 404 under `sdk`: it must list the topic in a ping before it gets more."""
        self.topic.words[REGISTERED] = 0
        self.why = reason

    def pinged(self, registered: bool, reason: str = "") -> None:
        """The outcome of a ping."""
        if registered:
            self.topic.words[REGISTERED] = 1
            self._reopen()
        else:
            self._close(self.topic, Closed.STOPPED, reason)

    def reachable(self) -> None:
        """A connect to a down target succeeded (contract `status`, which is never sent an invented request)."""
        if self.pool.words[CLOSED_KIND] == Closed.DOWN:
            self._open(self.pool)

    def postpone(self) -> None:
        """A probe said nothing new: wait longer before the next."""
        for slots in (self.pool, self.topic):
            if slots.words[CLOSED_KIND]:
                self._close(slots, Closed(slots.words[CLOSED_KIND]), self.why)

    def _close(self, slots: Slots, kind: Closed, reason: str) -> None:
        words = slots.words
        first, longest = _PROBE_WAITS[kind]
        if words[CLOSED_KIND] != kind:
            words[TRIES] = 0 if kind != Closed.BUSY else words[TRIES]
        wait = min(longest, first * 2 ** min(words[TRIES], 20)) * random.uniform(0.75, 1.25)
        words[TRIES] += 1
        words[CLOSED_UNTIL] = time.monotonic_ns() + int(wait * 1e9)
        words[CLOSED_KIND] = kind
        self.why = reason

    def _open(self, slots: Slots) -> None:
        slots.words[CLOSED_KIND] = 0
        slots.words[TRIES] = 0

    def _reopen(self) -> None:
        if self.pool.words[CLOSED_KIND] or self.pool.words[TRIES]:
            self._open(self.pool)
        if self.topic.words[CLOSED_KIND] or self.topic.words[TRIES]:
            self._open(self.topic)
        self.why = ""

    def _count(self, which: int, n: int = 1) -> bool:
        """Count exchanges; whether the strained ones of the last ten seconds are too many."""
        words = self.pool.words
        now = time.monotonic_ns()
        if now - words[SPAN_START] > _STRAIN_SPAN_NS:
            words[SPAN_START], words[OK], words[BAD] = now, 0, 0
        words[which] += n
        return words[OK] + words[BAD] >= _STRAIN_COUNT and words[BAD] > words[OK]
