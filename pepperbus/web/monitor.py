"""What happened in the last minute: the counters every second, the histograms every five, each in a ring. Floor 5."""

from __future__ import annotations

from collections import deque
from time import monotonic

import gevent
import psutil
from gevent.lock import RLock

from pepperbus import stats
from pepperbus.counted import Reader
from pepperbus.log import Log
from pepperbus.operations.office import Office
from pepperbus.operations.paces import merged
from pepperbus.operations.results import Percentiles, Status
from pepperbus.operations.status import StatusReader, percentiles
from pepperbus.web.paces import Neighbours

SECONDS = 60
_HISTOGRAM_EVERY = 5
_STATUS_AGE_S, _STALE_S = 1.0, 5.0
_BUSY_SHARE = 0.1  # of a core that sampling may take, whatever the number of topics

Totals = dict[str, stats.Totals]
Counts = dict[str, list[int]]
_NOTHING = Percentiles(), Percentiles()
_INDEX = {name: i for i, name in enumerate(stats.COUNTERS)}


class Monitor:
    """The sidecar's memory of one minute. `run` samples for ever; the readers below never block on it."""

    def __init__(self, office: Office, log: Log) -> None:
        self._log = log
        self.totals: Totals = {}
        self._office = office
        self._counts: deque[tuple[float, Counts]] = deque(maxlen=SECONDS + 1)
        self._grown: deque[tuple[float, Counts]] = deque(maxlen=SECONDS)  # seconds it took, what moved and by how much
        self._histograms: deque[Totals] = deque(maxlen=SECONDS // _HISTOGRAM_EVERY + 1)
        self._cpu: deque[tuple[float, float]] = deque(maxlen=11)
        self._ticks = 0
        self._stats = Reader(office.config.bus.run_dir / "stats")
        self._reader = StatusReader(office, self._stats)
        self.neighbours = Neighbours(office)
        self._status: Status | None = None
        self._status_at = -_STALE_S
        self._status_took = 0.0
        self._reading = RLock()
        self._config = office.config
        self._looking = False

    def run(self) -> None:
        while True:
            began = monotonic()
            try:
                self.sample()
            except Exception as error:  # one bad look must not end the others
                self._log.error("chore_failed", f"{type(error).__name__}: {error}", chore="sample")
            took = monotonic() - began
            gevent.sleep(max(1.0 - took, took / _BUSY_SHARE))

    def look(self) -> None:
        """Read all counters and histograms now, between two samples. What did not move stays the same object."""
        names = self._names()
        counts = {name: words for name, words in self._stats.counters().items() if name in names}
        known = {name: total for name, total in self.totals.items() if counts.get(name) == total.counters}
        self.totals = {**known, **self._stats.totals(counts.keys() - known.keys())}

    def sample(self) -> None:
        """Remember how things are; called once a second. What did not move costs one comparison, and no memory."""
        names = self._names()
        counts = {name: words for name, words in self._stats.counters().items() if name in names}
        moved = self._remember(counts)
        if self._ticks == 0:
            self.look()
        elif moved or len(self.totals) > len(counts):
            known = {name: total for name, total in self.totals.items() if name in counts}
            self.totals = {**known, **self._stats.totals(moved)}
        times = psutil.cpu_times()
        self._cpu.append((sum(times), times.idle + getattr(times, "iowait", 0.0)))
        if self._ticks % _HISTOGRAM_EVERY == 0:
            self._histograms.append(self.totals)
        self._ticks += 1

    def _names(self) -> set[str]:
        return {topic.full_name for topic in self._office.topics()} | self._office.config.queues.keys()

    def _remember(self, counts: Counts) -> set[str]:
        """Keep the counters and how they grew; the names that moved."""
        now = monotonic()
        moved: set[str] = set()
        if self._counts:
            then, before = self._counts[-1]
            moved = {name for name, words in counts.items() if before.get(name) != words}
            nothing = [0] * len(stats.COUNTERS)
            grown = {
                name: [max(a - b, 0) for a, b in zip(counts[name], before.get(name, nothing), strict=True)]
                for name in moved
            }
            self._grown.append((max(now - then, 0.001), grown))
            counts = {name: words if name in moved else before[name] for name, words in counts.items()}
        self._counts.append((now, counts))
        return moved

    def cpu_percent(self) -> float:
        """How busy this machine was over the last ten samples, all cores together."""
        if len(self._cpu) < 2:
            return 0.0
        (total, idle), (was_total, was_idle) = self._cpu[-1], self._cpu[0]
        return max(0.0, 100.0 * (1 - (idle - was_idle) / max(total - was_total, 0.01)))

    def rate(self, name: str, counter: str, seconds: int = 10) -> float:
        """Per second, over the last `seconds`."""
        if len(self._counts) < 2:
            return 0.0
        now, counts = self._counts[-1]
        then, before = self._counts[max(0, len(self._counts) - 1 - seconds)]
        return _grown(before, counts, name, counter) / max(now - then, 0.001)

    def course(self, names: list[str], counter: str) -> list[float]:
        """Per second, for each second of the last minute, oldest first; all names added up."""
        wanted, i = set(names), _INDEX[counter]
        return [
            sum(words[i] for name, words in grown.items() if name in wanted) / seconds for seconds, grown in self._grown
        ]

    def last_minute(self, name: str, histogram: str) -> stats.Histogram:
        """What was measured in the last minute (since the start, while that is younger)."""
        now = self.totals.get(name)
        if now is None:
            return stats.Histogram()
        before = self._histograms[0].get(name) if self._histograms else None
        if before is now:
            return stats.Histogram()
        found = now.histograms[histogram]
        if before and before.histograms[histogram].count == found.count:
            return stats.Histogram()
        return found.minus(before.histograms[histogram]) if before else found

    def own(self, name: str) -> dict[str, stats.Histogram]:
        """What this node measured in the last minute."""
        return {which: self.last_minute(name, which) for which in ("wait", "run")}

    def percentiles(self, name: str) -> tuple[Percentiles, Percentiles]:
        """How long the jobs of `queue/topic` waited and ran in the last minute, on all nodes together."""
        others = self.neighbours.of(name).values()
        if not others and self._histograms and self._histograms[0].get(name) is self.totals.get(name):
            return _NOTHING  # most of a thousand topics stand still
        own = self.own(name)
        return percentiles(merged(own, others, "wait")), percentiles(merged(own, others, "run"))

    def status(self) -> Status:
        """The node with the rates of the last ten seconds.

        A look takes long where there are many topics, so what is at most 5 s old is given at once, and the next look
        is taken behind the answer.
        """
        age = monotonic() - self._status_at
        if self._status is None or age > _STALE_S or self._config is not self._office.config:
            return self._read(self._status_at)
        if age > max(_STATUS_AGE_S, self._status_took / _BUSY_SHARE) and not self._looking:
            self._looking = True
            gevent.spawn(self._read, self._status_at)
        return self._status

    def _read(self, known_at: float) -> Status:
        with self._reading:
            if (
                self._status is None or self._status_at <= known_at or self._config is not self._office.config
            ):  # nobody was quicker
                self._config = self._office.config
                began = monotonic()
                try:
                    status = self._reader.read()
                finally:
                    self._looking = False
                    self._status_took = monotonic() - began
                self._set_rates(status)
                self._status, self._status_at = status, monotonic()
            return self._status

    def forget(self) -> None:
        """Somebody changed something: the next look is a fresh one."""
        self._status_at = -_STALE_S

    def _set_rates(self, status: Status) -> None:
        for queue in status.queues:
            queue.in_rate = self.rate(queue.name, "pushed")
            for topic in queue.topics:
                topic.in_rate = self.rate(topic.name, "pushed")
                topic.out_rate = self.rate(topic.name, "done")


def _grown(before: Counts, after: Counts, name: str, counter: str) -> int:
    if name not in after:
        return 0
    i = _INDEX[counter]
    was = before[name][i] if name in before else 0
    return max(after[name][i] - was, 0)
