"""Try a consumer out: write a job or take one that really was, send it through the bus or straight, see the answer. Floor 5."""

from __future__ import annotations

import base64
from typing import Any

from flask import Blueprint, Response, request

from pepperbus.errors import PepperbusError, UsageError
from pepperbus.operations import consumer, life, push, tail
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.pages.answers import fragment, trouble
from pepperbus.web.pages.job import shown
from pepperbus.web.words import _

_SAMPLES = 8


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
    return {
        "topics": topics,
        "topic": topic,
        "content": content,
        "encoding": encoding,
        "samples": _samples(desk, topic),
    }


def _samples(desk: Desk, topic: str) -> list[tuple[str, Any]]:
    """Real jobs of this topic: the last that succeeded, the last that died."""
    if not topic:
        return []
    found = []
    for outcome in ("done", "dead"):
        page = tail.history(desk.office, topic=topic, outcome=outcome, limit=_SAMPLES)
        found += [(outcome, event) for event in page.events if event.content and not event.encoding]
    return found


def _send(desk: Desk) -> Response:
    words = request.form
    topic, way = words.get("topic", ""), words.get("way", "straight")
    facts: dict[str, Any] = {"topic": topic, "way": way}
    try:
        content = _content(words.get("content", ""), words.get("encoding", ""))
        if way == "ping":
            facts["answer"] = consumer.ping(desk.office, topic)
        elif way == "bus":
            facts["pushed"] = push.push(desk.office, topic.partition("/")[0], [content])
        else:
            facts["answer"] = consumer.send(desk.office, topic, content, attempt=words.get("attempt", 1, int))
    except PepperbusError as error:
        facts["error"] = trouble(error)
    return fragment("dialogs/answer.html", **facts)


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
        return frame.show("console.html", lambda: _build(desk), shared=True)

    @pages.post("/console/send")
    def console_send() -> Response:
        return _send(desk)
