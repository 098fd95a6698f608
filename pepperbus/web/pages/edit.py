"""Queues made and changed by form: explained by the schema, checked while one types, shown as a diff, kept. Floor 5."""

from __future__ import annotations

import re
import secrets

import msgspec
from flask import Blueprint, Response, make_response, render_template, request

from pepperbus.config.command import NOT_HERE as NOT_WITH_COMMAND
from pepperbus.config.load import queue_file
from pepperbus.config.queue import ONLY
from pepperbus.config.spec import Option, schema
from pepperbus.errors import NotFound, PepperbusError, UsageError
from pepperbus.names import is_name
from pepperbus.operations import closing, drafts, pause, queues, versions
from pepperbus.web.desk import Desk
from pepperbus.web.formats import count
from pepperbus.web.pages import form
from pepperbus.web.pages.answers import did, fragment, trouble
from pepperbus.web.said import in_words, said
from pepperbus.web.words import _

#: What most people set; everything else stands under "more".
FIRST = {
    "queue": ("password", "system", "durability"),
    "topic": (
        *("run", "pool", "script", "url", "command", "feed", "children"),
        *("concurrency", "timeout", "attempts", "backoff"),
    ),
}
#: What a field is called, beside its key; a key that says it itself has none.
LABELS = {
    "password": "Password",
    "system": "System",
    "durability": "Durability",
    "run": "Way to the consumer",
    "pool": "php-fpm pool",
    "script": "Script",
    "url": "Address",
    "command": "Command",
    "feed": "How it gets jobs",
    "children": "Processes",
    "concurrency": "Attempts at once",
    "timeout": "Time limit",
    "attempts": "Attempts",
    "backoff": "Waits between attempts",
}
#: What a section of a topic is called.
SECTIONS = {"params": "Params of FastCGI", "headers": "Headers", "environment": "Variables", "alarms": "Alarms"}
#: Said in a form instead of the option's help.
HINTS = {"password": "What producers log in with: AUTH queue:password. Left empty, a new queue gets one."}
_ONLY = {key: run for run, keys in ONLY.items() for key in keys}
#: What a topic with this way of running may not have: its children are counted, not its attempts at once.
_NOT = dict.fromkeys(NOT_WITH_COMMAND, "command")
_CHOICES = re.compile(r"option\((.*?),\s*(?:later|default)")


def hint(option: Option) -> str:
    """What stands under its field."""
    return HINTS.get(option.key, option.help)


def options(part: str, first: bool) -> list[Option]:
    """The schema's options of a queue or topic, those of FIRST in its order, or all others."""
    known = {key: option for key, option in schema()[part].options.items() if not option.later}
    chosen = FIRST[part]
    return [known[key] for key in chosen] if first else [known[key] for key in known if key not in chosen]


def choices(option: Option, desk: Desk) -> list[str]:
    """What a field offers to choose from; empty for free text."""
    config = desk.base.config
    match option.key:
        case "pool":
            return list(config.pools)
        case "storage":
            return list(config.storages)
    if option.kind == "boolean":
        return ["yes", "no"]
    found = _CHOICES.match(option.check)
    return [word.strip() for word in found[1].split(",")] if found else []


def _form(desk: Desk, name: str, values: dict[str, str], topics: list[str], new: bool, status: int = 200) -> Response:
    systems = sorted({queue.system for queue in desk.status().queues if queue.system})
    was = {key: text for key, text in values.items() if not key.startswith(f"{form.NEW}/")}
    return make_response(
        render_template(
            "edit.html",
            name=name,
            values=values,
            was="" if new else msgspec.json.encode(was).decode(),
            topics=topics,
            new=new,
            options=options,
            choices=lambda option: choices(option, desk),
            hint=hint,
            labels=LABELS,
            sections=SECTIONS,
            free=form.free_sections(),
            fixed=form.fixed_sections(),
            as_lines=form.as_lines,
            secrets=form.SECRETS,
            only=_ONLY,
            without=_NOT,
            systems=systems,
            lists={"system": "systems"},
            closed="" if new else desk.office.queue(name).closed,
            closing={} if new else _closing(desk, name),
            versions=[] if new else versions.versions(desk.office, name, queue_file(name, desk.base.config)),
            chosen=request.args.get("topic", ""),
            NEW=form.NEW,
        ),
        status,
    )


