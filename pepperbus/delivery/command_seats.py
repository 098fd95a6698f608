"""`run = command`: how many processes of a topic there may be on the node, and which part of them is whose.

Floor 3. One file a topic; what workers say to one another are locks of its bytes (open file description locks), so that the
kernel takes back the word of one that died. Knows no process.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_MOST_CREWS = 1024
_PRESENT, _WANTING = 1 << 20, 1 << 21  # behind the seats themselves: a byte for each crew
_LOCK = struct.Struct("hhqqi4x")  # struct flock


class Seats:
    """Places for processes, shared by the crews of the node: the same number each, more while nobody else wants them."""

    def __init__(self, path: Path, most: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._most = most
        self._mine: set[int] = set()
        self._me = next((n for n in range(_MOST_CREWS) if self._lock(fcntl.F_WRLCK, _PRESENT + n)), 0)

    def take(self, below: int) -> int:
        """A free one of the first `below`; -1 when there is none."""
        for seat in range(min(below, self._most)):
            if seat not in self._mine and self._lock(fcntl.F_WRLCK, seat):
                self._mine.add(seat)
                return seat
        return -1

    def give(self, seat: int) -> None:
        self._mine.discard(seat)
        self._lock(fcntl.F_UNLCK, seat)

    def share(self, n: int) -> int:
        """This crew's part of the first `n` seats. All parts together are `n`."""
        n, before = min(n, self._most), self._others(_PRESENT, self._me)
        crews = before + 1 + self._others(_PRESENT + self._me + 1, _MOST_CREWS - self._me - 1)
        return n // crews + (before < n % crews)

    def want(self, wanted: bool) -> None:
        """Whether this crew has less than its part and finds no seat."""
        self._lock(fcntl.F_WRLCK if wanted else fcntl.F_UNLCK, _WANTING + self._me)

    def has_too_many(self) -> bool:
        """Whether this crew has more than its part of all while another wants some."""
        return len(self._mine) > self.share(self._most) and self._others(_WANTING, _MOST_CREWS) > 0

    def may_take_more(self) -> bool:
        """Whether one more leaves everybody their part, or nobody else wants it."""
        return len(self._mine) < self.share(self._most) or not self._others(_WANTING, _MOST_CREWS)

    def leave(self) -> None:
        """This crew takes no more; what it has it gives back one by one."""
        self._lock(fcntl.F_UNLCK, _PRESENT + self._me)
        self._lock(fcntl.F_UNLCK, _WANTING + self._me)

    def _lock(self, kind: int, byte: int) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _LOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
        except OSError:
            return False
        return True

    def _others(self, start: int, length: int) -> int:
        """How many of these bytes others have locked."""
        count, end = 0, start + length
        while start < end:
            asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0)
            try:
                kind, _, first, size, _ = _LOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, asked))
            except OSError:
                return count
            if kind == fcntl.F_UNLCK:
                return count
            count += 1
            start = first + size
        return count
