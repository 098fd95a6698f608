"""What happened in the last minute: the counters every second, the histograms every five, each in a ring. Floor 5."""

from __future__ import annotations

import itertools
from collections import deque
from time import monotonic

import gevent
import psutil
from gevent.lock import RLock

from pepperbus import stats
from pepperbus.log import Log
from pepperbus.operations.office import Office
from pepperbus.operations.results import Percentiles, Status
from pepperbus.operations.status import StatusReader, percentiles

SECONDS = 60
_HISTOGRAM_EVERY = 5
_STATUS_AGE_S = 1.0
_BUSY_SHARE = 0.1  # of a core that sampling may take, whatever the number of topics

Totals = dict[str, stats.Totals]
Counts = dict[str, list[int]]
_INDEX = {name: i for i, name in enumerate(stats.COUNTERS)}


class Monitor:
    """The sidecar's memory of one minute. `run` samples for ever; the readers below never block on it."""

    def __init__(self, office: Office, log: Log) -> None:
        self._log = log
        self.totals: Totals = {}
        self._office = office
        self._counts: deque[tuple[float, Counts]] = deque(maxlen=SECONDS + 1)
        self._histograms: deque[Totals] = deque(maxlen=SECONDS // _HISTOGRAM_EVERY + 1)
        self._cpu: deque[tuple[float, float]] = deque(maxlen=11)
        self._ticks = 0
        self._reader = StatusReader(office)
        self._status: Status | None = None
        self._status_at = 0.0
        self._reading = RLock()

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
        """Read the counters now, between two samples."""
        names = {topic.full_name for topic in self._office.topics()} | self._office.config.queues.keys()
        self.totals = stats.read_all(self._office.config.bus.run_dir / "stats", names)

    def sample(self) -> None:
        """Remember how things are; called once a second."""
        self.look()
        self._counts.append((monotonic(), {name: total.counters for name, total in self.totals.items()}))
        times = psutil.cpu_times()
        self._cpu.append((sum(times), times.idle + getattr(times, "iowait", 0.0)))
        if self._ticks % _HISTOGRAM_EVERY == 0:
            self._histograms.append(self.totals)
        self._ticks += 1

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
        samples = list(self._counts)
        return [
            sum(_grown(before, after, name, counter) for name in names) / max(at - was, 0.001)
            for (was, before), (at, after) in itertools.pairwise(samples)
        ]

    def last_minute(self, name: str, histogram: str) -> stats.Histogram:
        """What was measured in the last minute (since the start, while that is younger)."""
        now = self.totals.get(name)
        if now is None:
            return stats.Histogram()
        before = self._histograms[0].get(name) if self._histograms else None
        found = now.histograms[histogram]
        return found.minus(before.histograms[histogram]) if before else found

    def percentiles(self, name: str, histogram: str) -> Percentiles:
        return percentiles(self.last_minute(name, histogram))

    def status(self) -> Status:
        """The node, at most a second old, with the rates of the last ten seconds."""
        with self._reading:
            if self._status is None or monotonic() - self._status_at > _STATUS_AGE_S:
                self._status = self._reader.read()
                self._status_at = monotonic()
                self._set_rates(self._status)
            return self._status

    def forget(self) -> None:
        """Somebody changed something: the next look is a fresh one."""
        self._status_at = 0.0

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
