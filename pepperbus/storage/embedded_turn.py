"""Whose turn it is to write: a lock between processes that can be tried without waiting, which LMDB's own cannot.

Floor 3. Knows files and `flock`, nothing of LMDB or jobs. Whoever has the turn finds LMDB's writer lock free, so the hub
may begin a transaction itself. Two locks make it fair: who waits for the turn holds the place next to it, and nobody
gets a turn without passing that place, so who has just given the turn away stands behind who waits. The kernel takes
both from a process that is killed.
"""

from __future__ import annotations

import os
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path


class Turn:
    """The turn to write into the storage of `directory`, for one user in this process at a time."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._turn = os.open(directory / "turn", flags, 0o640)
        self._next = os.open(directory / "next", flags, 0o640)

    def try_take(self) -> bool:
        """Take the turn if that needs no waiting. If not, the place next to it may be kept: call `take` then."""
        try:
            flock(self._next, LOCK_EX | LOCK_NB)
            flock(self._turn, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        flock(self._next, LOCK_UN)
        return True

    def take(self) -> None:
        """Wait for the turn, inside C."""
        flock(self._next, LOCK_EX)
        flock(self._turn, LOCK_EX)
        flock(self._next, LOCK_UN)

    def give(self) -> None:
        flock(self._turn, LOCK_UN)

    def close(self) -> None:
        os.close(self._turn)
        os.close(self._next)
