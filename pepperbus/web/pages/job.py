"""One job's whole life: accepted from whom, waited, each attempt with PHP's file and line, what became of it. Floor 5."""

from __future__ import annotations

import base64
import json
import shlex
from typing import Any

from flask import Blueprint, Response, request

from pepperbus.operations import life
from pepperbus.operations.results import Life
from pepperbus.web import frame
from pepperbus.web.desk import Desk

_HEX_BYTES = 4096


def shown(text: str, encoding: str) -> tuple[str, str]:
    """Content for eyes, and what it is: JSON is laid out, text is text, bytes are a hex dump."""
    if encoding == "base64":
        return _hexdump(base64.b64decode(text)), "bytes"
    try:
        value = json.loads(text)
    except ValueError:
        return text, "text"
    return json.dumps(value, indent=2, ensure_ascii=False), "JSON"


def _hexdump(data: bytes) -> str:
    lines = []
    for start in range(0, min(len(data), _HEX_BYTES), 16):
        row = data[start : start + 16]
        printable = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:06x}  {row.hex(' '):<47}  {printable}")
    return "\n".join(lines)


def as_curl(told: Life, queue: str) -> str:
    """The same content pushed once more, over the API."""
    body = {"contents": [told.content], **({"encoding": told.encoding} if told.encoding else {})}
    words = ["curl", "-X", "POST", f"{request.host_url}api/v1/queues/{queue}/push", "-H", "Authorization: Bearer TOKEN"]
    words += ["-H", "Content-Type: application/json", "-d", json.dumps(body, ensure_ascii=False)]
    return " ".join(shlex.quote(word) for word in words)


def _build(desk: Desk, job_id: str) -> dict[str, Any]:
    told = life.life(desk.office, job_id)
    content, kind = shown(told.content, told.encoding)
    queue = told.topics[0].topic.partition("/")[0] if told.topics else ""
    systems = {one.name: one.system for one in desk.status().queues}
    return {
        "life": told,
        "content": content,
        "kind": kind,
        "queue": queue,
        "system": systems.get(queue, ""),
        "curl": as_curl(told, queue),
        "address": f"{request.host_url}jobs/{told.id}",
        "whole": bool(told.size),
        "history": bool((known := desk.office.config.queues.get(queue)) and known.history),
    }


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/jobs/<job_id>")
    def job(job_id: str) -> Response:
        return frame.show("job.html", lambda: _build(desk, job_id), shared=True)
