"""Counters and histograms in shared memory: one file a process slot, one record a topic or queue.

Floor 0. A writer only ever adds to 8-byte words of its own file, so no lock is needed; the file outlives the process
and its successor in the same slot goes on counting. A reader maps every file of the directory and adds them up, so
totals never go back while workers die and come back. Histograms have logarithmic buckets (8 an octave, ±4.5 %) and
merge by addition. The master empties the directory when it starts: counts begin at the start of the bus.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

#: What is counted of a topic (`queue/topic`) or a queue (`queue`); the order is the layout.
COUNTERS = (
    "pushed",  # jobs accepted (queue records: by the gateway; topic records: copies stored)
    "refused",  # pushes answered with an error
    "popped",  # jobs given to RPOP
    "done",
    "failed",  # attempts that failed and were spent
    "retried",
    "dead",
    "returned",  # given back without an attempt spent
    "in_flight",  # gauge of this slot: attempts under way
    "window",  # gauge: the target's window as this slot sees it
    "state",  # gauge: 0 idle, 1 feeding, 2 paused, 3 stopped, 4 down, 5 probing
    "unknown",  # pushes answered UNKNOWN
)
GAUGES = ("in_flight", "window", "state")
STATES = ("idle", "feeding", "paused", "stopped", "down", "probing")
_WORST_FIRST = (3, 4, 5, 1, 2, 0)  # of several workers' states, the one to show
HISTOGRAMS = ("wait", "run", "push")  # accepted -> started, started -> answered, push -> reply
PER_OCTAVE = 8
BUCKETS = 256  # 1 µs to 2^32 µs (71 minutes)
_NAME_BYTES = 264
_HEADER = 64
_MAGIC = b"pepperbus-stats-1"
_HISTOGRAM_WORDS = BUCKETS + 2  # buckets, count, sum of µs
_WORDS = len(COUNTERS) + len(HISTOGRAMS) * _HISTOGRAM_WORDS
_RECORD = _NAME_BYTES + _WORDS * 8
_INDEX = {name: i for i, name in enumerate(COUNTERS)}
_BASE = {name: len(COUNTERS) + i * _HISTOGRAM_WORDS for i, name in enumerate(HISTOGRAMS)}
_IN_FLIGHT, _WAIT, _RUN = _INDEX["in_flight"], _BASE["wait"], _BASE["run"]


def bucket(micros: float) -> int:
    """The bucket a duration falls into."""
    if micros < 1:
        return 0
    return min(BUCKETS - 1, int(math.log2(micros) * PER_OCTAVE))


def bucket_micros(index: int) -> float:
    """The middle (geometric) of a bucket, in µs."""
    return float(2 ** ((index + 0.5) / PER_OCTAVE))


_NOTHING = [0] * BUCKETS  # shared by all histograms that are empty: nobody writes into it


class Histogram:
    """A merged histogram as a reader sees it."""

    __slots__ = ("buckets", "count", "sum_micros")

    def __init__(self, buckets: list[int] | None = None, count: int = 0, sum_micros: int = 0) -> None:
        self.buckets = buckets or _NOTHING
        self.count = count
        self.sum_micros = sum_micros

    def add(self, other: Histogram) -> None:
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        self.count += other.count
        self.sum_micros += other.sum_micros

    def plus(self, other: Histogram) -> Histogram:
        total = Histogram(self.buckets, self.count, self.sum_micros)
        total.add(other)
        return total

    def minus(self, earlier: Histogram) -> Histogram:
        """What happened since `earlier` was read."""
        buckets = [max(a - b, 0) for a, b in zip(self.buckets, earlier.buckets, strict=True)]
        return Histogram(buckets, max(self.count - earlier.count, 0), max(self.sum_micros - earlier.sum_micros, 0))

    def percentile(self, q: float) -> float:
        """The q-quantile (0..1) in seconds; 0.0 for an empty histogram."""
        total = sum(self.buckets)
        if not total:
            return 0.0
        rank, seen = q * total, 0
        for index, n in enumerate(self.buckets):
            seen += n
            if seen >= rank and n:
                return bucket_micros(index) / 1e6
        return bucket_micros(BUCKETS - 1) / 1e6


class Totals:
    """One name's counters and histograms, added up over all slots."""

    __slots__ = ("counters", "histograms")

    def __init__(self) -> None:
        self.counters = [0] * len(COUNTERS)
        self.histograms = {name: Histogram() for name in HISTOGRAMS}

    def __getitem__(self, counter: str) -> int:
        return self.counters[_INDEX[counter]]


