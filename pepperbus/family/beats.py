"""The beats: one 8-byte deadline a process, in memory that master and children share.

A process promises to be heard of again before its deadline (monotonic time, which Linux counts the same in every
process). The master writes the first one before the fork, so that a child stuck in its boot is found too. 0 means
that nothing is expected. No lock: an aligned 8-byte store is whole.
"""

from __future__ import annotations

import mmap
import os
import time

#: A process that was silent this long is stuck. Short, because it may hold a storage's writer lock.
LIMIT_S = 5.0
#: How often a living process beats.
EVERY_S = 1.0
#: How long a boot (imports are done; opening storages) may take before the first own beat.
BOOT_LIMIT_S = 30.0
SLOTS = 4096


class Beats:
    """The shared page. The master makes it, or is handed its predecessor's; the mold maps the descriptor it was passed;
    children inherit the map.
    """

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = os.memfd_create("pepperbus-beats", os.MFD_CLOEXEC)
            os.ftruncate(fd, SLOTS * 8)
        self.fd = fd
        self._words = memoryview(mmap.mmap(fd, SLOTS * 8)).cast("Q")

    def promise(self, slot: int, within_s: float = LIMIT_S) -> None:
        """The process in `slot` will be heard of again within that time."""
        self._words[slot] = int((time.monotonic() + within_s) * 1000)

    def forget(self, slot: int) -> None:
        self._words[slot] = 0

    def overdue_s(self, slot: int, now: float) -> float:
        """Seconds since the promise was broken; 0.0 when it was not, or when there is none."""
        deadline = self._words[slot]
        return max(now - deadline / 1000, 0.0) if deadline else 0.0
