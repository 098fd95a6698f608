"""/metrics in Prometheus' text form. Floor 5.

Old names are literal: dashboards and alarms hang on them. Only topics of the current configuration have series, so a
removed topic's series disappear. Counters live in files that outlast every process, so they never go back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from time import monotonic

import gevent
import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from pepperbus import stats
from pepperbus.alarms.rules import RULES
from pepperbus.config.model import Topic
from pepperbus.errors import PepperbusError
from pepperbus.operations import alarms
from pepperbus.operations import jobs as listing
from pepperbus.operations.results import TopicStatus
from pepperbus.web import series
from pepperbus.web.desk import Desk

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_AT_ONCE = 20  # pieces
_SCAN_EVERY_S = 30.0


class Exposition:
    """What a scrape gets. One per sidecar: it remembers how many dead jobs are dead of old age."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._measured: list[tuple[Topic, stats.Totals]] = []
        self._timeouts: dict[str, tuple[int, float, int]] = {}

    def text(self) -> bytes:
        """One piece after the other: many topics take a while, and others of this process have their turn in between."""
        pieces: list[bytes] = []
        for number, piece in enumerate(self._pieces()):
            pieces.append(piece if isinstance(piece, bytes) else piece.encode())
            if number % _AT_ONCE == 0:
                gevent.sleep(0)
        return b"".join(pieces)

    def _pieces(self) -> Iterator[str | bytes]:
        self._desk.monitor.look()
        self._measured = [(topic, self._totals(topic.full_name)) for topic in self._desk.base.topics()]
        yield from self._counters()
        consumed = "Milliseconds from the start of an attempt to its answer."
        yield from series.summary("pepperbus_job_consume_milliseconds", consumed, self._consumed())
        wait, run = "From when a job was due to the start of an attempt.", "From the start of an attempt to its answer."
        yield from series.histogram("pepperbus_job_wait_seconds", wait, self._histograms("wait"))
        yield from series.histogram("pepperbus_job_run_seconds", run, self._histograms("run"))
        yield from self._lengths()
        yield from self._states()
        yield from map(_by_library, self._others())

    def _others(self) -> Iterator[Metric]:
        """Of which there are few."""
        yield from self._storages()
        yield self._alarms()
        cpu = self._desk.monitor.cpu_percent()
        yield GaugeMetricFamily("pepperbus_cpu_usage", "CPU of this machine in use, percent.", cpu)
        yield GaugeMetricFamily(
            "pepperbus_mem_usage", "Memory of this machine in use, percent.", psutil.virtual_memory().percent
        )
        yield GaugeMetricFamily("pepperbus_load_average", "Load of this machine, 1 minute.", os.getloadavg()[0])

    def _totals(self, name: str) -> stats.Totals:
        return self._desk.monitor.totals.get(name) or stats.Totals()

    def _counters(self) -> Iterator[str]:
        added = ((name, "", self._totals(name)["pushed"]) for name in self._desk.base.config.queues)
        yield from series.values("pepperbus_queue_add_count", "untyped", "Jobs accepted.", added)
        for metric, counter, text in (
            ("pepperbus_job_success_count", "done", "Jobs done."),
            ("pepperbus_job_fail_count", "failed", "Attempts that failed."),
        ):
            lines = ((topic.queue, topic.name, totals[counter]) for topic, totals in self._measured)
            yield from series.values(metric, "untyped", text, lines)

    def _consumed(self) -> Iterator[tuple[str, str, stats.Histogram, stats.Histogram]]:
        """For the old summary: what was measured in the last minute, and since the bus started."""
        for topic, totals in self._measured:
            recent = self._desk.monitor.last_minute(topic.full_name, "run")
            yield topic.queue, topic.name, recent, totals.histograms["run"]

    def _histograms(self, which: str) -> series.Series:
        return ((topic.queue, topic.name, totals.histograms[which]) for topic, totals in self._measured)

    def _answered(self) -> list[tuple[str, str, TopicStatus]]:
        """The topics whose storage answered: no number is better than a wrong one."""
        queues = self._desk.monitor.status().queues
        return [(queue.name, _own(one), one) for queue in queues for one in queue.topics if not one.error]

    def _lengths(self) -> Iterator[str]:
        found = [(queue, name, one, self._aged(one)) for queue, name, one in self._answered()]
        for metric, text, lines in (
            ("length", "Jobs ready or with a worker.", [(q, n, t.ready + t.leased) for q, n, t, _ in found]),
            (
                "retry_length",
                "Jobs delayed, or dead of failures.",
                [(q, n, t.delayed + t.dead - a) for q, n, t, a in found],
            ),
            ("timeout_length", "Jobs dead of max_age.", [(q, n, a) for q, n, _, a in found]),
        ):
            yield from series.values(f"pepperbus_topic_{metric}", "gauge", text, lines)

    def _states(self) -> Iterator[str]:
        """What etc/prometheus/pepperbus.rules.yml watches beside the old names."""
        status, found = self._desk.monitor.status(), self._answered()
        dead = ((queue, name, one.dead) for queue, name, one in found)
        yield from series.values("pepperbus_topic_dead", "gauge", "Dead jobs: they wait for a decision.", dead)
        ages = ((queue, name, _age_s(one, status.at_ms)) for queue, name, one in found)
        yield from series.values("pepperbus_topic_oldest_seconds", "gauge", "Age of the oldest waiting job.", ages)
        every = ((queue.name, one) for queue in status.queues for one in queue.topics)
        down = ((queue, _own(one), one.state in ("stopped", "down", "probing")) for queue, one in every)
        yield from series.values("pepperbus_consumer_down", "gauge", "1: the topic's consumer takes nothing.", down)

    def _storages(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("pepperbus_storage_up", "1: the storage answers.", labels=["storage"])
        used = GaugeMetricFamily("pepperbus_storage_used_bytes", "What is used of it.", labels=["storage"])
        limit = GaugeMetricFamily(
            "pepperbus_storage_limit_bytes", "What it can hold; none if unknown.", labels=["storage"]
        )
        for storage in self._desk.monitor.status().storages:
            up.add_metric([storage.name], storage.alive)
            if storage.alive:
                used.add_metric([storage.name], storage.used)
            if storage.alive and storage.limit:
                limit.add_metric([storage.name], storage.limit)
        yield from (up, used, limit)

    def _alarms(self) -> Metric:
        family = GaugeMetricFamily("pepperbus_alarms_open", "What the bus' own alarms say is wrong.", labels=["rule"])
        try:
            found = alarms.count(self._desk.itself)
        except PepperbusError:
            return family  # no number is better than a wrong one
        for rule in RULES:
            family.add_metric([rule], found[rule])
        return family

    def _aged(self, topic: TopicStatus) -> int:
        """Dead jobs whose reason is max_age: looked through again only when their number changed, and not often."""
        dead, at, aged = self._timeouts.get(topic.name, (0, 0.0, 0))
        if topic.dead == 0:
            return 0
        if topic.dead != dead and monotonic() - at > _SCAN_EVERY_S:
            try:
                page = listing.jobs(self._desk.itself, listing.select(topic.name, (), "dead", "max_age:"), n=10_000)
            except PepperbusError:
                return min(aged, topic.dead)
            aged = sum(job.reason.startswith("max_age:") for job in page.jobs)
            self._timeouts[topic.name] = (topic.dead, monotonic(), aged)
        return min(aged, topic.dead)


def _own(topic: TopicStatus) -> str:
    return topic.name.partition("/")[2]


def _age_s(topic: TopicStatus, now_ms: int) -> float:
    return max(0.0, (now_ms - topic.oldest_ms) / 1000) if topic.ready and topic.oldest_ms else 0.0


def _by_library(family: Metric) -> bytes:
    """Its text, as the client library makes it."""
    return generate_latest(_One(family))


class _One(CollectorRegistry):
    """A registry that holds one family."""

    def __init__(self, family: Metric) -> None:
        super().__init__()
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family
