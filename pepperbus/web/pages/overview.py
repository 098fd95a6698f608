"""How is the business doing: what needs attention, the node's totals, one line a system, opened one a node. Floor 5."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from pepperbus.operations import systems as operations
from pepperbus.operations.results import QueueStatus, Status
from pepperbus.operations.systems import SystemOnNode
from pepperbus.web import frame
from pepperbus.web import systems as parts
from pepperbus.web.desk import Desk
from pepperbus.web.minute import Course
from pepperbus.web.monitor import Monitor
from pepperbus.web.pages.attention import Matter, matters

_SHOWN = 8  # matters before "more"


@dataclass(slots=True)
class System:
    """What a system's queues add up to."""

    name: str
    course: Course
    queues: int = 0
    in_rate: float = 0.0
    out_rate: float = 0.0
    backlog: int = 0
    leased: int = 0
    dead: int = 0
    oldest_ms: int = 0

    def add(self, queue: QueueStatus) -> None:
        self.queues += 1
        self.in_rate += queue.in_rate
        for topic in queue.topics:
            self.out_rate += topic.out_rate
            self.backlog += topic.ready + topic.delayed
            self.leased += topic.leased
            self.dead += topic.dead
            if topic.ready:
                self._waits(topic.oldest_ms)

    def _waits(self, since_ms: int) -> None:
        if since_ms and (not self.oldest_ms or since_ms < self.oldest_ms):
            self.oldest_ms = since_ms


def systems(status: Status, monitor: Monitor) -> list[System]:
    """Every system with what the last minute says of it; queues without one come last, under ""."""
    courses = monitor.minute.by_system(monitor.systems)
    found: dict[str, System] = {}
    for queue in status.queues:
        system = found.get(queue.system)
        if system is None:
            system = found[queue.system] = System(queue.system, courses.get(queue.system) or Course())
        system.add(queue)
    return sorted(found.values(), key=lambda system: (not system.name, system.name))


def _build(desk: Desk) -> dict[str, Any]:
    status, monitor = desk.status(), desk.monitor
    wanted = request.args.get("system")
    shown = [one for one in systems(status, monitor) if wanted is None or one.name == wanted]
    mine = {queue.name for queue in status.queues if queue.system == wanted}
    all_matters = [
        m for m in matters(status, monitor, desk.stuck) if wanted is None or m.topic.partition("/")[0] in mine
    ]
    return {
        "status": status,
        "systems": shown,
        "all_systems": sorted({queue.system for queue in status.queues if queue.system}),
        "wanted": wanted,
        "has_others": bool(monitor.status().nodes),
        "opened": _opened(desk),
        "toggled": _toggled,
        "matters": all_matters[:_SHOWN] if not request.args.get("all") else all_matters,
        "more": max(0, len(all_matters) - _SHOWN) if not request.args.get("all") else 0,
        "total": _total(shown),
        "per_harm": _per_harm(all_matters),
        "alive": sum(storage.alive for storage in status.storages),
        "ready": sum(process["state"] == "ready" for process in status.processes),
    }


def _opened(desk: Desk) -> dict[str, list[SystemOnNode]]:
    """Of the systems that stand in the address, what each node does. Nothing is asked of anybody while none does."""
    names = _names()
    if not names or not desk.monitor.status().nodes:
        return {}
    found: dict[str, list[SystemOnNode]] = {}
    for line in operations.by_node(desk.office, parts.answers(desk, only=names), names):
        found.setdefault(line.system, []).append(line)
    return found


def _names() -> list[str]:
    """`open=shop&open=-`: the systems whose lines are open; `-` is the line of queues without one."""
    return ["" if name == "-" else name for name in request.args.getlist("open")]


def _toggled(system: str) -> str:
    """This page with that system's line open, or closed if it is open."""
    names = [name for name in _names() if name != system] if system in _names() else [*_names(), system]
    words = [pair for pair in request.args.items(multi=True) if pair[0] != "open"]
    query = urlencode([*words, *(("open", name or "-") for name in names)])
    return "/?" + query if query else "/"


def _total(shown: list[System]) -> System:
    """All of them as one."""
    columns = {
        what: [sum(one) for one in zip(*(getattr(system.course, what) for system in shown), strict=True)]
        for what in ("pushed", "done", "failed")
    }
    course = Course(**columns, failed_rate=sum(system.course.failed_rate for system in shown))
    total = System("", course)
    for system in shown:
        for what in ("queues", "in_rate", "out_rate", "backlog", "leased", "dead"):
            setattr(total, what, getattr(total, what) + getattr(system, what))
    return total


def _per_harm(found: list[Matter]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for matter in found:
        counts[matter.harm] += 1
    return counts


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/")
    def overview() -> Response:
        return frame.show("overview.html", lambda: _build(desk), shared=True)
