"""The statistics files for those who read them every second: mapped once, and of each record only what is asked for.

Floor 0, upon stats. Slot files grow and are deleted but never cut: a map of one stays good, and shows at once what is counted.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from struct import Struct

from pepperbus import stats

_COUNTERS = Struct(f"{len(stats.COUNTERS)}Q")
_BYTES = _COUNTERS.size


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
        self._heads: list[memoryview] = []  # the counters of each name
        self._seen = b""  # what they were at the last look, one behind the other
        self.counters: dict[str, list[int]] = {}  # as of the last `moved`

    def starts(self) -> dict[str, int]:
        """name -> its first word, with the names that came since the last look."""
        for name, start in stats.records(self._data, len(self._starts)):
            self._starts[name] = start // 8
            self._heads.append(self._data[start : start + _BYTES])
        return self._starts

    def moved(self) -> list[str]:
        """The names whose counters are other ones than at the last look; while all stand still it is one comparison."""
        names = self.starts()
        now, before = b"".join(self._heads), self._seen
        if now == before:
            return []
        found = []
        for name, at in zip(names, range(0, len(now), _BYTES), strict=True):
            if now[at : at + _BYTES] != before[at : at + _BYTES]:
                self.counters[name] = list(_COUNTERS.unpack_from(now, at))
                found.append(name)
        self._seen = now
        return found

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
        self._added: list[_Slot] = []  # the slots that `_counters` is the sum of
        self._counters: dict[str, list[int]] = {}

    def counters(self) -> Mapping[str, list[int]]:
        """The counters of every name, as `stats.COUNTERS` has them: not to be changed.

        While nothing moves it is the same object, and the list of a name that stands still is the same list.
        """
        slots = self._look()
        moved = {name for slot in slots for name in slot.moved()}
        known: dict[str, list[int]] = self._counters
        if slots != self._added:  # a file came, grew or went
            known, moved = {}, {name for slot in slots for name in slot.counters}
        if moved or slots != self._added:
            self._added = slots
            self._counters = known | {name: self._sum(name) for name in moved}
        return self._counters

    def _sum(self, name: str) -> list[int]:
        mine = [slot.counters[name] for slot in self._added if name in slot.counters]
        return mine[0] if len(mine) == 1 else [sum(column) for column in zip(*mine, strict=True)]

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
