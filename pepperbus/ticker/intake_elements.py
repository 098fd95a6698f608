"""The lists an intake takes from, and what an element means: a content, or a job as the Go system keeps it. Floor 4; pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from pepperbus.config.model import Intake, Queue
from pepperbus.ids import parse_id

_STEP_MS = 30_000  # the Go system waits (attempts - 1) x 30 s after a failure


class Element(NamedTuple):
    """`job_id` 0: it has none yet. `due_ms`: not before then. `dead`: why it goes straight to the dead."""

    content: bytes
    job_id: int = 0
    trace: str = ""
    due_ms: int = 0
    dead: str = ""


class Listed(NamedTuple):
    """One list of one intake, and how its elements are read. `read` raises ValueError for what is no job."""

    queue: str
    intake: Intake
    key: str
    read: Callable[[bytes], Element]


def lists_of(queue: Queue) -> list[Listed]:
    """Every list that the queue takes from."""
    found = []
    for intake in queue.intakes:
        first = read_raw if intake.format == "raw" else read_waiting
        found.append(Listed(queue.name, intake, intake.key, first))
        if intake.failed:
            found.append(Listed(queue.name, intake, f"{intake.key}_retry", read_failed))
            found.append(Listed(queue.name, intake, f"{intake.key}_timeout", read_timeout))
    return found


def read_raw(element: bytes) -> Element:
    """format = raw."""
    return Element(element)


def read_waiting(element: bytes) -> Element:
    """QUEUE::TOPIC::list. Raises ValueError for what is no job of the Go system."""
    return _read(element)[0]


def read_failed(element: bytes) -> Element:
    """…::list_retry: who may still be retried is delayed until it is due there, all others are dead."""
    found, fields = _read(element)
    tried = _number(fields, "RetryTimes")
    if fields.get("IsRetry") is True and _number(fields, "RetryResidueTime") > 0:
        return found._replace(due_ms=max(_number(fields, "RetryTime") * 1000 + max(tried - 1, 0) * _STEP_MS, 1))
    return found._replace(dead=f"failed in the Go system after {tried} attempt{'' if tried == 1 else 's'}")


def read_timeout(element: bytes) -> Element:
    """…::list_timeout: its time for retries was used up."""
    found, fields = _read(element)
    return found._replace(dead=f"timed out in the Go system after {_number(fields, 'RetryTimes')} attempts")


def _read(element: bytes) -> tuple[Element, dict[str, Any]]:
    try:
        fields = json.loads(element)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("content"), str):
        raise ValueError("no job: an object with a text `content` is wanted")
    try:
        job_id = parse_id(str(fields.get("id", "")))
    except ValueError:
        job_id = 0  # it gets one of ours
    text = fields["content"]
    content = base64.b64decode(text) if fields.get("encoding") == "base64" else text.encode(errors="replace")
    return Element(content, job_id, str(fields.get("inTraceId") or "")[:200]), fields


def _number(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) else 0
