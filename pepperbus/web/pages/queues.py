"""Every queue and topic in one table: how it is, how fast, how long until it is empty. Floor 5.

Filter, order and page stand in the address, so that a link says what its sender saw.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request

from pepperbus.accounts.model import Right
from pepperbus.operations.results import Percentiles, QueueStatus, TopicStatus
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.formats import cell, sparkline
from pepperbus.web.monitor import Monitor

PAGE = 50
STATES = ("idle", "feeding", "paused", "probing", "stopped", "down", "detached")
_NEVER = float("inf")
_SOON_S = 10.0


@dataclass(slots=True)
class Row:
    """A topic in the table; what costs something is filled in for the rows of the page only."""

    status: TopicStatus
    queue: QueueStatus
    wait: Percentiles | None = None
    run: Percentiles | None = None
    spark: str = ""

    @property
    def clear_s(self) -> float:
        """Until it is empty at the speed of now; infinite when it grows or stands."""
        return clear_s(self.status)


def clear_s(topic: TopicStatus) -> float:
    if not topic.ready:
        return 0.0
    if topic.ready <= topic.out_rate * _SOON_S:  # so few are no backlog: as many come as go
        return topic.ready / topic.out_rate
    speed = topic.out_rate - topic.in_rate
    return topic.ready / speed if speed > 0 else _NEVER


_ORDERS: dict[str, Callable[[Row], Any]] = {
    "name": lambda row: row.status.name,
    "state": lambda row: STATES.index(row.status.state) if row.status.state in STATES else 0,
    "waiting": lambda row: row.status.ready,
    "delayed": lambda row: row.status.delayed,
    "running": lambda row: row.status.leased,
    "dead": lambda row: row.status.dead,
    "in": lambda row: row.status.in_rate,
    "out": lambda row: row.status.out_rate,
    "clear": lambda row: row.clear_s,
    "oldest": lambda row: -row.status.oldest_ms if row.status.oldest_ms else -_NEVER,
    "wait": lambda row: row.wait.p99_s if row.wait else 0.0,
    "run": lambda row: row.run.p99_s if row.run else 0.0,
}


def _rows(desk: Desk) -> list[Row]:
    """Those the filter lets through, in the order asked for."""
    status, words = desk.status(), request.args
    rows = [Row(topic, queue) for queue in status.queues for topic in queue.topics]
    rows += [Row(topic, QueueStatus(topic.name.partition("/")[0])) for topic in status.detached]
    if system := words.get("system"):
        rows = [row for row in rows if row.queue.system == ("" if system == "-" else system)]
    if storage := words.get("storage"):
        rows = [row for row in rows if row.status.storage == storage]
    if pool := words.get("pool"):
        fed = {topic.full_name for topic in desk.base.topics() if topic.pool == pool}
        rows = [row for row in rows if row.status.name in fed]
    if text := words.get("q", "").strip().lower():
        rows = [row for row in rows if text in row.status.name.lower() or text in row.status.target.lower()]
    if state := words.get("state"):
        rows = [row for row in rows if _is(row.status, state)]
    order = words.get("sort", "name")
    key = _ORDERS.get(order.lstrip("-"), _ORDERS["name"])
    if order.lstrip("-") in ("wait", "run"):
        _measure(rows, desk.monitor)
    return sorted(rows, key=key, reverse=order.startswith("-"))


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


def _measure(rows: list[Row], monitor: Monitor) -> None:
    for row in rows:
        row.wait, row.run = monitor.percentiles(row.status.name)


def _build(desk: Desk) -> dict[str, Any]:
    rows = _rows(desk)
    page = max(1, request.args.get("page", 1, int))
    shown = rows[(page - 1) * PAGE : page * PAGE]
    _measure(shown, desk.monitor)
    for row in shown:
        row.spark = sparkline(desk.monitor.minute.course(row.status.name, "done"))
    status = desk.status()
    return {
        "status": status,
        "rows": shown,
        "found": len(rows),
        "page": page,
        "pages": max(1, -(-len(rows) // PAGE)),
        "systems": sorted({queue.system for queue in status.queues if queue.system}),
        "states": STATES,
        "order": request.args.get("sort", "name"),
        "any": bool(status.queues),
        "never": _NEVER,
        "may_edit": desk.office.actor.may_somewhere(Right.ADMIN),
    }


def _as_csv(desk: Desk) -> Response:
    """The whole selection, not only the page."""
    rows = _rows(desk)
    _measure(rows, desk.monitor)
    names = ("name", "state", "ready", "delayed", "leased", "dead", "in_rate", "out_rate", "done", "failed")
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["system", *names, "wait_p50_s", "wait_p99_s", "run_p50_s", "run_p99_s"])
    for row in rows:
        wait, run = row.wait or Percentiles(), row.run or Percentiles()
        words = [cell(word) for word in (row.queue.system, row.status.name, row.status.state)]
        figures = [getattr(row.status, name) for name in names[2:]]
        table.writerow([*words, *figures, wait.p50_s, wait.p99_s, run.p50_s, run.p99_s])
    response = Response(text.getvalue(), mimetype="text/csv")
    response.headers["Content-Disposition"] = "attachment; filename=queues.csv"
    return response


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/queues")
    def queues() -> Response:
        return frame.show("queues.html", lambda: _build(desk), shared=True)

    @pages.get("/queues.csv")
    def queues_csv() -> Response:
        return _as_csv(desk)