class Record:
    """One name's words in the writer's own file."""

    __slots__ = ("_words",)

    def __init__(self, words: memoryview) -> None:
        self._words = words

    def add(self, counter: str, n: int = 1) -> None:
        i = _INDEX[counter]
        value = self._words[i] + n
        self._words[i] = value if value > 0 else 0

    def set(self, counter: str, value: int) -> None:
        """For the gauges."""
        self._words[_INDEX[counter]] = max(value, 0)

    def ended(self, wait_s: float, run_s: float) -> None:
        """One exchange ended that was counted as `in_flight`: how long its job had waited, and how long it took.

        With `add` the hot path: one call instead of three.
        """
        words = self._words
        in_flight = words[_IN_FLIGHT]
        words[_IN_FLIGHT] = in_flight - 1 if in_flight else 0
        self._observe(_WAIT, wait_s)
        self._observe(_RUN, run_s)

    def _observe(self, base: int, seconds: float) -> None:
        micros = seconds * 1e6
        if micros < 1.0:
            micros = 0.0
            at = base
        else:
            at = base + min(BUCKETS - 1, int(math.log2(micros) * PER_OCTAVE))
        words = self._words
        words[at] += 1
        words[base + BUCKETS] += 1
        words[base + BUCKETS + 1] += int(micros)

    def observe_all(self, histogram: str, durations_s: Iterable[float]) -> None:
        """Count many durations: in one loop, a third of what they cost one by one between other things."""
        base, words, log2, most = _BASE[histogram], self._words, math.log2, BUCKETS - 1
        count = total = 0
        for seconds in durations_s:
            micros = seconds * 1e6
            at = 0
            if micros >= 1.0:
                at = int(log2(micros) * PER_OCTAVE)
                total += int(micros)
            words[base + (at if at < most else most)] += 1
            count += 1
        words[base + BUCKETS] += count
        words[base + BUCKETS + 1] += total

    def observe(self, histogram: str, seconds: float, n: int = 1) -> None:
        """Count `n` durations of `seconds`."""
        base = _BASE[histogram]
        micros = max(seconds, 0.0) * 1e6
        words = self._words
        words[base + bucket(micros)] += n
        words[base + BUCKETS] += n
        words[base + BUCKETS + 1] += int(micros) * n


