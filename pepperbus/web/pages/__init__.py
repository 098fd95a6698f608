"""The dashboard's pages: each module answers one question, over `operations` only.

    attention.py  what is wrong, most harmful first, each with the link to its cause
    overview.py   how is the business doing: per system, rates, backlog, failures
    queues.py     every queue and topic in one table
    edit.py       queues made and changed by form; form.py what that form says; files.py their files as wholes
    topic.py      one topic over time, its consumer, what fails
    jobs.py       the jobs of a topic, and what to do with some or all of them
    job.py        one job's whole life
    search.py     find a job by whatever one knows of it
    errors.py     what fails, the same error on one line
    alarms.py     what is wrong now and was, who is told, which rules hold; alarm_rules.py those rules by form
    schedules.py  jobs at given times; schedule_edit.py made and changed by form
    replays.py    jobs run once more: how it goes, go on, pause, cancel
    console.py    try a consumer out
    node.py       the machine room: storages, consumers, processes
    users.py      accounts, roles, everybody's tokens; me.py my own account
    audit.py      who did what, and whether the record is whole
    answers.py    what a click did: a toast for htmx, a redirect for a plain form, errors as a page

A page registers its addresses on the blueprint; its line of the navigation stands in `NAVIGATION` here.
"""

from __future__ import annotations

from flask import Blueprint, Flask

from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.frame import Entry
from pepperbus.web.pages import (
    alarms,
    answers,
    audit,
    console,
    edit,
    errors,
    files,
    job,
    jobs,
    me,
    node,
    overview,
    queues,
    replays,
    schedule_edit,
    schedules,
    search,
    topic,
    users,
)

NAVIGATION = (
    Entry("/", "Overview", "layout-dashboard"),
    Entry("/queues", "Queues", "stack-2"),
    Entry("/search", "Search", "search"),
    Entry("/errors", "Errors", "alert-triangle"),
    Entry("/alarms", "Alarms", "bell"),
    Entry("/replays", "Replays", "rotate"),
    Entry("/schedules", "Schedules", "calendar"),
    Entry("/console", "Test console", "terminal-2"),
    Entry("/storage", "Storage", "database", "node"),
    Entry("/consumers", "Consumers", "plug-connected", "node"),
    Entry("/nodes", "Nodes", "server-2", "node"),
    Entry("/users", "Users", "users", "people", "admin"),
    Entry("/audit", "Audit", "history", "people", "admin"),
)
_PAGES = (
    *(
        overview,
        queues,
        edit,
        files,
        topic,
        jobs,
        job,
        search,
        errors,
        alarms,
        replays,
        schedules,
        schedule_edit,
        console,
    ),
    *(node, users, me, audit),
)


def install(app: Flask, desk: Desk) -> None:
    """Add every page and its line in the navigation."""
    pages = Blueprint("pages", __name__)
    answers.register(pages)
    for page in _PAGES:
        page.register(pages, desk)
    frame.NAVIGATION[:] = [*NAVIGATION]
    app.register_blueprint(pages)
