"""Where the bus stands in what the configuration gives as a range, and why. Floor 4. Reads what the ticker writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pepperbus.config.model import Queue, Topic
from pepperbus.names import SCALING

Standing = dict[str, dict[str, Any]]


def read(run_dir: Path) -> tuple[Standing, Standing]:
    """Of topics (`queue/topic`) and of worker groups: now, least, most, why. Empty when the ticker has not yet said."""
    try:
        found = msgspec.json.decode((run_dir / SCALING).read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}, {}
    return found.get("topics", {}), found.get("groups", {})


def of_topic(topic: Topic, standing: Standing) -> str:
    """`6 of 2..16: keeps up …`; "" for a plain number."""
    return _words(standing.get(topic.full_name), topic.least, topic.concurrency) if topic.scaled else ""


def of_queue(queue: Queue, standing: Standing) -> str:
    """The same of its workers."""
    return _words(standing.get(queue.group), queue.least_workers, queue.workers) if queue.least_workers else ""


def _words(found: dict[str, Any] | None, least: int, most: int) -> str:
    if found is None:
        return f"{least} of {least}..{most}: not looked at yet"
    return f"{found['now']} of {least}..{most}: {found['why']}"
