"""Jobs at given times: what fires when, what became of the last firings, run now, pause. Floor 5."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, Response

from pepperbus.accounts.model import Right
from pepperbus.config.timing import zone
from pepperbus.errors import NotFound
from pepperbus.operations import schedules
from pepperbus.operations.drafts import Fires
from pepperbus.operations.rights import may
from pepperbus.operations.schedule_results import ScheduleStatus
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.pages.answers import did
from pepperbus.web.words import _

_DEEDS = {"run": schedules.run, "pause": schedules.pause, "resume": schedules.resume}


def _told() -> dict[str, str]:
    return {
        "run": _("Its jobs are pushed"),
        "pause": _("It pushes nothing until it is resumed"),
        "resume": _("It pushes again, from its next time on"),
    }


def there(one: ScheduleStatus | Fires, ms: int) -> str:
    """A moment in the schedule's own zone."""
    return datetime.fromtimestamp(ms / 1000, zone(one.zone)).strftime("%Y-%m-%d %H:%M:%S")


def _list(desk: Desk) -> dict[str, Any]:
    found = schedules.listing(desk.office)
    makes = any(may(desk.office, Right.ADMIN, name) for name in desk.office.config.queues)
    return {"schedules": found, "there": there, "systems": _systems(desk), "makes": makes}


def _one(desk: Desk, name: str) -> dict[str, Any]:
    return {"one": schedules.show(desk.office, name), "there": there, "systems": _systems(desk)}


def _systems(desk: Desk) -> dict[str, str]:
    return {queue.name: queue.system for queue in desk.office.config.queues.values()}


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/schedules")
    def schedules_page() -> Response:
        return frame.show("schedules.html", lambda: _list(desk), every=5.0, shared=True)

    @pages.get("/schedules/<queue>/<schedule>")
    def schedule_page(queue: str, schedule: str) -> Response:
        return frame.show("schedule.html", lambda: _one(desk, f"{queue}/{schedule}"), shared=True)

    @pages.post("/schedules/<queue>/<schedule>/<deed>")
    def schedule_deed(queue: str, schedule: str, deed: str) -> Response:
        act = _DEEDS.get(deed)
        if act is None:
            raise NotFound(_("there is no such page"))
        act(desk.office, f"{queue}/{schedule}")
        return did(_told()[deed], f"/schedules/{queue}/{schedule}")
