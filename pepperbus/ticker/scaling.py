"""Moves what the configuration gives as a range: `concurrency`, `children` and `workers`. Floor 4.

Every few seconds, from the counters that are there anyway: a job costs nothing for it. The rule is `scale_rule`; here is
what it is shown, and how its word reaches the workers (a word in the topic's places) and the master (a request). What
stands, and why, is in run_dir/scaling.json, for pages and `status`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gevent
import psutil

from pepperbus import stats
from pepperbus.child import Child
from pepperbus.clock import Clock
from pepperbus.config.model import Config, FastcgiPool, Queue, Topic
from pepperbus.delivery import fpm_status
from pepperbus.delivery.scaled import ScaledSlots, topic_slots
from pepperbus.errors import NotReachable, StorageError
from pepperbus.names import SCALING
from pepperbus.storage.contract import Storage
from pepperbus.ticker import scale_rule
from pepperbus.ticker.scale_rule import Seen, Stand


@dataclass
class _Group:
    """A worker group whose number moves."""

    now: int
    calm: int = 0
    why: str = "begins low"


class Scaling:
    """`storages` are the ticker's open ones; `config` is asked at every look."""

    def __init__(
        self, child: Child, clock: Clock, storages: Mapping[str, Storage], config: Callable[[], Config]
    ) -> None:
        self._child = child
        self._clock = clock
        self._storages = storages
        self._config = config
        self._stands: dict[str, Stand] = {}
        self._slots: dict[tuple[str, int, int], ScaledSlots] = {}
        self._groups: dict[str, _Group] = {}
        self._before: dict[str, stats.Totals] = {}
        self._cpu: dict[int, float] = {}  # pid -> seconds it has used
        self._at = 0.0
        self._told = ""

    def look(self) -> None:
        """Once; the ticker calls it every scale_rule.LOOK_S. Raises NotReachable when the master does not answer."""
        config = self._config()
        topics = [topic for queue in config.queues.values() for topic in queue.topics.values()]
        topics = [topic for topic in topics if topic.scaled and config.consumes(topic)]
        groups = {name: queues for name, queues in config.groups().items() if _span(queues)[0] < _span(queues)[1]}
        if topics or groups:
            now = self._clock.monotonic()
            seconds, self._at = now - self._at, now
            fulls = self._ask_pools({topic.pool for topic in topics if topic.pool})
            totals = stats.read_all(config.bus.run_dir / "stats", [topic.full_name for topic in topics])
            for topic in topics:
                self._look_at(topic, totals.get(topic.full_name) or stats.Totals(), seconds, fulls.get(topic.pool, ""))
            self._before = totals
            self._look_at_groups(groups, seconds)
        self._forget({topic.full_name for topic in topics}, groups.keys())
        self._tell(topics, groups)

    # -- topics ----------------------------------------------------------------------------------------------------

    def _look_at(self, topic: Topic, now: stats.Totals, seconds: float, full: str) -> None:
        name = topic.full_name
        before = self._before.get(name)
        stand = self._stands.setdefault(name, Stand(topic.least))
        waiting = self._waiting(topic)
        if before is not None and waiting is not None:
            seen = _seen(topic, before, now, waiting, seconds, full, stand.limit)
            self._stands[name] = stand = scale_rule.step(stand, seen, topic.least, topic.concurrency, self._at)
        self._slots_of(topic).limit = stand.limit

    def _slots_of(self, topic: Topic) -> ScaledSlots:
        key = (topic.full_name, topic.least, topic.concurrency)
        if key not in self._slots:
            slots = topic_slots(topic, self._config().bus.run_dir / "targets" / self._child.bus_boot)
            assert isinstance(slots, ScaledSlots)
            self._slots[key] = slots
        return self._slots[key]

    def _waiting(self, topic: Topic) -> int | None:
        try:
            storage = self._storages.get(topic.storage)
            return storage.depth(topic.full_name).ready if storage else None
        except StorageError:
            return None

    def _ask_pools(self, names: set[str]) -> dict[str, str]:
        """pool -> what its php-fpm says of being full, "" when it is not or has no status page."""
        pools = self._config().pools
        asked = {name: gevent.spawn(_fullness, pools[name]) for name in names if pools[name].status}
        gevent.joinall(list(asked.values()))
        return {name: str(one.value or "") for name, one in asked.items()}

    # -- workers ---------------------------------------------------------------------------------------------------

    def _look_at_groups(self, groups: Mapping[str, list[Queue]], seconds: float) -> None:
        if not groups:
            return
        processes = self._child.ask_master({"op": "status"}).get("processes", [])
        cpu = {one["pid"]: _cpu_s(one["pid"]) for one in processes if one["role"] == "worker" and one["pid"]}
        free = (100.0 - psutil.cpu_percent(None)) / 100.0 * (os.cpu_count() or 1)
        for name, queues in groups.items():
            least, most = _span(queues)
            group = self._groups.setdefault(name, _Group(least))
            pids = [one["pid"] for one in processes if one.get("group") == name and one["pid"] in self._cpu]
            cores = sum(max(0.0, cpu[pid] - self._cpu[pid]) for pid in pids) / max(seconds, 0.1)
            topics = [topic for queue in queues for topic in queue.topics.values() if self._config().consumes(topic)]
            waiting = sum(self._waiting(topic) or 0 for topic in topics)
            group.now, group.calm, group.why = scale_rule.workers(
                group.now, least, most, waiting, cores, free, group.calm
            )
            self._child.ask_master({"op": "scale", "group": name, "workers": group.now})
        self._cpu = cpu

    # -- telling ---------------------------------------------------------------------------------------------------

    def _forget(self, topics: set[str], groups: Any) -> None:
        self._stands = {name: stand for name, stand in self._stands.items() if name in topics}
        self._groups = {name: group for name, group in self._groups.items() if name in groups}

    def _tell(self, topics: list[Topic], groups: Mapping[str, list[Queue]]) -> None:
        told: dict[str, Any] = {
            "topics": {
                topic.full_name: _shown(self._stands[topic.full_name], topic.least, topic.concurrency)
                for topic in topics
            },
            "groups": {
                name: {
                    "now": group.now,
                    "least": _span(groups[name])[0],
                    "most": _span(groups[name])[1],
                    "why": group.why,
                }
                for name, group in self._groups.items()
            },
        }
        text = json.dumps(told)
        if text == self._told or not (self._told or topics or groups):
            return
        file = self._config().bus.run_dir / SCALING
        new = file.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, file)
        self._told = text


