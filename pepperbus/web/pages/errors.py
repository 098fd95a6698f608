"""What fails: the same error of the same topic on one line, how often, since when, one job as an example. Floor 5."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, request

from pepperbus.operations import errors
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.formats import sparkline

SINCE = {3600: "1 h", 86400: "24 h", 7 * 86400: "7 d"}


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
    if words.get("sort") == "count":
        page.groups.sort(key=lambda group: -group.count)
    return {
        "page": page,
        "back": back,
        "ranges": SINCE,
        "trends": {group.key: sparkline([float(n) for n in group.trend], errors.TREND) for group in page.groups},
        "new_ms": int((time.time() - min(back / 8, 3600)) * 1000),
    }


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/errors")
    def errors_page() -> Response:
        return frame.show("errors.html", lambda: _build(desk), every=5.0)
