"""What people decided about an error: seen by somebody (`acknowledged`), or mended (`resolved`) until it comes back.

Floor 4. One small file beside the bus' data; marks of errors that are long gone are forgotten.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pepperbus.errors import UsageError
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, operation

STATES = ("open", "acknowledged", "resolved")
_KEPT_MS = 90 * 86_400_000
_MOST = 5000  # marks; the oldest go first
_KEY = re.compile(r"[0-9a-f]{16}\Z")


class Mark(Result):
    """`state` of one error group since `at_ms`, by `who`."""

    state: str
    at_ms: int
    who: str


@operation(Right.OPERATE, "topic", details=("key", "state"))
def mark(office: Office, topic: str, key: str, state: str) -> Mark:
    """Decide about the error `key` (see `errors.groups`) of a topic; of no other's, whatever the key.

    Raises UsageError for another state than STATES and for what is no key.
    """
    if state not in STATES:
        raise UsageError(f"state: {state!r} must be one of {', '.join(STATES)}")
    if not _KEY.match(key):
        raise UsageError(f"{key[:40]!r} is no error's key")
    made = Mark(state, office.clock.now_ms(), office.actor.name)
    path = _path(office)
    with _alone(path):
        which = name(topic, key)
        marks = {k: m for k, m in read(office).items() if made.at_ms - m.at_ms < _KEPT_MS and k != which}
        if state != "open":
            marks[which] = made
        marks = dict(sorted(marks.items(), key=lambda one: one[1].at_ms)[-_MOST:])
        new = path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(marks))
        os.replace(new, path)
    return made


def name(topic: str, key: str) -> str:
    """Under which a topic's mark is kept: whoever may mark errors of one topic marks none of another."""
    return f"{topic} {key}"


@operation(Right.VIEW)
def read(office: Office) -> dict[str, Mark]:
    """Every mark by its `name`."""
    try:
        return msgspec.json.decode(_path(office).read_bytes(), type=dict[str, Mark])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # gevent's os.close closes only in the hub's next turn
        os.close(fd)


def _path(office: Office) -> Path:
    return office.config.bus.data_dir / "errors.json"
