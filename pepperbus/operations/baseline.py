"""Statistics that somebody set back: what was counted until then is left out of what pages show as "since".

Floor 4. The counters themselves never go back (a scraper would take that for a restart), so what they were is noted. It
lies beside them and goes when they do, at the start of the bus.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from pepperbus import stats
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result, TopicStatus
from pepperbus.operations.rights import Right, operation

#: Counter -> its field of `TopicStatus`.
_SHOWN = {
    "pushed": "pushed", "popped": "popped", "done": "done", "failed": "failed",
    "retried": "retried", "dead": "died", "returned": "returned",
}  # fmt: skip


class Baseline(Result):
    """What a topic's counters were when somebody set them back."""

    at_ms: int
    who: str
    counts: dict[str, int] = msgspec.field(default_factory=dict)


@operation(Right.OPERATE, "topic")
def reset(office: Office, topic: str) -> Baseline:
    """Begin to count `queue/topic` anew, for the pages. Raises NotFound."""
    office.topic(topic)
    totals = stats.read_all(_path(office).parent, [topic]).get(topic) or stats.Totals()
    made = Baseline(office.clock.now_ms(), office.actor.name, {name: totals[name] for name in _SHOWN})
    fd = os.open(_path(office).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        new = _path(office).with_suffix(".new")
        new.write_bytes(msgspec.json.encode({**_read(office), topic: made}))
        os.replace(new, _path(office))
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # gevent's os.close closes only in the hub's next turn
        os.close(fd)
    return made


@operation(Right.VIEW, "topic")
def since(office: Office, topic: str) -> Baseline | None:
    """The last reset; None when there was none since the bus started."""
    return _read(office).get(topic)


def less(status: TopicStatus, baseline: Baseline | None) -> TopicStatus:
    """The same topic with what was counted since the reset. Counters that are smaller now began anew since."""
    if baseline is None:
        return status
    counts = {field: getattr(status, field) - baseline.counts.get(name, 0) for name, field in _SHOWN.items()}
    return status if min(counts.values()) < 0 else msgspec.structs.replace(status, **counts)


def _read(office: Office) -> dict[str, Baseline]:
    try:
        return msgspec.json.decode(_path(office).read_bytes(), type=dict[str, Baseline])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def _path(office: Office) -> Path:
    return office.config.bus.run_dir / "stats" / "since.json"
