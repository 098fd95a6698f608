"""Limits that belong to the node, not to a process: places at a target, its window and its breaker, shared by all workers.

Floor 2. One small file per limit. A place is one byte of it, locked (open file description locks) while it is used, so that the
kernel gives it back when its holder dies. The first page is mapped shared and holds a few words that all processes of
the node read and write without a lock: each is a hint or a switch, and the last writer may win.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

_PAGE = mmap.ALLOCATIONGRANULARITY
_WORDS = 16
WANTED, WINDOW, CLOSED_KIND, TRIES, CLOSED_UNTIL, REGISTERED, OK, BAD, SPAN_START, HALVED_AT, CONSUMER = range(11)
#: The first four of a page while nobody is in the way of anybody: one comparison instead of four looks.
CALM = bytes(4 * 8)

#: A process that finds no place marks the file; whoever sees the mark soon enough gives one place up, and takes no further
#: one for a moment, so that the other finds it. Who holds some already is content with them for a second: places that
#: go round cost more than an uneven share.
_WANTED_NS = 100_000_000
_YIELD_NS = 20_000_000
_CONTENT_NS = 1_000_000_000


class Slots:
    """`n` places shared by every process of the node that opens the same file."""

    def __init__(self, path: Path, n: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.n = n
        self.waiting: deque[Callable[[], None]] = deque()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if os.fstat(self._fd).st_size < _PAGE:
            os.posix_fallocate(self._fd, 0, _PAGE)  # not a hole: a full disk would end whoever writes into it
        self.page = mmap.mmap(self._fd, _PAGE)
        self.words = memoryview(self.page).cast("Q")[:_WORDS]
        self._used: set[int] = set()
        self._warm: list[int] = []
        self._yields_until = 0  # monotonic ns: another process is to find a place before
        self._content_at = 0  # monotonic ns: got a place, or asked for one

    @property
    def window(self) -> int:
        """How many of the places may be used now: 1..n. The word counts thousandths; 0: all of them."""
        thousandths = self.words[WINDOW]
        if not thousandths or thousandths >= self.n * 1000:
            return self.n
        return thousandths // 1000 or 1

    @property
    def used(self) -> int:
        """Places this process holds for exchanges under way."""
        return len(self._used)

    def take(self) -> int | None:
        """A place, or None when all within the window are taken (here or by other processes)."""
        window = self.window
        while self._warm:
            place = self._warm.pop()
            if place < window:
                self._used.add(place)
                return place
            self._lock(fcntl.F_UNLCK, place)
        if len(self._used) < window:
            return self._take_another(window)
        return None

    def _take_another(self, window: int) -> int | None:
        now = time.monotonic_ns()
        if now >= self._yields_until:
            for place in range(window):
                if place not in self._used and self._lock(fcntl.F_WRLCK, place):
                    self._used.add(place)
                    self._content_at = now
                    return place
        if not self._used or now - self._content_at > _CONTENT_NS:
            self.words[WANTED] = self._content_at = now
        return None

    def give(self, place: int) -> None:
        """Hand a place back; whoever waits in this process is called first."""
        self._used.discard(place)
        if self._is_wanted():
            self.words[WANTED] = 0
            self._yields_until = time.monotonic_ns() + _YIELD_NS
            self._lock(fcntl.F_UNLCK, place)
            self.cool()
        elif place >= self.window:
            self._lock(fcntl.F_UNLCK, place)
        else:
            self._warm.append(place)
        if self.waiting:
            self.waiting.popleft()()

    def _is_wanted(self) -> bool:
        """Whether another process found no place a moment ago. Wipes a mark that is older."""
        wanted = self.words[WANTED]
        if not wanted:
            return False
        if time.monotonic_ns() - wanted < _WANTED_NS:
            return wanted != self._content_at  # our own mark is for the others
        self.words[WANTED] = 0
        return False

    def cool(self) -> None:
        """Unlock the places that are kept warm: unused, and locked until now because taking them again costs nothing."""
        while self._warm:
            self._lock(fcntl.F_UNLCK, self._warm.pop())

    def _lock(self, kind: int, place: int) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, 0, _PAGE + place, 1, 0))
        except OSError:  # taken, or the kernel has no room for one more lock: the same for whoever asks
            return False
        return True

    # -- the window: additive increase, multiplicative decrease ------------------------------------------------------

    def grow(self) -> None:
        """One success: after as many as the window is wide, it widens by one."""
        window = self.words[WINDOW]
        if window:
            window += 1_000_000 // window
            self.words[WINDOW] = window if window < self.n * 1000 else 0

    def halve(self) -> None:
        """The target was full or slow: half as many from now on; at most once per 100 ms, for one fullness is seen by many."""
        now = time.monotonic_ns()
        if now - self.words[HALVED_AT] > 100_000_000:
            self.words[HALVED_AT] = now
            self.words[WINDOW] = max(1000, self.window * 500)

    def close(self) -> None:
        os.close(self._fd)
