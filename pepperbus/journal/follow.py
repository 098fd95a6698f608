"""Rows as they happen: every log file followed from where it stood when the looking began.

Floor 3. A deleted file is read to its end through the open descriptor; `store.ingest` leaves a finished file lying for
a moment (`store.LINGER_S`) so that one that came and went is seen too.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

from pepperbus.journal import log
from pepperbus.journal.contract import Row


class Follower:
    """Polled by its owner (a few times a second); only rows written after it was made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, IO[bytes]] = {}
        self._positions: dict[str, int] = {}
        self._find(from_end=True)

    def poll(self) -> list[Row]:
        """What was written since the last call, oldest first."""
        rows: list[Row] = []
        self._find()
        for name, file in list(self._files.items()):
            file.seek(self._positions[name])
            data = file.read(log.ROTATE_BYTES)
            found = list(log.read(data))
            rows += [row for row, _ in found]
            if found:
                self._positions[name] += found[-1][1]
            elif not (self._directory / name).exists():
                self._forget(name)
        return sorted(rows, key=lambda row: row.at_ms)

    def close(self) -> None:
        for name in list(self._files):
            self._forget(name)

    def _find(self, from_end: bool = False) -> None:
        for path in log.files(self._directory):
            if path.name in self._files:
                continue
            try:
                file = path.open("rb")
            except FileNotFoundError:
                continue
            self._files[path.name] = file
            self._positions[path.name] = _end_of_rows(file.read()) if from_end else 0

    def _forget(self, name: str) -> None:
        self._files.pop(name).close()
        del self._positions[name]


def _end_of_rows(data: bytes) -> int:
    return max((end for _, end in log.read(data)), default=0)
