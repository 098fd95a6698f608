"""Measures what the rules of [alarms] are about: one look at storages, counters and other nodes. Floor 4.

What cannot be known at the moment is said as None, never as a good or a bad value: a storage that is away makes no topic
look empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gevent

from pepperbus.accounts.aside import aside
from pepperbus.alarms.board import Key, Measure
from pepperbus.alarms.rules import RULES, About, limit
from pepperbus.alarms.window import Window
from pepperbus.config.alarm_settings import Limit
from pepperbus.config.model import Config, Topic
from pepperbus.counted import Reader
from pepperbus.errors import NotReachable, StorageError
from pepperbus.journal import growth
from pepperbus.storage.contract import Depth, Storage

#: A node that has not said for this long that it lives is silent. Signs of life come every five seconds.
SILENT_MS = 20_000
_DOWN = ("stopped", "down", "probing")
_AT_ONCE = 50
_TIMED = {"wait_p99": "wait", "run_p99": "run"}
_LYING = ("backlog", "oldest", "dead")
#: Workers that were just born have not tried their consumers yet.
_SETTLED_S = 15.0
_FOR_EVER_S = 10 * 365 * 86_400.0
Measures = dict[Key, Measure]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is watched of one topic."""

    topic: Topic
    system: str
    limits: dict[str, Limit]
    fed: bool


