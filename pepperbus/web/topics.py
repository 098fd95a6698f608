"""The topics that somebody asks for, filtered and in an order: behind the page of queues, its CSV and the API's list. Floor 5.

A figure that the order goes by is that of the moment of asking; rows with the same figure stand by name. What a page after
page reader is promised says portion.py.
"""

from __future__ import annotations

from collections.abc import Callable

from pepperbus.errors import UsageError
from pepperbus.operations.results import QueueStatus, TopicStatus
from pepperbus.web.desk import Desk
from pepperbus.web.portion import Portion, portion
from pepperbus.web.takes import TopicsQuery

STATES = ("idle", "feeding", "paused", "probing", "stopped", "down", "detached")
NEVER = float("inf")
_SOON_S = 10.0
_PLACES = {state: float(number) for number, state in enumerate(STATES)}

Pair = tuple[TopicStatus, QueueStatus]


def clear_s(topic: TopicStatus) -> float:
    """Until it is empty at the speed of now; infinite when it grows or stands."""
    if not topic.ready:
        return 0.0
    if topic.ready <= topic.out_rate * _SOON_S:  # so few are no backlog: as many come as go
        return topic.ready / topic.out_rate
    speed = topic.out_rate - topic.in_rate
    return topic.ready / speed if speed > 0 else NEVER


#: What each order goes by; `name` by nothing but the name.
_FIGURES: dict[str, Callable[[TopicStatus], float]] = {
    "name": lambda topic: 0.0,
    "state": lambda topic: _PLACES.get(topic.state, 0.0),
    "waiting": lambda topic: topic.ready,
    "delayed": lambda topic: topic.delayed,
    "running": lambda topic: topic.leased,
    "dead": lambda topic: topic.dead,
    "in": lambda topic: topic.in_rate,
    "out": lambda topic: topic.out_rate,
    "clear": clear_s,
    "oldest": lambda topic: -topic.oldest_ms if topic.oldest_ms else -NEVER,
}
_MEASURED = ("wait", "run")
ORDERS = (*_FIGURES, *_MEASURED)


def page(desk: Desk, query: TopicsQuery) -> Portion[Pair]:
    """What `query` asks for, `query.n` of it. Raises UsageError for an order or a place that does not exist."""
    order, falling = query.sort.removeprefix("-"), query.sort.startswith("-")
    figure = _figure(desk, order)
    sign = -1.0 if falling and order != "name" else 1.0  # also from the highest figure down names go from a to z
    placed = (((sign * figure(pair[0]), *_words(pair[0])), pair) for pair in _found(desk, query))
    return portion(placed, query.n, query.cursor, query.before, falling and order == "name")


def _figure(desk: Desk, order: str) -> Callable[[TopicStatus], float]:
    if order in _MEASURED:
        which = _MEASURED.index(order)
        return lambda topic: desk.monitor.percentiles(topic.name)[which].p99_s
    if order not in _FIGURES:
        raise UsageError(f"sort: {order[:40]!r} must be one of {', '.join(ORDERS)}, or one of them behind a -")
    return _FIGURES[order]


def _words(topic: TopicStatus) -> tuple[str, str]:
    """A topic that lies in another storage too is there a second time."""
    return topic.name, topic.storage


def _found(desk: Desk, query: TopicsQuery) -> list[Pair]:
    """Those the filter lets through."""
    status = desk.status()
    pairs = [(topic, queue) for queue in status.queues for topic in queue.topics]
    pairs += [(topic, QueueStatus(topic.name.partition("/")[0])) for topic in status.detached]
    if system := query.system:
        pairs = [pair for pair in pairs if pair[1].system == ("" if system == "-" else system)]
    if storage := query.storage:
        pairs = [pair for pair in pairs if pair[0].storage == storage]
    if pool := query.pool:
        fed = {topic.full_name for topic in desk.base.topics() if topic.pool == pool}
        pairs = [pair for pair in pairs if pair[0].name in fed]
    if text := query.q.strip().lower():
        pairs = [pair for pair in pairs if text in pair[0].name.lower() or text in pair[0].target.lower()]
    if state := query.state:
        pairs = [pair for pair in pairs if _is(pair[0], state)]
    return pairs


def _is(topic: TopicStatus, state: str) -> bool:
    match state:
        case "waiting":
            return topic.ready > 0
        case "with-dead":
            return topic.dead > 0
        case "trouble":
            return topic.state in ("stopped", "down", "probing", "detached") or bool(topic.error)
        case _:
            return topic.state == state