def _shown(stand: Stand, least: int, most: int) -> dict[str, Any]:
    return {"now": stand.limit, "least": least, "most": most, "why": stand.why}


def _seen(
    topic: Topic, before: stats.Totals, now: stats.Totals, waiting: int, seconds: float, full: str, limit: int
) -> Seen:
    def grown(*counters: str) -> int:
        return sum(max(0, now[counter] - before[counter]) for counter in counters)

    if topic.kept:  # they take jobs by themselves: with a backlog all of them are taken to be at work
        return Seen(waiting, grown("popped") / seconds, busy=float(limit) if waiting else 0.0)
    rate = grown("done", "failed") / seconds
    runs = now.histograms["run"].minus(before.histograms["run"])
    run_s = runs.sum_micros / runs.count / 1e6 if runs.count else 0.0
    # Where nothing comes through at all, nobody is there: that says nothing of what the target stands.
    refused = grown("returned") if topic.run in ("fastcgi", "http") and (rate or now["in_flight"]) else 0
    return Seen(waiting, rate, run_s, max(float(now["in_flight"]), rate * run_s), refused, full)


def _span(queues: list[Queue]) -> tuple[int, int]:
    most = max(queue.workers for queue in queues)
    return min(most, max(queue.least_workers or queue.workers for queue in queues)), most


def _fullness(pool: FastcgiPool) -> str:
    try:
        page = fpm_status.of(pool)
    except NotReachable:
        return ""
    line = page.get("listen queue", 0)  # one that is about to be taken stands in it, too
    return f"php-fpm has no idle child, {line} wait in its line" if line > page.get("idle processes", 0) else ""


def _cpu_s(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except (psutil.Error, OSError):
        return 0.0
    return float(times.user + times.system)
