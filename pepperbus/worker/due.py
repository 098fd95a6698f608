"""When to look for jobs of a topic whose time has come: at the time the storage named, and after what may have changed it.

Floor 4. Knows the storage's contract and no pump. A look is a trip to the storage beside the leasing, never in front of it:
before, every push paid for one, which was as much as its lease. A job with a delay may so begin up to `_EVERY_S` late.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent

from pepperbus.clock import Clock
from pepperbus.errors import StorageError
from pepperbus.storage.contract import Storage

#: Between two looks at least: pushes come by the thousand a second, and few of them are delayed ones.
_EVERY_S = 0.05
_LONGEST_WAIT_S = 3600.0


class Due:
    """Moves due jobs of `topic` to the ready ones and calls `found` when there were some."""

    def __init__(self, topic: str, storage: Storage, clock: Clock, found: Callable[[], None]) -> None:
        self._topic = topic
        self._storage = storage
        self._clock = clock
        self._found = found
        self._next_ms = 0  # epoch; 0: no job is delayed
        self._told_ms = 0  # the soonest that `at` was told and the storage may not know yet; 0: none
        self._timer: gevent.Greenlet | None = None
        self._asked = False
        self._running = False
        self._looked_at = float("-inf")

    def look(self) -> None:
        """Look soon: at once, or as long after the last look as there must be in between."""
        self._asked = True
        if not self._running:
            self._running = True
            gevent.spawn_later(max(0.0, self._looked_at + _EVERY_S - self._clock.monotonic()), self._run)

    def at(self, due_ms: int) -> None:
        """A job of this topic becomes due then; the storage hears of it a moment later."""
        if not self._told_ms or due_ms < self._told_ms:
            self._told_ms = due_ms
        if not self._next_ms or due_ms < self._next_ms:
            self._next_ms = due_ms
            self._set_timer()

    def _run(self) -> None:
        try:
            while self._asked:
                self._asked = False
                self._looked_at = self._clock.monotonic()
                self._promote()
                if self._asked:
                    gevent.sleep(_EVERY_S)
        finally:
            self._running = False

    def _promote(self) -> None:
        now_ms = self._clock.now_ms()
        if self._told_ms <= now_ms:
            self._told_ms = 0
        try:
            moved, self._next_ms = self._storage.promote(self._topic, now_ms)
        except StorageError:
            return  # leasing says what is wrong, and the worker's sweep asks for the next look
        if self._told_ms and (not self._next_ms or self._told_ms < self._next_ms):
            self._next_ms = self._told_ms
        self._set_timer()
        if moved:
            self._found()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.kill(block=False)
            self._timer = None
        if self._next_ms:
            wait_s = max(0.0, (self._next_ms - self._clock.now_ms()) / 1000)
            self._timer = gevent.spawn_later(min(wait_s, _LONGEST_WAIT_S), self.look)
