"""What the systems of this node did in the last minute, as one part of all nodes'. Floor 5."""

from __future__ import annotations

from collections.abc import Collection

import gevent

from pepperbus import stats
from pepperbus.nodes.paces import Pace
from pepperbus.operations.nodes import silent
from pepperbus.operations.results import QueueStatus
from pepperbus.operations.systems import Answer, Figures, SystemPart
from pepperbus.web.desk import Desk
from pepperbus.web.monitor import Monitor

_AT_ONCE = 50


def parts(monitor: Monitor, only: Collection[str] | None = None) -> list[SystemPart]:
    """Each system of this node, or `only` these; "" is that of queues without one."""
    status = monitor.status()
    shared = {name for node in status.nodes for name in node.storages}
    failed = monitor.minute.rates("failed", 60)
    found: dict[str, SystemPart] = {}
    for number, queue in enumerate(status.queues):
        if number % _AT_ONCE == 0:
            gevent.sleep(0)  # histograms of many topics take a while; others have their turn
        if only is None or queue.system in only:
            part = found.setdefault(queue.system, SystemPart(queue.system, Figures(), Pace({}, {})))
            _add(part, queue, shared, failed, monitor)
    return list(found.values())


def _add(
    part: SystemPart, queue: QueueStatus, shared: Collection[str], failed: dict[str, float], monitor: Monitor
) -> None:
    figures = part.figures
    figures.queues += 1
    figures.in_rate += queue.in_rate
    for topic in queue.topics:
        figures.out_rate += topic.out_rate
        figures.failed_rate += failed.get(topic.name, 0.0)
        figures.in_flight += topic.in_flight
        if topic.storage not in shared:
            figures.waiting += topic.ready + topic.delayed
        for which, found in monitor.own(topic.name).items():
            if found.count:
                _sum(getattr(part.pace, which), found)


def _sum(sparse: dict[int, int], found: stats.Histogram) -> None:
    for bucket, n in enumerate(found.buckets):
        if n:
            sparse[bucket] = sparse.get(bucket, 0) + n


def answers(desk: Desk, first_s: float = 0.0, only: Collection[str] | None = None) -> list[Answer]:
    """This node's part, then what the others told; those that are silent are named. `first_s`: for the first answers."""
    others = desk.monitor.status().nodes
    told = desk.neighbourhood.systems(others, first_s)
    found = [Answer(desk.base.config.bus.node, parts(desk.monitor, only))]
    for node in others:
        if node.name in told:
            one = told[node.name]
            found.append(Answer(node.name, one.value.systems if one.value else None, one.age_s, one.error))
        else:
            found.append(Answer(node.name, None, node.silent_s, silent(node.name)))
    return found
