"""When exchanges must have ended: one timer for all of a consumer. Knows clocks and the hub, no protocol."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gevent._types import _Loop, _TimerWatcher


class Exchange(Protocol):
    """Whatever has a deadline."""

    def too_late(self) -> None:
        """Called in the hub when the deadline has come."""

    def cut(self, reason: str) -> None:
        """End before the deadline."""


class UnderWay:
    """The exchanges of one consumer, with one timer for all their deadlines: one each cost 4 µs a job.

    It is set for the earliest deadline that was ever asked for. Whoever has ended by then is simply no longer there.
    """

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._deadlines: dict[Exchange, float] = {}
        self._next = math.inf
        self._timer: _TimerWatcher | None = None

    def __iter__(self) -> Iterator[Exchange]:
        """Those of this moment; they may end meanwhile."""
        return iter(list(self._deadlines))

    def add(self, exchange: Exchange, deadline: float) -> None:
        """`deadline` on the monotonic clock."""
        self._deadlines[exchange] = deadline
        if deadline < self._next:
            self._set(deadline)

    def discard(self, exchange: Exchange) -> None:
        self._deadlines.pop(exchange, None)

    def close(self) -> None:
        """Forget the timer; call it when nothing is under way."""
        self._next = math.inf
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _set(self, deadline: float) -> None:
        self.close()
        self._next = deadline
        self._timer = self._loop.timer(max(deadline - time.monotonic(), 0.0))
        self._timer.start(self._due, update=True)

    def _due(self) -> None:
        self.close()
        now = time.monotonic()
        for exchange, deadline in list(self._deadlines.items()):
            if deadline <= now:
                exchange.too_late()
        if self._deadlines:
            self._set(min(self._deadlines.values()))
