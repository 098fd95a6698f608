"""How the node is: queues with depths, rates and percentiles, processes, storages, and what is wrong, first things first.

Floor 4. Depths come from the storages, counts from the statistics files, processes from the master, the reasons of closed
targets from the workers. Each source may be away; the others are shown all the same.
"""

from __future__ import annotations

import time
from collections.abc import Container
from typing import Any

import gevent
import msgspec

from pepperbus import stats
from pepperbus.accounts.model import Right
from pepperbus.config.model import Queue, Topic
from pepperbus.counted import Reader
from pepperbus.errors import NotReachable, PepperbusError
from pepperbus.operations import scaling
from pepperbus.operations.office import Office
from pepperbus.operations.queues import target
from pepperbus.operations.results import (
    CanaryStatus,
    IntakeStatus,
    NodeStatus,
    Percentiles,
    QueueStatus,
    Status,
    StorageStatus,
    TopicStatus,
)
from pepperbus.operations.rights import may, operation
from pepperbus.storage import drains
from pepperbus.storage.contract import Depth
from pepperbus.worker.canary import counted_as

_AT_ONCE = 50
_SILENT_MS = 30_000  # signs of life come every five seconds
_LEVELS = ("memory", "process", "power")  # each survives what those before it survive
Totals = dict[str, stats.Totals]


class StatusReader:
    """Reads the status again and again; rates are those since the reading before (0 at the first)."""

    def __init__(self, office: Office, counted: Reader | None = None) -> None:
        self._office = office
        self._stats = counted or Reader(office.config.bus.run_dir / "stats")
        self._before: Totals = {}
        self._at = 0.0
        self._operations: dict[str, int] = {}  # of each storage, at the reading before
        self._staff: dict[str, list[dict[str, Any]]] = {}  # topic -> the processes of its command, of each worker
        self._intakes: dict[str, list[IntakeStatus]] = {}

    def read(self) -> Status:
        """The node now. Never raises for a part that is away: it is in `problems`."""
        office, config = self._office, self._office.config
        self._totals = self._read()
        now = time.monotonic()
        self._seconds = now - self._at if self._at else 0.0
        status = Status(config.bus.node, office.clock.now_ms(), running=True)
        self._reasons = self._ask_master(status)
        self._standing = scaling.read(config.bus.run_dir)
        view = _StorageView(office)
        states = self._stats.worker_states()
        for number, queue in enumerate(config.queues.values()):
            status.queues.append(self._queue(queue, view, states))
            if number % _AT_ONCE == 0:
                gevent.sleep(0)  # many queues take a while; others of this process have their turn
        status.storages = [health(office, name) for name in office.config.storages]
        view.errors.update({one.name: one.detail for one in status.storages if not one.alive})
        self._count_operations(status.storages)
        status.detached = view.detached()
        status.nodes = others(office, view.errors)
        self._before, self._at = self._totals, now
        status.problems += problems(status)
        return status

    def _read(self) -> Totals:
        """All counters and histograms; of what did not move since the reading before, the same objects."""
        counts = self._stats.counters()
        known = {name: total for name, total in self._before.items() if counts.get(name) == total.counters}
        return {**known, **self._stats.totals(counts.keys() - known.keys())}

    def _count_operations(self, storages: list[StorageStatus]) -> None:
        for storage in storages:
            before = self._operations.get(storage.name, storage.operations)
            if self._seconds and storage.operations > before:
                storage.ops_s = (storage.operations - before) / self._seconds
            self._operations[storage.name] = storage.operations

    def _ask_master(self, status: Status) -> dict[str, str]:
        """Fill in the processes; why a topic's target is closed, as its worker says."""
        try:
            answer = self._office.ask({"op": "status"})
            workers = self._office.ask({"op": "tell", "role": "worker", "command": {"op": "targets"}, "timeout": 2})
        except NotReachable as error:
            status.running = False
            status.problems.append(str(error))
            return {}
        status.processes = answer.pop("processes", [])
        status.master = answer
        self._intakes = self._ask_ticker()
        self._staff = {}
        for name, facts in (
            pair for one in workers.get("answers", {}).values() for pair in one.get("staff", {}).items()
        ):
            self._staff.setdefault(name, []).append(facts)
        told = [topics for one in workers.get("answers", {}).values() for topics in one.get("topics", {}).items()]
        return {name: facts["why"] for name, facts in told if facts.get("why") and facts.get("closed") != "open"}

    def _ask_ticker(self) -> dict[str, list[IntakeStatus]]:
        """How the intakes go, by queue; asked only when there are any."""
        if not any(queue.intakes for queue in self._office.config.queues.values()):
            return {}
        request = {"op": "tell", "role": "ticker", "command": {"op": "intakes"}, "timeout": 2}
        answers = self._office.ask(request).get("answers", {})
        found: dict[str, list[IntakeStatus]] = {}
        for facts in (one for answer in answers.values() for one in answer.get("intakes", ())):
            found.setdefault(facts.pop("queue"), []).append(IntakeStatus(**facts))
        return found

    def _queue(self, queue: Queue, view: _StorageView, states: dict[str, str]) -> QueueStatus:
        totals = self._totals.get(queue.name) or stats.Totals()
        return QueueStatus(
            queue.name,
            queue.system,
            queue.tags,
            queue.durability,
            totals["pushed"],
            totals["refused"],
            totals["unknown"],
            self._rate(queue.name, "pushed"),
            percentiles(totals.histograms["push"]),
            [self._topic(topic, view, states.get(topic.full_name, "idle")) for topic in queue.topics.values()],
            self._intakes.get(queue.name, []),
            "" if queue.closed == "no" else queue.closed,
            scaling.of_queue(queue, self._standing[1]),
        )

    def _topic(self, topic: Topic, view: _StorageView, state: str) -> TopicStatus:
        name = topic.full_name
        totals = self._totals.get(name) or stats.Totals()
        depth, paused, error = view.topic(topic)
        return TopicStatus(
            name,
            topic.storage,
            topic.run,
            target(topic),
            "paused" if paused else state,
            paused,
            *depth,
            pushed=totals["pushed"],
            popped=totals["popped"],
            done=totals["done"],
            failed=totals["failed"],
            retried=totals["retried"],
            died=totals["dead"],
            returned=totals["returned"],
            in_flight=totals["in_flight"],
            window=totals["window"],
            in_rate=self._rate(name, "pushed"),
            out_rate=self._rate(name, "done"),
            wait=percentiles(totals.histograms["wait"]),
            run_time=percentiles(totals.histograms["run"]),
            why=self._reasons.get(name, ""),
            error=error,
            standing=scaling.of_topic(topic, self._standing[0]),
            staff=self._staff.get(name, []),
            canary=self._canary(topic) if topic.canary else None,
            closed="" if topic.closed == "no" else topic.closed,
        )

    def _canary(self, topic: Topic) -> CanaryStatus:
        totals = self._totals.get(counted_as(topic.full_name)) or stats.Totals()
        done, failed = totals["done"], totals["failed"]
        share = topic.canary.share if topic.canary else 0.0
        run_time = percentiles(totals.histograms["run"])
        return CanaryStatus(target(topic.second()), share, done + failed, done, failed, run_time)

    def _rate(self, name: str, counter: str) -> float:
        now, before = self._totals.get(name), self._before.get(name)
        if now is None or now is before or not self._seconds:  # most of a thousand topics stand still
            return 0.0
        return max(now[counter] - (before[counter] if before else 0), 0) / self._seconds


