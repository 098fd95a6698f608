"""Every queue and topic in one table: how it is, how fast, how long until it is empty. Floor 5.

Filter, order and place stand in the address, so that a link says what its sender saw.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from pepperbus.accounts.model import Right
from pepperbus.operations.results import Percentiles, QueueStatus, TopicStatus
from pepperbus.web import frame, topics
from pepperbus.web.desk import Desk
from pepperbus.web.formats import cell, sparkline
from pepperbus.web.takes import TopicsQuery

PAGE = 50
_ALL = 1 << 31


@dataclass(slots=True)
class Row:
    """A topic in the table."""

    status: TopicStatus
    queue: QueueStatus
    wait: Percentiles
    run: Percentiles
    spark: str
    clear_s: float


def _asked(n: int) -> TopicsQuery:
    return msgspec.convert({**request.args.to_dict(), "n": n}, TopicsQuery)


def _build(desk: Desk) -> dict[str, Any]:
    query = _asked(PAGE)
    found = topics.page(desk, query)
    status = desk.status()
    return {
        "status": status,
        "rows": [_row(desk, topic, queue) for topic, queue in found.rows],
        "found": found,
        "systems": sorted({queue.system for queue in status.queues if queue.system}),
        "states": topics.STATES,
        "order": query.sort,
        "any": bool(status.queues),
        "never": topics.NEVER,
        "may_edit": desk.office.actor.may_somewhere(Right.ADMIN),
    }


def _row(desk: Desk, topic: TopicStatus, queue: QueueStatus) -> Row:
    wait, run = desk.monitor.percentiles(topic.name)
    spark = sparkline(desk.monitor.minute.course(topic.name, "done"))
    return Row(topic, queue, wait, run, spark, topics.clear_s(topic))


def _as_csv(desk: Desk) -> Response:
    """The whole selection, not only the page."""
    query = msgspec.structs.replace(_asked(_ALL), cursor="", before="")
    names = ("name", "state", "ready", "delayed", "leased", "dead", "in_rate", "out_rate", "done", "failed")
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["system", *names, "wait_p50_s", "wait_p99_s", "run_p50_s", "run_p99_s"])
    for topic, queue in topics.page(desk, query).rows:
        wait, run = desk.monitor.percentiles(topic.name)
        words = [cell(word) for word in (queue.system, topic.name, topic.state)]
        figures = [getattr(topic, name) for name in names[2:]]
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
