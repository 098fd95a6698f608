"""Find a job: by its id, its trace, a topic, an outcome or state, a time, a word of its error or of its content. Floor 5."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, redirect, request

from pepperbus.operations import jobs as listing
from pepperbus.operations import tail
from pepperbus.operations.results import Event, EventPage
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.pages.jobs import SINCE, STATES

OUTCOMES = ("done", "retry", "dead", "back", "popped", "released", "replayed", "removed")
_SHOWN = 100
_WORDS = ("topic", "state", "since", "error", "text", "trace")


def _build(desk: Desk) -> dict[str, Any]:
    given = {name: request.args.get(name, "").strip() for name in _WORDS}
    asked = any(given[name] for name in _WORDS)
    began = time.monotonic()
    page = _find(desk, given) if asked else EventPage([])
    return {
        "given": given,
        "asked": asked,
        "page": page,
        "took_s": time.monotonic() - began,
        "outcomes": OUTCOMES,
        "states": STATES,
        "since": SINCE,
        "topics": sorted(topic.name for queue in desk.status().queues for topic in queue.topics),
    }


def _find(desk: Desk, given: dict[str, str]) -> EventPage:
    back = int(given["since"] or 0)
    since_ms = int((time.time() - back) * 1000) if back else 0
    if given["state"] in ("ready", "delayed", "leased") and given["topic"]:
        return _lying(desk, given, since_ms)
    return tail.history(
        desk.office,
        topic=given["topic"],
        outcome=given["state"],
        since_ms=since_ms,
        error=given["error"],
        text=given["text"],
        trace=given["trace"],
        limit=_SHOWN,
    )


def _lying(desk: Desk, given: dict[str, str], since_ms: int) -> EventPage:
    """Jobs that have not run yet are in no journal: look where they lie."""
    selection = listing.select(given["topic"], (), given["state"], given["error"], since_ms)
    page = listing.jobs(desk.office, selection, "", _SHOWN)
    found = [
        Event(job.state, job.id, job.topic, job.accepted_ms, job.attempts, reason=job.reason, content=job.content)
        for job in page.jobs
        if given["text"] in job.content and given["trace"] in job.trace
    ]
    return EventPage(found, not page.cursor)


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/search")
    def search() -> Any:
        word = request.args.get("q", "").strip()
        if word.isdigit() and 15 <= len(word) <= 20:
            return redirect(f"/jobs/{word}", 303)
        if word:
            return redirect(f"/search?text={word}", 303)
        return _shown(desk)


def _shown(desk: Desk) -> Response:
    return frame.show("search.html", lambda: _build(desk), shared=True)
