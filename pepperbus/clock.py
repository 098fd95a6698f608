"""Time as a value that is handed in, so that tests can own it.

Floor 0. Wall time (ms since 1970, may jump) dates things; monotonic time (seconds, never goes back) measures them.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall time in milliseconds."""

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward."""


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to; for tests and simulations."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self._wall_ms = now_ms
        self._monotonic = 0.0

    def now_ms(self) -> int:
        return self._wall_ms

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._wall_ms += int(seconds * 1000)
        self._monotonic += seconds
