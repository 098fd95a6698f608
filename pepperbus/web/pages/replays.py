"""Replays: every one of them, and one with its figures while it runs; go on, pause, cancel. Floor 5."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from pepperbus.errors import NotFound
from pepperbus.operations import replays
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.pages.answers import did
from pepperbus.web.words import _

#: What a selection was made by, as the pages call it.
LABELS = {
    "ids": "Jobs",
    "error": "Error text",
    "text": "Inside the content",
    "since_ms": "Since",
    "tried": "Failed ones",
}


def _systems(desk: Desk) -> dict[str, str]:
    return {queue.name: queue.system for queue in desk.status().queues}


def _list(desk: Desk) -> dict[str, Any]:
    return {"replays": replays.listing(desk.office, request.args.get("topic", "")), "labels": LABELS}


def _one(desk: Desk, number: int) -> dict[str, Any]:
    found = replays.show(desk.office, number)
    known = found.succeeded + found.failing + found.failed
    return {
        "replay": found,
        "labels": LABELS,
        "system": _systems(desk).get(found.topic.partition("/")[0], ""),
        "share_failed": (found.failing + found.failed) / known if known else 0.0,
    }


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/replays")
    def replays_page() -> Response:
        return frame.show("replays.html", lambda: _list(desk), shared=True)

    @pages.get("/replays/<int:number>")
    def replay_page(number: int) -> Response:
        return frame.show("replay.html", lambda: _one(desk, number), every=1.0, shared=True)

    @pages.post("/replays/<int:number>/<what>")
    def replay_steer(number: int, what: str) -> Response:
        if what not in replays.DEEDS:
            raise NotFound(_("There is no such page"))
        made = replays.steer(desk.office, number, what)
        return did(_("Replay {n} is now: {state}", n=number, state=_(made.state)), f"/replays/{number}")
