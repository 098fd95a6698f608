"""Looking after one topic's pump: what it shows of itself, and the way back of a closed target. Floor 4."""

from __future__ import annotations

from collections import Counter, deque

import gevent

from pepperbus.clock import Clock
from pepperbus.delivery.slots import Slots
from pepperbus.delivery.target import Closed
from pepperbus.log import Log
from pepperbus.worker.probe import probe
from pepperbus.worker.pump import Pump


class Attendance:
    """Of all pumps of a worker; at most one question to a target is under way.

    And no more at one php-fpm than it has children: a thousand topics that ask at once are a thousand refusals, and asked
    again for minutes.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._probing: set[str] = set()
        self._waiting: dict[Slots, deque[Pump]] = {}  # by the pool they ask at
        self._asking: Counter[Slots] = Counter()

    def look(self, pump: Pump) -> None:
        """Show how it stands; wake it when its target has opened, ask the target when it is time to."""
        pump.record.set("state", pump.state())
        pump.was_paused = pump.paused
        pump.record.set("window", min(pump.target.pool.window, pump.target.topic.window))
        if pump.target.closed() in (Closed.OPEN, Closed.BUSY):
            pump.let_others()
            if pump.was_closed:
                pump.was_closed = False
                pump.wake()
            return
        pump.was_closed = True
        pump.return_ahead()
        if pump.name not in self._probing and pump.target.probe_in() <= 0 and not pump.draining:
            self._probing.add(pump.name)
            pool = pump.target.pool
            self._waiting.setdefault(pool, deque()).append(pump)
            self._ask_at(pool)

    def _ask_at(self, pool: Slots) -> None:
        if self._waiting[pool] and self._asking[pool] < pool.n:
            self._asking[pool] += 1
            gevent.spawn(self._ask, pool)

    def _ask(self, pool: Slots) -> None:
        """One after the other, while there are any."""
        waiting = self._waiting[pool]
        try:
            while waiting:
                self._probe(waiting.popleft())
        finally:
            self._asking[pool] -= 1
            self._ask_at(pool)

    def _probe(self, pump: Pump) -> None:
        try:
            if not pump.draining:
                probe(pump, self._log, self._clock.now_ms())
        finally:
            self._probing.discard(pump.name)
        if pump.target.closed() not in (Closed.OPEN, Closed.BUSY) and not pump.draining:
            gevent.spawn_later(max(pump.target.probe_in(), 0.02), self.look, pump)