class _StorageView:
    """Each storage asked once per reading, for all of its topics."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self.errors: dict[str, str] = {}
        self._told: dict[str, tuple[dict[str, Depth], set[str]]] = {}  # depths, and which topics are paused

    def topic(self, topic: Topic) -> tuple[Depth, bool, str]:
        name, full_name = topic.storage, topic.full_name
        if name not in self._told and name not in self.errors:
            try:
                self._told[name] = self._ask(name)
            except PepperbusError as error:
                self.errors[name] = str(error)
        if name in self.errors:
            return Depth(), topic.paused, self.errors[name]
        depths, paused = self._told[name]
        is_paused = topic.paused or full_name in paused
        try:
            depth = depths[full_name] if full_name in depths else self._office.storage(name).depth(full_name)
        except PepperbusError as error:  # of this one alone
            return Depth(), is_paused, str(error)
        return depth, is_paused, ""

    def _ask(self, name: str) -> tuple[dict[str, Depth], set[str]]:
        storage = self._office.storage(name)
        topics = [topic.full_name for topic in self._office.topics() if topic.storage == name]
        return storage.depths(topics), storage.paused()

    def detached(self) -> list[TopicStatus]:
        """Topics with jobs that the configuration does not put where they lie."""
        placed = {(topic.storage, topic.full_name) for topic in self._office.topics()}
        moving = drains.read(self._office.config.bus.data_dir).values()
        placed |= {(one.source, one.topic) for one in moving if one.state == "moving"}  # on their way, not forgotten
        found = []
        for name in self._office.config.storages:
            try:
                storage = self._office.storage(name)
                depths = storage.depths([topic for topic in storage.topics() if (name, topic) not in placed])
                found += [
                    TopicStatus(topic, name, "", "", "detached", False, *depth)
                    for topic, depth in depths.items()
                    if any(depth[:4])
                ]
            except PepperbusError:
                continue  # said in `storages` already
        return found


def health(office: Office, name: str) -> StorageStatus:
    """How a storage is; one that cannot be asked is not alive, and `detail` says why."""
    kind = office.config.storages[name].type
    try:
        storage = office.storage(name)
        began = time.monotonic()
        found = storage.health()
        return StorageStatus(name, kind, *found, latency_ms=(time.monotonic() - began) * 1000)
    except PepperbusError as error:
        return StorageStatus(name, kind, alive=False, detail=str(error))


def others(office: Office, away: Container[str] = ()) -> list[NodeStatus]:
    """The nodes that share a storage with this one, until they leave or have been silent for a day; alive if one storage
    says so. `away`: storages that do not answer.
    """
    heard: dict[str, dict[str, int]] = {}
    for name in (name for name in office.config.storages if name not in away):
        try:
            for node, age_ms in office.storage(name).nodes().items():
                heard.setdefault(node, {})[name] = age_ms
        except PepperbusError:
            continue  # said of the storage already
    heard.pop(office.config.bus.node, None)
    return [
        NodeStatus(node, min(ages.values()) < _SILENT_MS, min(ages.values()) / 1000, sorted(ages))
        for node, ages in sorted(heard.items())
    ]


@operation(Right.VIEW)
def visible(office: Office, status: Status) -> Status:
    """What of `status` the office's actor may see: its systems' queues, and the node's processes only with the node."""
    if may(office, Right.VIEW):
        return status
    queues = [queue for queue in status.queues if may(office, Right.VIEW, queue.name)]
    names = {name for queue in queues for name in (queue.name, *(topic.name for topic in queue.topics))}
    problems = [
        line for line in status.problems if line.startswith(("storage ", "the bus ")) or line.partition(":")[0] in names
    ]
    return msgspec.structs.replace(
        status,
        queues=queues,
        problems=problems,
        processes=[],
        detached=[],
        nodes=[],
        master={"ready": status.master.get("ready")},
    )