class Watch:
    """One node's look at everything. `ask`: the master's answers, for why a consumer is down."""

    def __init__(
        self,
        config: Callable[[], Config],
        storages: Mapping[str, Storage],
        ask: Callable[[dict[str, Any]], dict[str, Any]],
        late: Callable[[], Mapping[str, float]],
        now: float,
    ) -> None:
        self._config = config
        self._storages = storages
        self._ask = ask
        self._late = late
        self._began = now
        self._planned: Config | None = None
        self._plans: list[_Plan] = []
        self._window = Window(0.0)
        self._stats = Reader(config().bus.run_dir / "stats")
        self._empty_at: dict[str, float] = {}
        self._reckoned_at = -growth.EVERY_S
        self._per_day: dict[str, float | None] = {}  # how fast each storage fills, in bytes

    def look(self, now: float, now_ms: int) -> Measures:
        """Everything that is watched. `now`: monotonic s."""
        self._plan()
        found: Measures = {}
        found.update(self._lying(now, now_ms))
        found.update(self._attempts(now))
        found.update(self._consumers(now))
        found.update(self._storage_health(now, now_ms))
        found.update(self._nodes())
        found.update(self._schedules())
        return found

    def _plan(self) -> None:
        config = self._config()
        if config is self._planned:
            return
        self._planned = config
        rules = [rule.name for rule in RULES.values() if rule.about is About.TOPIC]
        self._plans = []
        for queue in config.queues.values():
            for topic in queue.topics.values():
                limits = {rule: found for rule in rules if not (found := limit(config, rule, topic)).off}
                self._plans.append(_Plan(topic, queue.system, limits, config.consumes(topic)))
        if self._window.length_s != config.alarms.window:
            self._window = Window(config.alarms.window)

    # -- what lies in the topics -----------------------------------------------------------------------------------

    def _lying(self, now: float, now_ms: int) -> Iterator[tuple[Key, Measure]]:
        watched = [(plan, rules) for plan in self._plans if (rules := [rule for rule in _LYING if rule in plan.limits])]
        depths = self._depths(plan.topic for plan, _ in watched)
        for number, (plan, wanted) in enumerate(watched):
            depth = depths.get(plan.topic.full_name)
            values = self._values(plan.topic.full_name, depth, now, now_ms) if depth else {}
            for rule in wanted:
                yield self._measure(plan, rule, values.get(rule))
            if number % _AT_ONCE == 0:
                gevent.sleep(0)

    def _depths(self, topics: Iterable[Topic]) -> dict[str, Depth]:
        """Those that their storages tell."""
        asked: dict[str, list[str]] = {}
        for topic in topics:
            asked.setdefault(topic.storage, []).append(topic.full_name)
        found: dict[str, Depth] = {}
        for name in asked.keys() & self._storages.keys():
            try:
                found.update(self._storages[name].depths(asked[name]))
            except StorageError:
                continue
        return found

    def _values(self, name: str, depth: Depth, now: float, now_ms: int) -> dict[str, float]:
        """A job that became due has not waited since it was accepted: never longer than since the line was empty."""
        if not depth.ready:
            self._empty_at[name] = now
        age = max(0.0, (now_ms - depth.oldest_ms) / 1000) if depth.ready and depth.oldest_ms else 0.0
        if name in self._empty_at:
            age = min(age, now - self._empty_at[name])
        return {"backlog": float(depth.ready), "oldest": age, "dead": float(depth.dead)}

    @staticmethod
    def _measure(
        plan: _Plan, rule: str, value: float | None, detail: str = "", firm: bool = True
    ) -> tuple[Key, Measure]:
        storage = plan.topic.storage if RULES[rule].common else ""
        key = (rule, plan.topic.full_name)
        return key, Measure(plan.limits[rule], value, plan.system, detail, firm, storage)

    # -- attempts --------------------------------------------------------------------------------------------------

    def _attempts(self, now: float) -> Iterator[tuple[Key, Measure]]:
        """Failures and percentiles of this node's own attempts."""
        rules = ("failures", *_TIMED)
        plans = [plan for plan in self._plans if plan.fed and plan.limits.keys() & set(rules)]
        if not plans:
            return
        counts = self._stats.counters()
        timed = {plan.topic.full_name for plan in plans if plan.limits.keys() & _TIMED.keys()}
        moved = self._window.moved(counts) & timed
        self._window.add(now, counts, self._stats.totals(moved) if moved else {})
        least, whole = self._config().alarms.least, self._window.is_whole(now)
        for plan in plans:
            name = plan.topic.full_name
            if "failures" in plan.limits:
                n, failed = self._window.attempts(name)
                yield self._measure(plan, "failures", _known(failed / n if n else 0.0, n, whole), firm=n >= least)
            for rule, which in _TIMED.items():
                if rule in plan.limits:
                    seconds, n = self._window.percentile(name, which, 0.99)
                    yield self._measure(plan, rule, _known(seconds, n, whole), firm=n >= least)

    def _consumers(self, now: float) -> Iterator[tuple[Key, Measure]]:
        plans = [plan for plan in self._plans if plan.fed and "consumer_down" in plan.limits]
        states = self._stats.worker_states() if plans else {}
        bad = {plan.topic.full_name for plan in plans if states.get(plan.topic.full_name) in _DOWN}
        why = self._reasons() if bad else {}
        settled = now - self._began > _SETTLED_S
        for plan in plans:
            name = plan.topic.full_name
            value = 1.0 if name in bad else 0.0 if settled and name in states else None
            yield self._measure(plan, "consumer_down", value, why.get(name, ""))

    def _reasons(self) -> dict[str, str]:
        try:
            told = self._ask({"op": "tell", "role": "worker", "command": {"op": "targets"}, "timeout": 2})
        except NotReachable:
            return {}
        topics = [one for answer in told.get("answers", {}).values() for one in answer.get("topics", {}).items()]
        return {name: facts["why"] for name, facts in topics if facts.get("why")}

    # -- storages and nodes ----------------------------------------------------------------------------------------

    def _storage_health(self, now: float, now_ms: int) -> Iterator[tuple[Key, Measure]]:
        config = self._config()
        limits = {rule: limit(config, rule) for rule in ("storage_down", "storage_full", "storage_left")}
        for name in dict.fromkeys(plan.topic.storage for plan in self._plans):
            storage = self._storages.get(name)
            health = storage.health() if storage is not None else None
            alive = health is not None and health.alive
            values: dict[str, float | None] = {"storage_down": 0.0 if alive else 1.0}
            if health is not None and alive:
                values["storage_full"] = health.used / health.limit if health.limit else None
                if not limits["storage_left"].off:
                    values["storage_left"] = self._left_s(name, health.used, health.limit, now, now_ms)
            detail = health.detail if health is not None and not alive else ""
            for rule, found in limits.items():
                if not found.off:
                    common = name if RULES[rule].common else ""
                    yield (rule, name), Measure(found, values.get(rule), detail=detail, storage=common)

    def _left_s(self, name: str, used: int, most: int, now: float, now_ms: int) -> float | None:
        """Seconds until it is full at the speed of the last days; None: too little is known to say."""
        if now - self._reckoned_at >= growth.EVERY_S / 3:
            self._reckoned_at = now
            known = aside(lambda: growth.read(self._config().bus.data_dir))
            self._per_day = {one: growth.per_day(fills, now_ms) for one, fills in known.items()}
        speed = self._per_day.get(name)
        if speed is None or not most:
            return None
        return min(max(most - used, 0) / speed * 86_400, _FOR_EVER_S) if speed > 0 else _FOR_EVER_S

    def _nodes(self) -> Iterator[tuple[Key, Measure]]:
        """Other nodes, as the storages that we share with them know them: silent only if all of them say so."""
        config = self._config()
        found = limit(config, "node_down")
        if found.off:
            return
        ages: dict[str, tuple[int, str]] = {}
        for name, storage in list(self._storages.items()):
            try:
                for node, age_ms in storage.nodes().items():
                    if node not in ages or age_ms < ages[node][0]:
                        ages[node] = age_ms, name
            except StorageError:
                continue
        for node, (age_ms, name) in ages.items():
            if node != config.bus.node:
                yield ("node_down", node), Measure(found, float(age_ms > SILENT_MS), storage=name)

    def _schedules(self) -> Iterator[tuple[Key, Measure]]:
        """`late`: queue/name of every schedule -> by how many seconds its last due run is late."""
        config = self._config()
        for name, seconds in self._late().items():
            queue = config.queues.get(name.partition("/")[0])
            topic = next(iter(queue.topics.values())) if queue else None
            found = limit(config, "schedule_missed", topic)
            if queue and topic and not found.off:
                yield ("schedule_missed", name), Measure(found, seconds, queue.system, storage=topic.storage)


def _known(value: float, n: int, whole: bool) -> float | None:
    """A window in which nothing happened says so only when it reaches back over its whole length."""
    return value if n else 0.0 if whole else None
