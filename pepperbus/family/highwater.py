"""How far the ids of a slot have come, kept in a mapped file so that a killed process' successor never repeats one.

The rule: before jobs go to a storage the slot's mark is raised to the wall time their ids were made at; a starting
generator begins one millisecond above the mark. The page outlives any kill; it is written back by the kernel, so
after a power cut it may be up to half a minute old, less than a machine takes to be back with its clock set. The file
is locked while its process lives: two generators of one slot are impossible.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from pathlib import Path

from pepperbus.errors import BootError

_WORD = struct.Struct("<Q")


class HighWater:
    """The mark of one slot. Raises BootError when another living process has it for longer than `patience` seconds."""

    def __init__(self, directory: Path, slot: str, patience: float = 10.0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{slot}.mark"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._lock(path, patience)
        if os.fstat(self._fd).st_size < _WORD.size:
            os.posix_fallocate(self._fd, 0, _WORD.size)
        self._map = mmap.mmap(self._fd, _WORD.size)
        self._ms: int = _WORD.unpack_from(self._map)[0]

    def _lock(self, path: Path, patience: float) -> None:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise BootError(f"{path}: another process of this slot is still running") from None
                time.sleep(0.05)

    @property
    def start_ms(self) -> int:
        """Where a new generator begins; 0 for a slot that never made an id."""
        return self._ms + 1 if self._ms else 0

    def raise_to(self, ms: int) -> None:
        if ms > self._ms:
            self._ms = ms
            _WORD.pack_into(self._map, 0, ms)

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)
