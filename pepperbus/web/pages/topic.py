"""One topic: its course over time, its consumer's state and why, what fails, and everything one can do with it. Floor 5."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from pepperbus.config.queue import ONLY
from pepperbus.errors import NotFound
from pepperbus.operations import alarms, baseline, consumer, deploys, history, paces, pause, queues, tail
from pepperbus.operations.results import QueueStatus, TopicStatus
from pepperbus.web import frame
from pepperbus.web.courses import Courses
from pepperbus.web.desk import Desk
from pepperbus.web.pages.answers import did
from pepperbus.web.said import said
from pepperbus.web.topics import clear_s
from pepperbus.web.words import _, span, spoken

_MOST_MARKS = 40
#: Seconds back -> the word on its button.
RANGES = {300: "5 min", 3600: "1 h", 6 * 3600: "6 h", 86400: "24 h", 7 * 86400: "7 d", 30 * 86400: "30 d"}
#: Chart -> its lines: (column of the course, key there, label, colour).
CHARTS: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "rates": (("counts", "pushed", "in / s", "blue"), ("counts", "done", "done / s", "green")),
    "failures": (("counts", "failed", "failed / s", "amber"), ("counts", "dead", "dead / s", "red")),
    "wait": (("wait", "p50", "p50", "green"), ("wait", "p90", "p90", "amber"), ("wait", "p99", "p99", "red")),
    "run": (("run", "p50", "p50", "green"), ("run", "p90", "p90", "amber"), ("run", "p99", "p99", "red")),
    "backlog": (
        ("gauges", "ready", "waiting", "blue"),
        ("gauges", "delayed", "delayed", "violet"),
        ("gauges", "dead_jobs", "dead", "red"),
    ),
    "window": (("gauges", "in_flight", "in flight", "blue"), ("gauges", "window", "window", "soft")),
}  # fmt: skip


class Line(msgspec.Struct):
    label: str
    colour: str
    fill: bool


class Mark(msgspec.Struct):
    """A line across the chart. `at`: unix seconds."""

    at: float
    text: str


class Points(msgspec.Struct):
    """What charts.js draws: `data[0]` is the time, `data[n]` the line `series[n-1]`, `marks` across them; `note`: what is
    missing."""

    time: str
    series: list[Line]
    data: list[list[float | None] | list[int]]
    marks: list[Mark] = []
    note: str = ""


def find(desk: Desk, name: str) -> tuple[QueueStatus, TopicStatus]:
    """A topic as the status knows it, detached ones too. Raises NotFound as operations do."""
    status = desk.status()
    for queue in status.queues:
        for topic in queue.topics:
            if topic.name == name:
                return queue, topic
    for topic in status.detached:
        if topic.name == name:
            return QueueStatus(name.partition("/")[0]), topic
    desk.office.topic(name)
    raise NotFound(_("topic {name} was added this moment; ask again", name=name))


def _build(desk: Desk, courses: Courses, name: str) -> dict[str, Any]:
    queue, topic = find(desk, name)
    known = baseline.since(desk.office, name)
    topic = baseline.less(topic, known)
    monitor = desk.monitor
    failures = tail.history(desk.office, topic=name, outcome="retry", limit=4).events
    failures += tail.history(desk.office, topic=name, outcome="dead", limit=4).events
    return {
        "queue": queue,
        "topic": topic,
        "since_ms": known.at_ms if known else 0,
        "paces": paces.by_node(desk.office, name, monitor.own(name), monitor.neighbours.of(name))
        if topic.state != "detached"
        else [],
        "failed_rate": monitor.rate(name, "failed", 60),
        "oldest_s": max(0.0, time.time() - topic.oldest_ms / 1000) if topic.oldest_ms and topic.ready else 0.0,
        "clear": clear_s(topic),
        "never": float("inf"),
        "alarms": alarms.state(desk.office, name, spoken()).open,
        "failures": sorted(failures, key=lambda event: -event.at_ms)[:6],
        "back": _back(),
        "nodes": [desk.base.config.bus.node, *others] if (others := courses.nodes(name)) else [],
        "node": request.args.get("node", ""),
        "marks": [(mark.at_ms, told(mark)) for mark in _recent(desk, name)],
        "ranges": RANGES,
        "settings": _settings(desk, name) if topic.state != "detached" else {},
    }


def _recent(desk: Desk, name: str) -> list[deploys.DeployMark]:
    """The marks in the time that the charts show, newest first."""
    return deploys.marks(desk.office, int((time.time() - _back()) * 1000), name)[-_MOST_MARKS:][::-1]


def _settings(desk: Desk, name: str) -> dict[str, Any]:
    info = queues.show(desk.office, name.partition("/")[0])
    mine = next((one for one in info.topics if one.name == name), None)
    if not mine:
        return {}
    foreign = {key for run, keys in ONLY.items() if run != mine.run for key in keys}
    return {key: value for key, value in mine.settings.items() if value not in ("", [], ()) and key not in foreign}


def _back() -> int:
    back = request.args.get("back", 3600, int)
    return back if back in RANGES else 3600


def points(desk: Desk, courses: Courses, name: str, chart: str) -> Response:
    """The columns of one chart: of all nodes together, or of the one in `node`."""
    if chart not in CHARTS:
        raise NotFound(_("no chart {name}", name=chart))
    made, missing = _course(desk, courses, name)
    course = history.drawn(made)
    lines = CHARTS[chart]
    filled = chart in ("rates", "backlog")
    series = [Line(_(label), colour, i == 0 and filled) for i, (*_s, label, colour) in enumerate(lines)]
    columns = [getattr(course, part)[key] for part, key, *_s in lines]
    note = _("No answer from {nodes}: what it did is missing here.", nodes=", ".join(missing)) if missing else ""
    marks = _marks(desk, name, course.at[0] if course.at else 0)
    drawn = Points(_("time"), series, [course.at, *columns], marks, note)
    return Response(msgspec.json.encode(drawn), mimetype="application/json")


def _course(desk: Desk, courses: Courses, name: str) -> tuple[history.Part, list[str]]:
    """What is to be drawn, and the nodes whose part of it is not known."""
    own, wanted = history.part(desk.office, name, _back()), request.args.get("node", "")
    if wanted == desk.base.config.bus.node:
        return own, []
    others = courses.of(name, _back())
    if wanted and wanted not in others:
        raise NotFound(_("no node {name} shares the storage of this topic", name=wanted))
    told = {node: part for node, part in others.items() if part}
    if not wanted:
        return history.merged(own, told.values()), sorted(others.keys() - told.keys())
    return (told[wanted], []) if wanted in told else (history.nothing(own), [wanted])


def _marks(desk: Desk, name: str, since_s: int) -> list[Mark]:
    """What was deployed meanwhile; reloads of other queues are left out."""
    found = deploys.marks(desk.office, since_s * 1000, name)[-_MOST_MARKS:]
    return [Mark(one.at_ms / 1000, told(one)) for one in found]


def told(mark: deploys.DeployMark) -> str:
    """A mark in words."""
    match mark.kind:
        case "mark":
            return f"{mark.text} ({mark.who})"
        case "reload":
            return _("settings changed: {what}", what=mark.text or ", ".join(mark.queues))
        case "upgrade":
            return _("the bus was upgraded: {version}", version=mark.text)
        case _:
            return _("the bus started: {version}", version=mark.text)


def _limit(desk: Desk, queue: str, topic: str) -> Response:
    """How many attempts at once and, where the form says, how many may start; an empty rate is none."""
    name, wanted, rate = f"{queue}/{topic}", request.form.get("concurrency", ""), request.form.get("rate")
    key = "children" if desk.office.topic(name).run == "command" else "concurrency"
    settings = {f"{topic}/{key}": wanted} | ({f"{topic}/rate": rate.strip()} if rate and rate.strip() else {})
    unset = [f"{topic}/rate"] if rate is not None and not rate.strip() and desk.office.topic(name).rate else []
    done = queues.change(desk.office, queue, settings, unset)
    facts = {"name": name, "n": wanted, "why": said(done.reload), "rate": (rate or "").strip()}
    if done.refused:
        text = _("{name}: not in force: {why}", **facts)
    elif facts["rate"]:
        text = _("{name} may run {n} attempts at once and start {rate}", **facts)
    else:
        text = _("{name} may run {n} attempts at once", **facts)
    return did(text, f"/topics/{name}", good=not done.refused)


def register(pages: Blueprint, desk: Desk) -> None:
    courses = Courses(desk)

    @pages.get("/topics/<queue>/<topic>")
    def topic(queue: str, topic: str) -> Response:
        return frame.show("topic.html", lambda: _build(desk, courses, f"{queue}/{topic}"), shared=True)

    @pages.get("/topics/<queue>/<topic>/points/<chart>")
    def topic_points(queue: str, topic: str, chart: str) -> Response:
        return points(desk, courses, f"{queue}/{topic}", chart)

    @pages.post("/topics/<queue>/<topic>/pause")
    def topic_pause(queue: str, topic: str) -> Response:
        pause.pause(desk.office, f"{queue}/{topic}")
        desk.monitor.forget()
        return did(_("{name} is paused; pushes go on", name=f"{queue}/{topic}"), f"/topics/{queue}/{topic}")

    @pages.post("/topics/<queue>/<topic>/resume")
    def topic_resume(queue: str, topic: str) -> Response:
        pause.resume(desk.office, f"{queue}/{topic}")
        desk.monitor.forget()
        return did(_("{name} is fed again", name=f"{queue}/{topic}"), f"/topics/{queue}/{topic}")

    @pages.post("/topics/<queue>/<topic>/mark")
    def topic_mark(queue: str, topic: str) -> Response:
        system = desk.office.queue(queue).system
        deploys.mark(desk.office, request.form.get("text", ""), system)
        return did(_("The mark stands on the charts"), f"/topics/{queue}/{topic}", go=True)

    @pages.post("/topics/<queue>/<topic>/reset")
    def topic_reset(queue: str, topic: str) -> Response:
        baseline.reset(desk.office, f"{queue}/{topic}")
        return did(_("{name} is counted anew from here", name=f"{queue}/{topic}"), f"/topics/{queue}/{topic}")

    @pages.post("/topics/<queue>/<topic>/concurrency")
    def topic_concurrency(queue: str, topic: str) -> Response:
        return _limit(desk, queue, topic)

    @pages.post("/topics/<queue>/<topic>/ping")
    def topic_ping(queue: str, topic: str) -> Response:
        name = f"{queue}/{topic}"
        pinged = consumer.ping(desk.office, name)
        facts = {"name": name, "time": span(pinged.total_ms / 1000), "why": said(pinged.reason)}
        if pinged.registered:
            return did(_("{name} answers in {time} and takes this topic", **facts), f"/topics/{name}")
        return did(_("{name}: the ping was refused after {time}: {why}", **facts), f"/topics/{name}", good=False)
