"""What happened in the last minute: the counters every second, the histograms every five, each in a ring. Floor 5."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from time import monotonic

import gevent
import psutil
from gevent.lock import RLock

from pepperbus import stats
from pepperbus.config.model import Config
from pepperbus.counted import Reader
from pepperbus.log import Log
from pepperbus.operations.office import Office
from pepperbus.operations.paces import merged
from pepperbus.operations.results import Percentiles, Status
from pepperbus.operations.status import StatusReader, percentiles
from pepperbus.web.minute import SECONDS, Minute
from pepperbus.web.paces import Neighbours

_HISTOGRAM_EVERY = 5
_STATUS_AGE_S, _STALE_S = 1.0, 5.0
_BUSY_SHARE = 0.1  # of a core that sampling may take, whatever the number of topics

Totals = dict[str, stats.Totals]
_NOTHING = Percentiles(), Percentiles()


class Monitor:
    """The sidecar's memory of one minute. `run` samples for ever; the readers below never block on it."""

    def __init__(self, office: Office, log: Log) -> None:
        self._log = log
        self.totals: Totals = {}
        self._office = office
        self._systems: dict[str, str] = {}
        self._systems_of: Config | None = None
        self.minute = Minute()
        self._histograms: deque[Totals] = deque(maxlen=SECONDS // _HISTOGRAM_EVERY + 1)
        self._cpu: deque[tuple[float, float]] = deque(maxlen=11)
        self._ticks = 0
        self._chosen: dict[str, list[int]] = {}
        self._chosen_of: tuple[Mapping[str, list[int]], dict[str, str]] | None = None
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
        counts = self._counts()
        known = {name: total for name, total in self.totals.items() if counts.get(name) == total.counters}
        self.totals = {**known, **self._stats.totals(counts.keys() - known.keys())}

    def _counts(self) -> dict[str, list[int]]:
        """The counters of what is configured; the same object while nothing moves."""
        names, found = self.systems, self._stats.counters()
        if self._chosen_of is None or self._chosen_of[0] is not found or self._chosen_of[1] is not names:
            self._chosen_of = found, names
            self._chosen = {name: words for name, words in found.items() if name in names}
        return self._chosen

    def sample(self) -> None:
        """Remember how things are; called once a second. What did not move costs one comparison, and no memory."""
        counts = self._counts()
        moved = self.minute.remember(monotonic(), counts)
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

    @property
    def systems(self) -> dict[str, str]:
        """queue and queue/topic -> its system, "" for none; the same object as long as the configuration is the same."""
        config = self._office.config
        if self._systems_of is not config:
            named = {queue.name: queue.system for queue in config.queues.values()}
            named |= {
                topic.full_name: queue.system for queue in config.queues.values() for topic in queue.topics.values()
            }
            self._systems_of, self._systems = config, named
        return self._systems

    def cpu_percent(self) -> float:
        """How busy this machine was over the last ten samples, all cores together."""
        if len(self._cpu) < 2:
            return 0.0
        (total, idle), (was_total, was_idle) = self._cpu[-1], self._cpu[0]
        return max(0.0, 100.0 * (1 - (idle - was_idle) / max(total - was_total, 0.01)))

    def rate(self, name: str, counter: str, seconds: int = 10) -> float:
        """Per second, over the last `seconds`."""
        return self.minute.rate(name, counter, seconds)

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
        pushed, done = self.minute.rates("pushed"), self.minute.rates("done")
        for queue in status.queues:
            queue.in_rate = pushed.get(queue.name, 0.0)
            for topic in queue.topics:
                topic.in_rate = pushed.get(topic.name, 0.0)
                topic.out_rate = done.get(topic.name, 0.0)