class Writer:
    """The writing end of one process slot. Create after the fork."""

    def __init__(self, directory: Path, slot: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{slot}.stats"
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        size = os.fstat(self._fd).st_size
        self._records: dict[str, Record] = {}
        self._maps: list[mmap.mmap] = []
        if size < _HEADER:
            os.posix_fallocate(self._fd, 0, _PAGE)
            os.pwrite(self._fd, _MAGIC, 0)
        self._used = 0
        self._adopt(max((max(size, _PAGE) - _PAGE) // _CHUNK, 0))
        self._quiet()  # gauges describe a process, and the one before may have been killed

    def _adopt(self, chunks: int) -> None:
        for i in range(chunks):
            self._map_chunk(i)
        for i in range(chunks * _PER_CHUNK):
            view = self._view(i)
            name = bytes(view[:_NAME_BYTES]).rstrip(b"\0")
            if not name:
                break
            self._records[name.decode()] = Record(view[_NAME_BYTES:].cast("Q"))
            self._used = i + 1

    def _map_chunk(self, index: int) -> None:
        self._maps.append(mmap.mmap(self._fd, _CHUNK, offset=_PAGE + index * _CHUNK))

    def _view(self, i: int) -> memoryview:
        chunk, at = divmod(i, _PER_CHUNK)
        return memoryview(self._maps[chunk])[at * _RECORD : (at + 1) * _RECORD]

    def record(self, name: str) -> Record:
        """The record of a queue or topic; made on first use. Keep the returned object."""
        found = self._records.get(name)
        if found is None:
            if self._used == len(self._maps) * _PER_CHUNK:
                # Real blocks: writing into a hole of a mapped file ends the process when the disk is full.
                os.posix_fallocate(self._fd, _PAGE + len(self._maps) * _CHUNK, _CHUNK)
                self._map_chunk(len(self._maps))
            view = self._view(self._used)
            encoded = name.encode()
            view[: len(encoded)] = encoded
            self._used += 1
            found = self._records[name] = Record(view[_NAME_BYTES:].cast("Q"))
        return found

    def close(self) -> None:
        """The process leaves. Its slot may never be used again, and what the gauges said of it holds no more."""
        self._quiet()
        os.close(self._fd)

    def _quiet(self) -> None:
        for record in self._records.values():
            for gauge in GAUGES:
                record.set(gauge, 0)


_PAGE = mmap.ALLOCATIONGRANULARITY
_PER_CHUNK = 16
_CHUNK = -(-_RECORD * _PER_CHUNK // _PAGE) * _PAGE


def records(data: memoryview, known: int = 0) -> Iterator[tuple[str, int]]:
    """(name, where its words begin, in bytes) of each record of a slot file but the first `known`."""
    if bytes(data[: len(_MAGIC)]) != _MAGIC:
        return
    for i in itertools.count(known):
        chunk, at = divmod(i, _PER_CHUNK)
        start = _PAGE + chunk * _CHUNK + at * _RECORD
        name = bytes(data[start : start + _NAME_BYTES]).rstrip(b"\0")
        if not name or start + _RECORD > len(data):  # the file was copied or cut while it grew
            return
        yield name.decode(errors="replace"), start + _NAME_BYTES


def read_slot(path: Path) -> Iterator[tuple[str, memoryview]]:
    """Every (name, words) of one slot file."""
    try:
        data = memoryview(path.read_bytes())
    except FileNotFoundError:
        return
    for name, start in records(data):
        yield name, data[start : start + _WORDS * 8].cast("Q")


def read_all(directory: Path, names: Iterable[str] | None = None) -> dict[str, Totals]:
    """Counters and histograms of every name (or of `names` only), added up over all slots."""
    wanted = None if names is None else set(names)
    totals: dict[str, Totals] = {}
    for path in sorted(directory.glob("*.stats")):
        for name, words in read_slot(path):
            if wanted is None or name in wanted:
                merge(totals.setdefault(name, Totals()), words)
    return totals


def worst_states(slots: Iterable[tuple[str, memoryview]]) -> dict[str, str]:
    """topic -> of its states in all these records the one to show."""
    index = _INDEX["state"]
    found: dict[str, int] = {}
    for name, words in slots:
        number = min(words[index], len(STATES) - 1)
        found[name] = min(found.get(name, number), number, key=_WORST_FIRST.index)
    return {name: STATES[number] for name, number in found.items()}


def merge(total: Totals, words: memoryview) -> None:
    """Add the words of one record."""
    n = len(COUNTERS)
    total.counters = [a + b for a, b in zip(total.counters, words[:n], strict=True)]
    for i, name in enumerate(HISTOGRAMS):
        base = n + i * _HISTOGRAM_WORDS
        if words[base + BUCKETS]:
            total.histograms[name].add(
                Histogram(list(words[base : base + BUCKETS]), words[base + BUCKETS], words[base + BUCKETS + 1])
            )
