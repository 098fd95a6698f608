"""Schedules made, changed and deleted by form: the schema's fields, checked while one types, with the next times. Floor 5.

A schedule stands in its queue's file, so what saving does is shown as that file's difference, and its history is there.
"""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint, Response, render_template, request

from pepperbus.accounts.model import Right
from pepperbus.config.spec import Option, schema
from pepperbus.config.timing import local_name
from pepperbus.errors import NotFound, PepperbusError, UsageError
from pepperbus.names import is_name
from pepperbus.operations import drafts, schedules
from pepperbus.operations.results import QueueFile
from pepperbus.operations.rights import may
from pepperbus.web.desk import Desk
from pepperbus.web.pages import edit, form
from pepperbus.web.pages.answers import did, fragment, trouble
from pepperbus.web.pages.schedules import there
from pepperbus.web.said import in_words, said
from pepperbus.web.words import _

_ZONES = (
    "UTC",
    "Asia/Shanghai",
    "Asia/Tokyo",
    "Europe/London",
    "Europe/Berlin",
    "America/New_York",
    "America/Los_Angeles",
)
#: What a field is called, beside its key.
LABELS = {
    "expression": "Fires",
    "zone": "Time zone",
    "payload": "Content",
    "times": "Jobs each time",
    "gap": "Time between them",
    "jitter": "Random wait",
    "catch_up": "When no node was there",
    "overlap": "While the one before runs",
}


def options() -> list[Option]:
    """The schema's keys of a schedule."""
    section = schema()["queue"].sections["schedule"].any_section
    assert section is not None
    return list(section.options.values())


def _standing(desk: Desk, queue: str, last: str) -> dict[str, str]:
    """What stands in the file, by key. Raises NotFound."""
    begin = f"schedule/{last}/"
    written = drafts.written(desk.office, queue)
    found = {key.removeprefix(begin): text for key, text in written.items() if key.startswith(begin)}
    if not found:
        raise NotFound(f"no schedule {queue + '/' + last!r}, QUEUE/SCHEDULE is wanted")
    return found


def _form(desk: Desk, queue: str, last: str, values: dict[str, str]) -> str:
    config = desk.base.config
    return render_template(
        "schedule_edit.html",
        new=not last,
        labels=LABELS,
        name=f"{queue}/{last}",
        queue=queue,
        queues=[name for name in config.queues if may(desk.office, Right.ADMIN, name)],
        values=values,
        was=msgspec.json.encode(values).decode() if last else "",
        options=options(),
        choices=lambda option: edit.choices(option, desk),
        hint=edit.hint,
        only={},
        without={},
        secrets=(),
        lists={"expression": "expressions", "zone": "zones"},
        zones=list(dict.fromkeys((local_name() or "UTC", *_ZONES))),
    )


def _asked(desk: Desk, queue: str, last: str) -> tuple[str, str, dict[str, str], list[str]]:
    """What the form says: the queue, the schedule's name, keys to set and to unset."""
    standing = _standing(desk, queue, last) if last else {}
    settings, unset = form.own_changes(request.form.to_dict(), standing)
    return queue or request.form.get("queue", ""), last or request.form.get("name", "").strip(), settings, unset


def _preview(desk: Desk, queue: str, last: str) -> Response:
    new = not last
    try:
        queue, last, settings, unset = _asked(desk, queue, last)
    except UsageError as failure:
        path, _colon, text = str(failure).partition(": ")
        draft = in_words(drafts.Draft([drafts.Mistake(path, text)]))
        return fragment("dialogs/preview.html", draft=draft, fields={path: text}, there=there, new=new)
    mistakes = []
    if new and not is_name(last):
        text = _("choose a name of letters, digits, . _ and -") if last else _("the schedule needs a name")
        mistakes.append(drafts.Mistake("name", text))
    elif new and any(key.startswith(f"schedule/{last}/") for key in drafts.written(desk.office, queue)):
        mistakes.append(drafts.Mistake("name", _("there is a schedule of this name already")))
    last = last if is_name(last) else "new"
    begin = f"schedule/{last}"
    draft = drafts.draft(
        desk.office, queue, schedules.paths(last, settings), list(schedules.paths(last, dict.fromkeys(unset, "")))
    )
    draft = in_words(draft)
    told = {mistake.field.removeprefix(f"{begin}/"): mistake for mistake in draft.mistakes}
    fields = {option.key: told[option.key].text if option.key in told else "" for option in options()}
    if new:
        fields |= {"name": mistakes[0].text if mistakes else ""}
    if (whole := told.get(begin)) and not fields["expression"]:
        fields["expression"] = whole.text
    draft.mistakes = mistakes + draft.mistakes
    draft.retries = {}
    return fragment(
        "dialogs/preview.html", draft=draft, fields=fields, fires=draft.fires.get(last), there=there, new=new
    )


def _save(desk: Desk, queue: str, last: str) -> Response:
    new = not last
    try:
        queue, last, settings, unset = _asked(desk, queue, last)
        name = f"{queue}/{last}"
        done = (
            schedules.add(desk.office, name, settings) if new else schedules.change(desk.office, name, settings, unset)
        )
    except PepperbusError as failure:
        return fragment("dialogs/refused.html", 409, text=trouble(failure))
    return _done(desk, done, _("{name} is saved and in force", name=name))


def _done(desk: Desk, done: QueueFile, text: str) -> Response:
    desk.monitor.forget()
    if done.refused:
        return fragment("dialogs/refused.html", 409, text=said(done.reload))
    return did(text, "/schedules", go=True)


def _new(desk: Desk) -> str:
    queue, _slash, last = request.args.get("from", "").partition("/")
    values: dict[str, Any] = _standing(desk, queue, last) if last else {}
    return _form(desk, queue or request.args.get("queue", ""), "", values)


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/schedules/new")
    def schedule_new() -> str:
        return _new(desk)

    @pages.get("/schedules/<queue>/<schedule>/edit")
    def schedule_edit(queue: str, schedule: str) -> str:
        return _form(desk, queue, schedule, _standing(desk, queue, schedule))

    @pages.post("/schedules/preview", defaults={"queue": "", "schedule": ""})
    @pages.post("/schedules/<queue>/<schedule>/preview")
    def schedule_preview(queue: str, schedule: str) -> Response:
        return _preview(desk, queue, schedule)

    @pages.post("/schedules/save", defaults={"queue": "", "schedule": ""})
    @pages.post("/schedules/<queue>/<schedule>/save")
    def schedule_save(queue: str, schedule: str) -> Response:
        return _save(desk, queue, schedule)

    @pages.post("/schedules/<queue>/<schedule>/delete")
    def schedule_delete(queue: str, schedule: str) -> Response:
        name = f"{queue}/{schedule}"
        return _done(desk, schedules.remove(desk.office, name), _("{name} is removed", name=name))
