"""Which queue was pushed to: one word a queue, in a file that gateways and workers of a node map.

The eventfd of a worker group wakes it; the bell says for whom, so that a group of a thousand quiet queues does not look
into all of them for one push. Knows no gevent. No lock: a word changes with every ring, whoever rings, and two queues that
share a word are merely both looked at.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

_WORDS = 4096


class Bell:
    """The mapped file; every process opens it for itself."""

    def __init__(self, run_dir: Path) -> None:
        fd = os.open(run_dir / "bell", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.posix_fallocate(fd, 0, _WORDS * 8)  # not a hole: a full disk would end whoever writes into it
            self.words = memoryview(mmap.mmap(fd, _WORDS * 8)).cast("Q")
        finally:
            os.close(fd)

    def ring(self, queue: str) -> None:
        """Something was pushed to `queue`, or given back. Before the eventfd is written to."""
        self.words[_place(queue)] = time.monotonic_ns()


class Ear:
    """What one worker has heard so far."""

    def __init__(self, bell: Bell, queues: Iterable[str]) -> None:
        self._words = bell.words
        self._places = {queue: _place(queue) for queue in queues}
        self._heard = {queue: self._words[place] for queue, place in self._places.items()}

    def rung(self) -> list[str]:
        """The queues that were rung for since the last call. After the eventfd was read."""
        words, heard = self._words, self._heard
        found = [queue for queue, place in self._places.items() if words[place] != heard[queue]]
        for queue in found:
            heard[queue] = words[self._places[queue]]
        return found


def _place(queue: str) -> int:
    return crc32(queue.encode()) % _WORDS