def percentiles(histogram: stats.Histogram) -> Percentiles:
    if not histogram.count:
        return Percentiles()
    return Percentiles(histogram.count, *(histogram.percentile(q) for q in (0.5, 0.9, 0.99)))


def problems(status: Status) -> list[str]:
    """What is wrong, one line each, the most harmful first."""
    found = [f"storage {s.name}: {s.detail or 'does not answer'}" for s in status.storages if not s.alive]
    if status.running and not status.master.get("ready"):
        found.append(f"the bus is {status.master.get('state', 'not ready')}")
    upgrade = status.master.get("upgrade", {})
    if upgrade.get("state") == "failed":
        found.append(f"upgrade {upgrade['number']} failed: {upgrade['reason']}")
    found += [
        f"process {process['name']}: {process['state']}: {process.get('reason') or 'no reason known'}"
        for process in status.processes
        if process["state"] == "failed" or (process["state"] == "waiting" and process.get("reason"))
    ]
    found += _not_durable(status)
    for topic in (topic for queue in status.queues for topic in queue.topics):
        if topic.state in ("stopped", "down", "probing"):
            why = f": {topic.why}" if topic.why else ""
            found.append(f"{topic.name}: its consumer ({topic.target}) is {topic.state}{why}; {topic.ready} waiting")
    found += [f"intake {q.name}/{one.name}: {one.error}" for q in status.queues for one in q.intakes if one.error]
    found += _restless(status)
    found += [f"{t.name}: in no queue's file, but {sum(_counts(t))} jobs lie in {t.storage}" for t in status.detached]
    return found


def _restless(status: Status) -> list[str]:
    """Commands whose processes end as soon as they are started."""
    staffs = [(t.name, staff) for queue in status.queues for t in queue.topics for staff in t.staff]
    return [
        f"{name}: its command does not stay alive: {staff['why']}; {staff['restarts']} restarts"
        for name, staff in staffs
        if staff["next_start_s"] > 0 and staff["why"]
    ]


def _not_durable(status: Status) -> list[str]:
    """Queues whose pushes are refused, because a storage gives less than they ask for."""
    given = {storage.name: storage.durability for storage in status.storages if storage.alive and storage.durability}
    return [
        f"{queue.name}: asks for durability = {queue.durability}, storage {name} gives {given[name]}: pushes are refused"
        for queue in status.queues
        for name in dict.fromkeys(topic.storage for topic in queue.topics)
        if name in given and queue.durability and _LEVELS.index(given[name]) < _LEVELS.index(queue.durability)
    ]


def _counts(topic: TopicStatus) -> tuple[int, ...]:
    return topic.ready, topic.delayed, topic.leased, topic.dead