def _closing(desk: Desk, name: str) -> dict[str, str]:
    """The topics that take no new jobs."""
    return {topic.name: topic.closed for topic in desk.office.queue(name).topics.values() if topic.closed != "no"}


def _new(desk: Desk) -> Response:
    source = request.args.get("from", "")
    values = {"queue": ""}
    topics = ["main"]
    if source:
        values = {key: text for key, text in drafts.written(desk.office, source).items() if text != form.HIDDEN}
        topics = [topic.name for topic in desk.base.config.queues[source].topics.values()]
    else:
        pools = list(desk.base.config.pools)
        values["main/run"] = "fastcgi" if pools else "http"
        if pools:
            values["main/pool"] = pools[0]
    return _form(desk, "", values, topics, True)


def _edit(desk: Desk, name: str) -> Response:
    queue = desk.office.queue(name)
    values = drafts.written(desk.office, name)
    if like := request.args.get("like", ""):  # the topic to add begins as a copy of that one
        copied = {key: text for key, text in values.items() if key.startswith(f"{like}/") and text != form.HIDDEN}
        values |= {form.NEW + key.removeprefix(like): text for key, text in copied.items()}
    return _form(desk, name, values, [topic.name for topic in queue.topics.values()], False)


def _preview(desk: Desk, name: str) -> Response:
    try:
        wanted, new, settings, unset = form.asked(desk, name)
    except UsageError as failure:
        path, _colon, text = str(failure).partition(": ")
        draft = in_words(drafts.Draft([drafts.Mistake(path, text)]))
        return fragment("dialogs/preview.html", draft=draft, fields=form.places(draft), new=not name)
    mistakes = []
    if new and not is_name(wanted):
        text = _("choose a name of letters, digits, . _ and -") if wanted else _("the queue needs a name")
        mistakes.append(drafts.Mistake("queue", text))
    if new and wanted in desk.base.config.queues:
        mistakes.append(drafts.Mistake("queue", _("there is a queue of this name already")))
    draft = drafts.draft(desk.office, wanted if is_name(wanted) else "new", settings, unset, new=new)
    draft = in_words(draft)
    draft.mistakes = mistakes + draft.mistakes
    return fragment("dialogs/preview.html", draft=draft, fields=form.places(draft), new=new)


def _save(desk: Desk, name: str) -> Response:
    office = desk.office
    try:
        wanted, new, settings, unset = form.asked(desk, name)
        if new and "password" not in settings and settings.get("open", "no") == "no":
            settings = {"password": secrets.token_hex(16), **settings}  # made here, so that it can be shown this once
        if new:
            done = queues.add(office, wanted, settings)
        else:
            done = queues.change(office, wanted, settings, unset, standing=form.topics_set(settings))
    except PepperbusError as failure:
        return fragment("dialogs/refused.html", 409, text=trouble(failure))
    desk.monitor.forget()
    if done.refused:
        return fragment("dialogs/refused.html", 409, text=said(done.reload))
    if new:
        return _made(desk, wanted, settings.get("password", ""), bool(done.reload and not done.reloaded))
    return did(_("{name} is saved and in force", name=wanted), f"/queues?q={wanted}/", go=True)


def _made(desk: Desk, name: str, password: str, waits: bool) -> Response:
    """What somebody who has just made a queue needs next: its password, this once, and how to push. `waits`: no bus runs."""
    host, _colon, port = next((one for one in desk.base.config.gateway.listen if ":" in one), ":12017").rpartition(":")
    if host in ("", "0.0.0.0", "[::]"):
        host = request.host.rpartition(":")[0] or request.host
    facts = {"host": host.strip("[]"), "port": port.partition("?")[0], "first": next(iter(form.topics().values()), "")}
    response = make_response(render_template("made.html", name=name, password=password, waits=waits, **facts))
    response.headers["HX-Retarget"] = response.headers["HX-Reselect"] = "#content"
    response.headers["HX-Reswap"] = "outerHTML show:window:top"
    response.headers["HX-Push-Url"] = f"/queues/{name}/edit"
    return response


