"""Looking after one topic's pump: what it shows of itself, and the way back of a closed target. Floor 4."""

from __future__ import annotations

import gevent

from pepperbus.clock import Clock
from pepperbus.delivery.target import Closed
from pepperbus.log import Log
from pepperbus.worker.probe import probe
from pepperbus.worker.pump import Pump


class Attendance:
    """Of all pumps of a worker; at most one question to a target is under way."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._probing: set[str] = set()

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
            gevent.spawn(self._probe, pump)

    def _probe(self, pump: Pump) -> None:
        try:
            probe(pump, self._log, self._clock.now_ms())
        finally:
            self._probing.discard(pump.name)
        if pump.target.closed() not in (Closed.OPEN, Closed.BUSY) and not pump.draining:
            gevent.spawn_later(max(pump.target.probe_in(), 0.02), self.look, pump)
