"""Try a consumer out: write a job or take one that really was, send it through the bus or straight, see the answer. Floor 5."""

from __future__ import annotations

import base64
from typing import Any

from flask import Blueprint, Response, request

from pepperbus.errors import NotFound, PepperbusError, UsageError
from pepperbus.operations import consumer, elsewhere, life, push, samples, tail
from pepperbus.operations.results import Life
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.pages.answers import did, fragment, trouble
from pepperbus.web.pages.job import shown
from pepperbus.web.words import _

_REAL = 8  # jobs of each outcome
_LOOKS = 120  # at a pushed job, a second apart, until it has an end
_ENDED = ("done", "dead", "popped", "removed", "gone")


def _build(desk: Desk) -> dict[str, Any]:
    topic, job = request.args.get("topic", ""), request.args.get("job", "")
    topics = sorted(one.name for queue in desk.status().queues for one in queue.topics)
    topic = topic if topic in topics else (topics[0] if topics else "")
    content = encoding = ""
    if job:
        told = life.life(desk.office, job)
        content, encoding = told.content, told.encoding
        if not encoding:
            content = shown(content, "")[0]
    config = desk.base.config
    queue = config.queues.get(topic.partition("/")[0])
    return {
        "topics": topics,
        "topic": topic,
        "system": queue.system if queue else "",
        "nodes": elsewhere.nodes(desk.office, topic) if topic else [],
        "content": content,
        "encoding": encoding,
        "real": _real(desk, topic),
        "samples": samples.samples(desk.office, topic) if topic else [],
        "tries": samples.tries(desk.office),
    }


def _real(desk: Desk, topic: str) -> list[tuple[str, Any]]:
    """Real jobs of this topic: the last that succeeded, the last that died."""
    if not topic:
        return []
    found = []
    for outcome in ("done", "dead"):
        page = tail.history(desk.office, topic=topic, outcome=outcome, limit=_REAL)
        found += [(outcome, event) for event in page.events if event.content]
    return found


def _send(desk: Desk) -> Response:
    words = request.form
    topic, way = words.get("topic", ""), words.get("way", "straight")
    facts: dict[str, Any] = {"topic": topic, "way": way}
    node = words.get("node", "")
    try:
        content = _content(words.get("content", ""), words.get("encoding", ""))
        if way == "ping":
            facts["answer"] = consumer.ping(desk.office, topic, node=node)
        elif way == "bus":
            facts["pushed"] = pushed = push.push(desk.office, topic.partition("/")[0], [content])
            samples.tried(desk.office, topic, way, "".join(pushed.ids[:1]), content)
        else:
            attempt = words.get("attempt", 1, int)
            facts["answer"] = sent = consumer.send(desk.office, topic, content, attempt=attempt, node=node)
            samples.tried(desk.office, topic, way, sent.act, content)
    except PepperbusError as error:
        facts["error"] = trouble(error)
    return fragment("dialogs/answer.html", **facts)


def _follow(desk: Desk, job: str) -> Response:
    """What has become of a pushed job by now; asks again by itself until there is an end."""
    look = request.args.get("look", 1, int)
    try:
        told = life.life(desk.office, job)
    except NotFound:
        told = Life(job, 0)  # taken by a worker this moment, and in no journal yet
    ended = bool(told.topics) and all(topic.state in _ENDED for topic in told.topics)
    return fragment("dialogs/follow.html", life=told, ended=ended or look >= _LOOKS, look=look + 1)


def _content(text: str, encoding: str) -> bytes:
    if encoding != "base64":
        return text.replace("\r\n", "\n").encode()
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UsageError(_("this is not base64")) from error


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/console")
    def console() -> Response:
        return frame.show("console.html", lambda: _build(desk))

    @pages.post("/console/send")
    def console_send() -> Response:
        return _send(desk)

    @pages.get("/console/follow/<job>")
    def console_follow(job: str) -> Response:
        return _follow(desk, job)

    @pages.post("/console/save")
    def console_save() -> Response:
        words = request.form
        topic, content = words.get("topic", ""), _content(words.get("content", ""), words.get("encoding", ""))
        saved = samples.save(desk.office, topic, words.get("name", ""), content)
        return did(_("Saved as {name}", name=saved.name), f"/console?topic={topic}", go=True)

    @pages.post("/console/forget")
    def console_forget() -> Response:
        topic, name = request.form.get("topic", ""), request.form.get("name", "")
        samples.forget(desk.office, topic, name)
        return did(_("{name} is deleted", name=name), f"/console?topic={topic}", go=True)
