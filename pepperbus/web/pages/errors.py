"""What fails: the same error of the same topic on one line, how often, since when, one job as an example. Floor 5."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, request

from pepperbus.operations import deploys, errors, marks
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.formats import sparkline
from pepperbus.web.pages.answers import did
from pepperbus.web.pages.topic import told
from pepperbus.web.portion import portion
from pepperbus.web.words import _

SINCE = {3600: "1 h", 86400: "24 h", 7 * 86400: "7 d"}
PAGE = 100


def _build(desk: Desk) -> dict[str, Any]:
    words = request.args
    back = words.get("since", 86400, int)
    back = back if back in SINCE else 86400
    since_ms = int((time.time() - back) * 1000)
    page = errors.groups(desk.office, words.get("topic", ""), since_ms, words.get("error", ""))
    status = desk.status()
    if system := words.get("system"):
        mine = {queue.name for queue in status.queues if queue.system == ("" if system == "-" else system)}
        page.groups = [group for group in page.groups if group.topic.partition("/")[0] in mine]
    resolved = sum(group.state == "resolved" for group in page.groups)
    if not words.get("resolved"):
        page.groups = [group for group in page.groups if group.state != "resolved"]
    new_ms, since_what = _new_since(desk, back)
    new = sum(group.state == "open" and group.first_ms > new_ms for group in page.groups)
    if words.get("new"):
        page.groups = [group for group in page.groups if group.state == "open" and group.first_ms > new_ms]
    by = (lambda group: group.count) if words.get("sort") == "count" else (lambda group: group.last_ms)
    placed = [((-float(by(group)), group.topic, group.key), group) for group in page.groups]
    found = portion(placed, PAGE, words.get("cursor", ""), words.get("before", ""))
    page.groups = found.rows
    return {
        "page": page,
        "found": found,
        "resolved": resolved,
        "systems": {queue.name: queue.system for queue in status.queues},
        "back": back,
        "ranges": SINCE,
        "trends": {
            group.key: sparkline([float(n) for n in group.trend], max(2, len(group.trend))) for group in page.groups
        },
        "new_ms": new_ms,
        "new": new,
        "since_what": since_what,
    }


def _new_since(desk: Desk, back: int) -> tuple[int, str]:
    """From when on an error counts as new, and what was then: the last deployment in this time, or of late."""
    now_ms = int(time.time() * 1000)
    found = [mark for mark in deploys.marks(desk.office, now_ms - back * 1000) if mark.kind in ("mark", "upgrade")]
    if found:
        return found[-1].at_ms, told(found[-1])
    return now_ms - int(min(back / 8, 3600)) * 1000, ""


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/errors")
    def errors_page() -> Response:
        return frame.show("errors.html", lambda: _build(desk), every=5.0, shared=True)

    @pages.post("/errors/<queue>/<topic>/<key>/<state>")
    def errors_mark(queue: str, topic: str, key: str, state: str) -> Response:
        marks.mark(desk.office, f"{queue}/{topic}", key, state)
        return did(_("The error is now: {state}", state=_(state)), "/errors")
