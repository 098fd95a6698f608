"""Job and trace ids: unsigned 64-bit numbers, 20 decimal digits, rising, unique over nodes and processes.

Floor 0. The layout is that of the ids of existing installations, from the top: 1 bit set | 39 bits of milliseconds
since EPOCH_MS | 6 bits shard (the node) | 4 bits slot (the gateway process of that node) | 14 bits sequence.
"""

from __future__ import annotations

from collections.abc import Callable

EPOCH_MS = 1533550162685
LAST_MS = EPOCH_MS + (1 << 39) - 1  # January 2036
PER_MS = 1 << 14  # ids of one process in one millisecond
_TOP = 1 << 63


class IdGenerator:
    """Ids of one process. `next()` never repeats and never goes back, whatever the wall clock does.

    A clock that goes back, or more than 16,384 ids in one millisecond, borrows from the following
    milliseconds; the generator then runs ahead of the clock until the clock has caught up. `start_ms` lets a
    restarted process begin above everything its predecessor may have given out.
    """

    def __init__(self, shard: int, slot: int, now_ms: Callable[[], int], start_ms: int = 0) -> None:
        if not 0 <= shard <= 63 or not 0 <= slot <= 15:
            raise ValueError(f"shard {shard} must be 0..63 and slot {slot} 0..15")
        self._now_ms = now_ms
        self._fixed = _TOP | shard << 18 | slot << 14
        self._ms = max(start_ms - EPOCH_MS, 0)
        self._sequence = -1

    def next(self) -> int:
        return self.take(1)

    def take(self, count: int) -> int:
        """The first of `count` ids that follow one another without a gap. Raises ValueError for more than PER_MS."""
        if count > PER_MS:
            raise ValueError(f"{count} ids at once, more than {PER_MS}")
        ms = self._now_ms() - EPOCH_MS
        first = self._sequence + 1
        if ms > self._ms:
            self._ms, first = ms, 0
        elif first + count > PER_MS:
            self._ms, first = self._ms + 1, 0
        self._sequence = first + count - 1
        return self._fixed | self._ms << 24 | first

    @property
    def high_water_ms(self) -> int:
        """Every id given so far lies at or below this wall time (ms); a successor may start above it."""
        return self._ms + EPOCH_MS


def id_time_ms(job_id: int) -> int:
    """The wall time (ms) an id was made at."""
    return ((job_id & (_TOP - 1)) >> 24) + EPOCH_MS


def parse_id(text: str) -> int:
    """A job id as people type it. Raises ValueError with the reason."""
    if not text.isascii() or not text.isdigit() or len(text) != 20 or int(text) >= 1 << 64 or int(text) < _TOP:
        raise ValueError(f"{text!r} is not a job id (20 decimal digits)")
    return int(text)
