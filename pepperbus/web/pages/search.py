"""Find a job: by id, trace, indexed field, topic, outcome or state, time, a word of its error or of its content. Floor 5."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, redirect, request

from pepperbus.operations import find, tail
from pepperbus.operations import jobs as listing
from pepperbus.operations.results import Event, EventPage
from pepperbus.operations.rights import Right, may
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.pages.jobs import SINCE, STATES

OUTCOMES = ("done", "retry", "dead", "back", "popped", "released", "replayed", "removed", "served", "fell back")
_SHOWN = 100
_WORDS = ("topic", "state", "since", "error", "text", "trace", "field")
_CHEAP_S = 30.0  # how often an open page that was asked for something asks again


def _build(desk: Desk, word: str) -> dict[str, Any]:
    given = {name: request.args.get(name, "").strip() for name in _WORDS}
    asked = bool(word) or any(given[name] for name in _WORDS)
    began = time.monotonic()
    page = EventPage([])
    if word:
        page = find.find(desk.office, word, _SHOWN)
    elif asked:
        page = _find(desk, given)
    return {
        "word": word,
        "by": page.by if isinstance(page, find.Finding) else "",
        "indexed": sorted({path for info in desk.status().queues for path in _index_of(desk, info.name)}),
        "given": given,
        "asked": asked,
        "page": page,
        "took_s": time.monotonic() - began,
        "outcomes": OUTCOMES,
        "states": STATES,
        "since": SINCE,
        "topics": sorted(topic.name for queue in desk.status().queues for topic in queue.topics),
        "replay": _replay(desk, given, page),
    }


def _replay(desk: Desk, given: dict[str, str], page: EventPage) -> dict[str, Any] | None:
    """What would be run again of what was found, when all of it is of one topic: all that matches, or these very jobs."""
    topics = {event.topic for event in page.events}
    if len(topics) != 1 or given["state"] not in ("", "dead", "done"):
        return None
    topic, state = topics.pop(), "done" if given["state"] == "done" else "dead"
    found = desk.office.config.topic(topic)
    if found is None or not may(desk.office, Right.OPERATE, topic):
        return None
    if state == "done" and not desk.office.config.queues[found.queue].history:
        return None
    if given["topic"] and not given["trace"] and not given["field"]:
        words = {"state": state, "since": given["since"], "text": given["text"]}
        return {"topic": topic, "words": words | ({"error": given["error"]} if state == "dead" else {})}
    ids = list(dict.fromkeys(event.id for event in page.events if event.outcome == state))
    return {"topic": topic, "words": {"state": state, "id": ids}} if ids else None


def _find(desk: Desk, given: dict[str, str]) -> EventPage:
    back = request.args.get("since", 0, int)
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
        field=given["field"],
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
        if word.isdigit() and len(word) == 20:
            return redirect(f"/jobs/{word}", 303)
        return _shown(desk, word)


def _shown(desk: Desk, word: str) -> Response:
    return frame.show("search.html", lambda: _build(desk, word), every=_CHEAP_S, shared=True)


def _index_of(desk: Desk, queue: str) -> tuple[str, ...]:
    return desk.base.config.queues[queue].index if queue in desk.base.config.queues else ()
