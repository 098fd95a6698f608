"""Jobs as they lie in a topic, and what one can do with some or all of them: replay, delete. Floor 5.

A selection is what the address says; a dialog counts it before anything happens.
"""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, request

from pepperbus.errors import UsageError
from pepperbus.operations import jobs as listing
from pepperbus.operations import purge, replays
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.formats import count
from pepperbus.web.pages.answers import did, fragment
from pepperbus.web.pages.topic import find
from pepperbus.web.words import _

STATES = ("ready", "delayed", "leased", "dead")
SINCE = {0: "any time", 3600: "last hour", 86400: "last 24 h", 7 * 86400: "last 7 days"}
_PAGE = 50


def _state() -> str:
    state = request.values.get("state", "")
    return state if state in STATES else "dead"


def _selection(name: str) -> listing.Selection:
    """What the address or the form selects: the ids ticked, or all that match."""
    words = request.values
    ids = tuple(words.getlist("id"))
    back = words.get("since", 0, int)
    since_ms = int((time.time() - back) * 1000) if back and not ids else 0
    return listing.select(name, ids, _state(), "" if ids else words.get("error", ""), since_ms)


def _build(desk: Desk, name: str) -> dict[str, Any]:
    queue, topic = find(desk, name)
    page = listing.jobs(desk.office, _selection(name), request.args.get("cursor", ""), _PAGE)
    counts = {"ready": topic.ready, "delayed": topic.delayed, "leased": topic.leased, "dead": topic.dead}
    return {"queue": queue, "topic": topic, "page": page, "state": _state(), "counts": counts, "since": SINCE}


def _ask(desk: Desk, name: str, deed: str) -> Response:
    """The dialog: how many it is about, and the numbers one may choose."""
    find(desk, name)
    if deed == "replay":
        plan = replays.plan(desk.office, _wish(name), dry_run=True)
        matched, estimate_s, more = plan.matched, plan.estimate_s, plan.more
    else:
        matched, estimate_s, more = purge.purge(desk.office, _selection(name), dry_run=True).matched, 0.0, False
    known = desk.office.config.topic(name)
    form = {key: request.values.getlist(key) for key in ("id", "state", "error", "since", "text")}
    return fragment(
        "dialogs/jobs.html",
        topic=name,
        deed=deed,
        given=form,
        state=_state(),
        matched=matched,
        more=more,
        estimate_s=estimate_s,
        canary=str(known.canary or "") if known else "",
    )


def _wish(name: str) -> replays.Wish:
    """The same for a replay."""
    words, chosen = request.values, _selection(name)
    ids = tuple(str(one) for one in chosen.ids)
    state = "done" if request.values.get("state") == "done" else _state()
    return replays.wish(name, ids, state, chosen.error, chosen.since_ms, "" if ids else words.get("text", ""))


def _share(text: str) -> float:
    try:
        return float(text.strip().rstrip("%") or 100) / 100
    except ValueError as error:
        raise UsageError(_("a share is a number of percent, not {given}", given=text)) from error


def _rate(text: str) -> float:
    """Jobs a second; 0 for none said. Never a typing mistake taken for "no limit"."""
    try:
        return float(text.strip().removesuffix("/s") or 0)
    except ValueError as error:
        raise UsageError(_("a rate is a number of jobs a second, such as 50, not {given}", given=text)) from error


def _replay(desk: Desk, name: str) -> Response:
    """Plan it as the form says, begin, and show it."""
    words = request.form
    made = replays.plan(
        desk.office,
        _wish(name),
        sample=_share(words.get("sample", "")),
        gray=words.get("gray", ""),
        canary=bool(words.get("canary")),
        rate=_rate(words.get("rate", "")),
        stop_at_errors=_share(words["stop"]) if words.get("stop") else 0.0,
        go=not words.get("plan"),
    )
    desk.monitor.forget()
    if not made.id:
        return did(_("Nothing matches any more"), f"/topics/{name}/jobs?state={_state()}", good=False)
    if made.jobs == 1:  # one stays where one sees this one job
        return did(_("The job runs again"), f"/topics/{name}/jobs?state={_state()}")
    said = _("Replay {n} is planned", n=made.id) if words.get("plan") else _("Replay {n} has begun", n=made.id)
    return did(said, f"/replays/{made.id}", go=True)


def _purge(desk: Desk, name: str) -> Response:
    gone = purge.purge(desk.office, _selection(name))
    desk.monitor.forget()
    text = _("{n} jobs of {name} are deleted", n=count(gone.removed), name=name)
    return did(text, f"/topics/{name}/jobs?state={_state()}")


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/topics/<queue>/<topic>/jobs")
    def jobs(queue: str, topic: str) -> Response:
        return frame.show("jobs.html", lambda: _build(desk, f"{queue}/{topic}"), every=3.0, shared=True)

    @pages.post("/topics/<queue>/<topic>/ask/<deed>")
    def jobs_ask(queue: str, topic: str, deed: str) -> Response:
        return _ask(desk, f"{queue}/{topic}", deed)

    @pages.post("/topics/<queue>/<topic>/replay")
    def jobs_replay(queue: str, topic: str) -> Response:
        return _replay(desk, f"{queue}/{topic}")

    @pages.post("/topics/<queue>/<topic>/purge")
    def jobs_purge(queue: str, topic: str) -> Response:
        return _purge(desk, f"{queue}/{topic}")
