"""The status page: what is wrong, queues and topics, processes, storages. Rendered here, refreshed by static/live.js.

Floor 5.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from flask import Response, render_template

from pepperbus import __version__
from pepperbus.operations.results import Percentiles, QueueStatus, Status, TopicStatus
from pepperbus.web.desk import Desk
from pepperbus.web.monitor import Monitor

_WIDTH, _HEIGHT = 120.0, 28.0  # of a sparkline, in its own units


@dataclass(frozen=True, slots=True)
class TopicRow:
    """A topic with what the last minute says of it."""

    status: TopicStatus
    wait: Percentiles
    run: Percentiles
    spark: str


@dataclass(frozen=True, slots=True)
class QueueCard:
    status: QueueStatus
    push: Percentiles
    topics: list[TopicRow]


def render(desk: Desk) -> Response:
    """The page as it is now."""
    status = desk.monitor.status()
    cards = [_card(queue, desk.monitor) for queue in status.queues]
    if status.detached:
        rows = [TopicRow(topic, Percentiles(), Percentiles(), "") for topic in status.detached]
        cards.append(QueueCard(QueueStatus("detached"), Percentiles(), rows))
    names = [topic.name for queue in status.queues for topic in queue.topics]
    text = render_template(
        "status.html",
        status=status,
        cards=cards,
        totals=_totals(status),
        spark=sparkline(desk.monitor.course(names, "done")),
        version=__version__,
        count=count,
        rate=rate,
        size=size,
        span=span,
        clock=lambda ms: time.strftime("%H:%M:%S", time.localtime(ms / 1000)),
    )
    return Response(text, mimetype="text/html")


def _card(queue: QueueStatus, monitor: Monitor) -> QueueCard:
    rows = [
        TopicRow(
            topic,
            monitor.percentiles(topic.name, "wait"),
            monitor.percentiles(topic.name, "run"),
            sparkline(monitor.course([topic.name], "done")),
        )
        for topic in queue.topics
    ]
    return QueueCard(queue, monitor.percentiles(queue.name, "push"), rows)


def _totals(status: Status) -> dict[str, Any]:
    topics = [topic for queue in status.queues for topic in queue.topics]
    return {
        "in_rate": sum(queue.in_rate for queue in status.queues),
        "out_rate": sum(topic.out_rate for topic in topics),
        "waiting": sum(topic.ready + topic.delayed for topic in topics),
        "running": sum(topic.leased for topic in topics),
        "dead": sum(topic.dead for topic in topics) + sum(topic.dead for topic in status.detached),
    }


def sparkline(values: list[float]) -> str:
    """Points of a polyline, the newest at the right; "" while nothing happened."""
    top = max(values, default=0.0)
    if top <= 0:
        return ""
    step = _WIDTH / 59
    left = _WIDTH - step * (len(values) - 1)
    points = [(left + i * step, _HEIGHT - 1 - (_HEIGHT - 2) * value / top) for i, value in enumerate(values)]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def count(n: float) -> str:
    return f"{n:,.0f}".replace(",", "\u202f")


def rate(per_second: float) -> str:
    return f"{per_second:.1f}" if per_second < 100 else count(per_second)


def span(seconds: float) -> str:
    """A duration in the unit that fits."""
    if seconds <= 0:
        return "–"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (120.0, 1.0, "s"), (7200.0, 1 / 60, "min")):
        if seconds < limit:
            value = seconds * factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} d"


def size(n: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.0f} {unit}"
        n /= 1024
    return f"{n:.1f} GiB"