def _ask_delete(desk: Desk, name: str) -> Response:
    return _delete_dialog(desk, name, queues.lying(desk.office, name))


def _delete_dialog(desk: Desk, name: str, jobs: dict[str, int], status: int = 200, **facts: bool) -> Response:
    every = [topic for queue in desk.status().queues for topic in queue.topics]
    dead = sum(topic.dead for topic in every if name in (topic.name, topic.name.partition("/")[0]))
    return fragment("dialogs/delete.html", status, name=name, jobs=jobs, total=count, dead=dead, **facts)


def _delete(desk: Desk, name: str) -> Response:
    jobs = queues.lying(desk.office, name)
    keep = request.form.get("keep") == "yes"
    if jobs and keep and request.form.get("typed", "").strip() != name:
        return _delete_dialog(desk, name, jobs, 409, wrong=True)
    queues.remove(desk.office, name, keep_jobs=keep)
    desk.monitor.forget()
    return did(_("{name} is removed", name=name), "/queues", go=True)


def _close(desk: Desk, name: str) -> Response:
    """From the dialog of deleting: everything in it runs first."""
    done = closing.close(desk.office, name, remove=True)
    desk.monitor.forget()
    text = _("{name} takes no jobs any more and is removed once it is empty", name=name)
    to = f"/topics/{name}" if "/" in name else f"/queues?q={name}/"
    return did(said(done.reload) if done.refused else text, to, good=not done.refused, go=True)


def _reopen(desk: Desk, name: str) -> Response:
    done = closing.reopen(desk.office, name)
    desk.monitor.forget()
    text = said(done.reload) if done.refused else _("{name} takes jobs again", name=name)
    to = f"/topics/{name}" if "/" in name else f"/queues/{name}/edit"
    return did(text, to, good=not done.refused, go=True)


def _rollback(desk: Desk, name: str) -> Response:
    at_ms, seen = (request.form.get(key, 0, int) for key in ("at_ms", "seen"))
    done = queues.rollback(desk.office, name, at_ms, seen)
    desk.monitor.forget()
    text = said(done.reload) if done.refused else _("{name} is as it was before that change", name=name)
    return did(text, f"/queues/{name}/edit", good=not done.refused, go=True)


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/queues/new")
    def queue_new() -> Response:
        return _new(desk)

    @pages.get("/queues/<queue>/edit")
    def queue_edit(queue: str) -> Response:
        return _edit(desk, queue)

    @pages.post("/queues/preview", defaults={"queue": ""})
    @pages.post("/queues/<queue>/preview")
    def queue_preview(queue: str) -> Response:
        return _preview(desk, queue)

    @pages.post("/queues/save", defaults={"queue": ""})
    @pages.post("/queues/<queue>/save")
    def queue_save(queue: str) -> Response:
        return _save(desk, queue)

    @pages.post("/close/<path:name>")
    def queue_close(name: str) -> Response:
        return _close(desk, name)

    @pages.post("/reopen/<path:name>")
    def queue_reopen(name: str) -> Response:
        return _reopen(desk, name)

    @pages.post("/queues/<queue>/rollback")
    def queue_rollback(queue: str) -> Response:
        return _rollback(desk, queue)

    @pages.post("/queues/<queue>/<deed>")
    def queue_deed(queue: str, deed: str) -> Response:
        if deed not in ("pause", "resume"):
            raise NotFound(_("there is no such page"))
        (pause.pause if deed == "pause" else pause.resume)(desk.office, queue)
        desk.monitor.forget()
        text = (
            _("{name} is paused; pushes go on", name=queue) if deed == "pause" else _("{name} is fed again", name=queue)
        )
        return did(text, "/queues")

    @pages.post("/delete/<path:name>")
    def queue_delete(name: str) -> Response:
        return _delete(desk, name)

    @pages.post("/delete-ask/<path:name>")
    def queue_ask_delete(name: str) -> Response:
        return _ask_delete(desk, name)
