"""How is the business doing: what needs attention, the node's totals, one line a system. Floor 5."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Response, request

from pepperbus.operations.results import QueueStatus, Status, TopicStatus
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.formats import sparkline
from pepperbus.web.monitor import Monitor
from pepperbus.web.pages.attention import Matter, matters

_SHOWN = 8  # matters before "more"


@dataclass(slots=True)
class System:
    """What a system's queues add up to."""

    name: str
    queues: list[QueueStatus] = field(default_factory=list)
    spark_in: str = ""
    spark_out: str = ""
    spark_failed: str = ""
    failed_rate: float = 0.0

    @property
    def topics(self) -> list[TopicStatus]:
        return [topic for queue in self.queues for topic in queue.topics]

    def sum(self, what: str) -> float:
        return sum(getattr(topic, what) for topic in self.topics)

    @property
    def in_rate(self) -> float:
        return sum(queue.in_rate for queue in self.queues)

    @property
    def out_rate(self) -> float:
        return self.sum("out_rate")

    @property
    def backlog(self) -> int:
        return int(self.sum("ready") + self.sum("delayed"))

    @property
    def oldest_ms(self) -> int:
        return min((topic.oldest_ms for topic in self.topics if topic.oldest_ms and topic.ready), default=0)


def systems(status: Status, monitor: Monitor) -> list[System]:
    """Every system with what the last minute says of it; queues without one come last, under ""."""
    found: dict[str, System] = {}
    for queue in status.queues:
        found.setdefault(queue.system, System(queue.system)).queues.append(queue)
    for system in found.values():
        queues, topics = [q.name for q in system.queues], [t.name for t in system.topics]
        system.spark_in = sparkline(monitor.course(queues, "pushed"))
        system.spark_out = sparkline(monitor.course(topics, "done"))
        system.spark_failed = sparkline(monitor.course(topics, "failed"))
        system.failed_rate = sum(monitor.rate(topic, "failed", 60) for topic in topics)
    return sorted(found.values(), key=lambda system: (not system.name, system.name))


def _build(desk: Desk) -> dict[str, Any]:
    status, monitor = desk.status(), desk.monitor
    wanted = request.args.get("system")
    shown = [one for one in systems(status, monitor) if wanted is None or one.name == wanted]
    mine = {queue.name for system in shown for queue in system.queues}
    all_matters = [m for m in matters(status, monitor) if wanted is None or m.topic.partition("/")[0] in mine]
    everything = System("", [queue for system in shown for queue in system.queues])
    names = [topic.name for topic in everything.topics]
    return {
        "status": status,
        "systems": shown,
        "all_systems": sorted({queue.system for queue in status.queues if queue.system}),
        "wanted": wanted,
        "matters": all_matters[:_SHOWN] if not request.args.get("all") else all_matters,
        "more": max(0, len(all_matters) - _SHOWN) if not request.args.get("all") else 0,
        "total": everything,
        "spark_in": sparkline(monitor.course([queue.name for queue in everything.queues], "pushed")),
        "spark_out": sparkline(monitor.course(names, "done")),
        "failed": sum(monitor.rate(name, "failed", 60) for name in names) * 60,
        "per_harm": _per_harm(all_matters),
        "alive": sum(storage.alive for storage in status.storages),
        "ready": sum(process["state"] == "ready" for process in status.processes),
    }


def _per_harm(found: list[Matter]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for matter in found:
        counts[matter.harm] += 1
    return counts


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/")
    def overview() -> Response:
        return frame.show("overview.html", lambda: _build(desk), shared=True)
