"""The statistics files for those who read them every second: mapped once, and of each record only what is asked for.

Floor 0, upon stats. Slot files grow and are deleted but never cut: a map of one stays good, and shows at once what is counted.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pepperbus import stats

_N = len(stats.COUNTERS)


class _Slot:
    """One file as it was when it had this size."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            stat = os.fstat(fd)
            self.version = stat.st_ino, stat.st_size
            # A file that is being made this moment is empty; the next look finds it grown.
            self._data = memoryview(mmap.mmap(fd, stat.st_size, access=mmap.ACCESS_READ) if stat.st_size else b"")
        finally:
            os.close(fd)
        self._words = self._data[: len(self._data) // 8 * 8].cast("Q")
        self._starts: dict[str, int] = {}  # name -> its first word

    def starts(self) -> dict[str, int]:
        """name -> its first word, with the names that came since the last look."""
        for name, start in stats.records(self._data, len(self._starts)):
            self._starts[name] = start // 8
        return self._starts

    def counters(self) -> Iterator[tuple[str, list[int]]]:
        words = self._words
        return ((name, words[at : at + _N].tolist()) for name, at in self.starts().items())

    def records(self) -> Iterator[tuple[str, memoryview]]:
        return ((name, self._words[at:]) for name, at in self.starts().items())

    def words(self, name: str) -> memoryview | None:
        at = self.starts().get(name)
        return None if at is None else self._words[at:]


class Reader:
    """Everything that is counted under `directory`, added up over all slots."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._slots: dict[Path, _Slot] = {}

    def counters(self) -> dict[str, list[int]]:
        """The counters of every name, as `stats.COUNTERS` has them."""
        found: dict[str, list[int]] = {}
        for slot in self._look():
            for name, mine in slot.counters():
                known = found.get(name)
                found[name] = [a + b for a, b in zip(known, mine, strict=True)] if known else mine
        return found

    def totals(self, names: Iterable[str]) -> dict[str, stats.Totals]:
        """Counters and histograms of those of `names` that are counted at all."""
        slots = self._look()
        found: dict[str, stats.Totals] = {}
        for name in names:
            for slot in slots:
                words = slot.words(name)
                if words is not None:
                    stats.merge(found.setdefault(name, stats.Totals()), words)
        return found

    def worker_states(self) -> dict[str, str]:
        """topic -> the state to show, over all workers' slots."""
        self._look()
        workers = [slot for path, slot in self._slots.items() if path.name.startswith("worker.")]
        return stats.worst_states(record for slot in workers for record in slot.records())

    def _look(self) -> list[_Slot]:
        """The files as they are now."""
        known, self._slots = self._slots, {}
        for path in sorted(self._directory.glob("*.stats")):
            try:
                stat = path.stat()
                slot = known.get(path)
                self._slots[path] = slot if slot and slot.version == (stat.st_ino, stat.st_size) else _Slot(path)
            except FileNotFoundError:
                continue
        return [*self._slots.values()]
