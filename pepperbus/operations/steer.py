"""Check a configuration; tell the running master to reload, stop, reopen its logs, change its gateways.

Floor 4. The master's answers are taken as they come: `ok` and a line, and whatever else it says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pepperbus import ids
from pepperbus.config.load import load
from pepperbus.config.model import Config
from pepperbus.errors import ConfigError
from pepperbus.operations.office import Office
from pepperbus.operations.results import Checked, Steered

_YEAR_MS = 366 * 86_400_000


def check(path: Path | None, environ: Mapping[str, str] = os.environ) -> Checked:
    """Whether the configuration is right: every mistake, or what it holds and what is worth knowing. Never raises."""
    try:
        config = load(path, environ)
    except ConfigError as error:
        return Checked(False, str(path or ""), mistakes=list(error.mistakes))
    topics = [topic for queue in config.queues.values() for topic in queue.topics.values()]
    return Checked(
        True, str(config.file), len(config.queues), len(topics), len(config.storages), [], _notes(config, topics)
    )


def _notes(config: Config, topics: list[Any]) -> list[str]:
    notes = []
    if not config.queues:
        notes.append(f"no queue yet: {config.queue_files} names no file; `pepperbus queue add NAME` writes one")
    for topic in topics:
        if topic.paused:
            notes.append(f"{topic.full_name} is paused by its file: jobs are kept, none is delivered")
        elif not config.consumes(topic):
            notes.append(f"{topic.full_name} is not consumed by this node (tags or consumer = no)")
    if datetime.now(UTC).timestamp() * 1000 > ids.LAST_MS - _YEAR_MS:
        notes.append("job ids of this form end in January 2036: a later release must be installed before")
    return notes


def reload(office: Office) -> Steered:
    """The running bus reads its files anew; waits until it took them or refused them. Raises NotReachable."""
    return _steer(office, {"op": "reload"})


def stop(office: Office, now: bool = False) -> Steered:
    """The running bus drains and ends; `now`: running attempts get no grace. Raises NotReachable."""
    return _steer(office, {"op": "stop", "grace": 0} if now else {"op": "stop"})


def reopen(office: Office) -> Steered:
    """The running bus opens its log files anew. Raises NotReachable."""
    return _steer(office, {"op": "reopen"})


def scale(office: Office, change: int) -> Steered:
    """One gateway process more (1) or less (-1). Raises NotReachable."""
    return _steer(office, {"op": "scale", "change": change})


def _steer(office: Office, request: dict[str, Any]) -> Steered:
    answer = office.ask(request)
    message = str(answer.get("error") or answer.get("message") or "")
    return Steered(str(request["op"]), bool(answer.get("ok", not answer.get("error"))), message, answer)
