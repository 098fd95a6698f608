"""Samples the counters every second and hands blocks and minutes to `journal.samples`. Floor 4.

Only names that moved cost anything but one comparison; looking takes a bounded share of the process, whatever the number
of topics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gevent

from pepperbus import stats
from pepperbus.config.model import Config
from pepperbus.counted import Reader
from pepperbus.errors import PepperbusError
from pepperbus.journal import samples
from pepperbus.journal.samples import BLOCK_S, COUNTED, MINUTE_S, Sample
from pepperbus.storage.contract import Storage

MAX_BYTES = 1 << 30
_BUSY_SHARE = 0.1
_INDEX = [stats.COUNTERS.index(name) for name in COUNTED]
_LIVE = [stats.COUNTERS.index(name) for name in ("in_flight", "window")]
InThread = Callable[..., None]
Rows = list[tuple[str, Sample]]


class History:
    """The sampler of one node."""

    def __init__(
        self,
        config: Callable[[], Config],
        storages: Mapping[str, Storage],
        in_thread: InThread,
        tell: Callable[[Rows], None],
    ) -> None:
        """`tell` hears of each block when it is over."""
        self._config = config
        self._tell = tell
        self._storages = storages
        self._in_thread = in_thread
        self._stats = Reader(config().bus.run_dir / "stats")
        self._before: Mapping[str, list[int]] = {}
        self._histograms: dict[str, stats.Totals] = {}
        self._seconds: dict[str, dict[int, list[int]]] = {}
        self._gauges: dict[str, list[int]] = {}
        self._minute: dict[str, Sample] = {}
        self._block = self._minute_at = 0

    @property
    def database(self) -> Path:
        return self._config().bus.data_dir / "history.db"

    def run(self, log: Any) -> None:
        """Sample for ever; a look that fails is said and the next one is taken."""
        while True:
            began = time.monotonic()
            try:
                self.look(int(time.time()))
            except Exception as error:
                log.error("chore_failed", f"{type(error).__name__}: {error}", chore="history")
            took = time.monotonic() - began
            gevent.sleep(max(1.0 - time.time() % 1.0, took / _BUSY_SHARE))

    def look(self, now_s: int) -> None:
        """Read the counters; when a block is over, write it."""
        if not self._block:
            self._begin(now_s)
            return
        counts = self._stats.counters()
        at = now_s - now_s % BLOCK_S
        if at != self._block:
            self._end_block(counts)
            self._block = at
        for name, words in counts.items() if counts is not self._before else ():
            before = self._before.get(name)
            if words != before:
                grown = [max(words[i] - (before[i] if before else 0), 0) for i in _INDEX]
                second = self._seconds.setdefault(name, {}).setdefault(now_s - at, [0] * len(COUNTED))
                for i, n in enumerate(grown):
                    second[i] += n
        self._before = counts

    def _begin(self, now_s: int) -> None:
        """What was counted before is not ours to date."""
        self._before = self._stats.counters()
        self._histograms = self._stats.totals(name for name, words in self._before.items() if any(words))
        self._block, self._minute_at = now_s - now_s % BLOCK_S, now_s - now_s % MINUTE_S
        self._in_thread(self._resume)

    def _resume(self) -> None:
        """The minute that a ticker before us began."""
        self._minute = samples.stretch(self.database, MINUTE_S, self._minute_at)

    def _end_block(self, counts: Mapping[str, list[int]]) -> None:
        rows = [("", Sample([0] * len(COUNTED), [0] * len(samples.GAUGES)))]
        moved = set(self._seconds)
        totals = self._stats.totals(moved) if moved else {}
        gauges = self._depths(moved, counts)
        for name in sorted(moved | {name for name in gauges if gauges[name] != self._gauges.get(name)}):
            seconds = [self._seconds.get(name, {}).get(i, []) for i in range(BLOCK_S)]
            counted = [sum(column) for column in zip(*(s for s in seconds if s), strict=True)] or [0] * len(COUNTED)
            sample = Sample(counted, gauges.get(name, [0] * len(samples.GAUGES)), seconds)
            if name in totals:
                sample.wait, sample.run = (self._since(name, totals[name], which) for which in ("wait", "run"))
                self._histograms[name] = totals[name]
            rows.append((name, sample))
        self._gauges, self._seconds = gauges, {}
        self._in_thread(samples.write, self.database, BLOCK_S, self._block, rows)
        self._gather(rows)
        self._tell(rows)

    def _gather(self, rows: Rows) -> None:
        """Add the block to its minute; the minute so far is written each time, so that a restart costs ten seconds."""
        minute = self._block - self._block % MINUTE_S
        if minute != self._minute_at:
            self._minute, self._minute_at = {}, minute
            self._in_thread(samples.retain, self.database, self._block, MAX_BYTES)
        for name, sample in rows:
            if name in self._minute:
                self._minute[name].add(sample)
            else:
                self._minute[name] = Sample(sample.counts, sample.gauges, [], dict(sample.wait), dict(sample.run))
        changed = [(name, self._minute[name]) for name, _ in rows]
        self._in_thread(samples.write, self.database, MINUTE_S, minute, changed)

    def _since(self, name: str, now: stats.Totals, which: str) -> dict[int, int]:
        before = self._histograms.get(name)
        histogram = now.histograms[which]
        if before and before.histograms[which].count == histogram.count:
            return {}  # only a gauge moved
        grown = histogram.minus(before.histograms[which]) if before else histogram
        return {bucket: n for bucket, n in enumerate(grown.buckets) if n}

    def _depths(self, moved: set[str], counts: Mapping[str, list[int]]) -> dict[str, list[int]]:
        """How the topics stand that moved or still hold something; a storage that does not answer leaves them as known."""
        wanted: dict[str, list[str]] = {}
        for queue in self._config().queues.values():
            for topic in queue.topics.values():
                name = topic.full_name
                known = self._gauges.get(name)
                if topic.storage in self._storages and (name in moved or known is None or any(known)):
                    wanted.setdefault(topic.storage, []).append(name)
        found: dict[str, list[int]] = {}
        now_ms = time.time() * 1000
        for place, names in wanted.items():
            try:
                depths = self._storages[place].depths(names)
            except PepperbusError:
                continue
            for name, depth in depths.items():
                age = max(0, int((now_ms - depth.oldest_ms) / 1000)) if depth.oldest_ms and depth.ready else 0
                live = [counts[name][i] for i in _LIVE] if name in counts else [0, 0]
                found[name] = [depth.ready, depth.delayed, depth.leased, depth.dead, age, *live]
        return {**self._gauges, **found}
