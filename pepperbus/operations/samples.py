"""What people try in the test console: samples saved under a name for a topic, and each one's own last tries.

Floor 4. Files in `data_dir/console`, 0600 as they hold contents of jobs. A sample is everybody's who may look at the topic;
tries are their owner's alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from pepperbus.errors import NotFound, PepperbusError, UsageError
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result, to_text
from pepperbus.operations.rights import Right, may, operation

MOST_BYTES = 256 << 10  # of a content
MOST_SAMPLES = 100  # of a topic
MOST_TRIES = 30  # of a person
_Kind = TypeVar("_Kind")


class Sample(Result):
    """A content worth keeping. `encoding`: "" or base64."""

    name: str
    content: str
    encoding: str = ""
    who: str = ""
    at_ms: int = 0


class Try(Result):
    """One click on send. `way`: straight or bus; `outcome`: what the bus would do, or the id of the job it became."""

    topic: str
    way: str
    outcome: str
    content: str
    encoding: str = ""
    at_ms: int = 0


@operation(Right.VIEW, "topic")
def samples(office: Office, topic: str) -> list[Sample]:
    """Those of a topic, by name. Raises NotFound."""
    office.topic(topic)  # first: a name that is no topic's is no file's either
    return sorted(_read(_of_topic(office, topic), dict[str, Sample], {}).values(), key=lambda one: one.name)


@operation(Right.OPERATE, "topic", details=("name",))
def save(office: Office, topic: str, name: str, content: bytes) -> Sample:
    """Keep a content under a name; the same name again replaces it. Raises UsageError, NotFound."""
    office.topic(topic)
    name = " ".join(name.split())
    if not 0 < len(name) <= 100:
        raise UsageError("name: 1 to 100 characters are wanted")
    if len(content) > MOST_BYTES:
        raise UsageError(f"content: {len(content)} bytes; a sample has at most {MOST_BYTES}")
    made = Sample(name, *to_text(content), office.actor.name, office.clock.now_ms())
    path = _of_topic(office, topic)
    with _alone(path):
        known = _read(path, dict[str, Sample], {})
        if name not in known and len(known) >= MOST_SAMPLES:
            raise UsageError(f"{topic} has {MOST_SAMPLES} samples; delete one first")
        _write(path, {**known, name: made})
    return made


@operation(Right.OPERATE, "topic", details=("name",))
def forget(office: Office, topic: str, name: str) -> Sample:
    """Delete a sample. Raises NotFound."""
    office.topic(topic)
    path = _of_topic(office, topic)
    with _alone(path):
        known = _read(path, dict[str, Sample], {})
        if name not in known:
            raise NotFound(f"{topic} has no sample {name!r}")
        gone = known.pop(name)
        _write(path, known)
    return gone


@operation(Right.OPERATE, "topic", audited=False)
def tried(office: Office, topic: str, way: str, outcome: str, content: bytes) -> None:
    """Remember what this person sent; the sending itself is in the audit log."""
    if len(content) > MOST_BYTES:
        return
    made = Try(topic, way, outcome, *to_text(content), office.clock.now_ms())
    path = _of_person(office)
    with _alone(path):
        known = [one for one in _read(path, list[Try], []) if (one.topic, one.content) != (topic, made.content)]
        _write(path, [made, *known][:MOST_TRIES])


@operation(Right.VIEW)
def tries(office: Office) -> list[Try]:
    """This person's own, newest first, of topics they may still see."""
    return [one for one in _read(_of_person(office), list[Try], []) if may(office, Right.VIEW, one.topic)]


# -- files -------------------------------------------------------------------------------------------------------------


def _of_topic(office: Office, topic: str) -> Path:
    return _directory(office) / f"topic-{topic.replace('/', '~')}.json"


def _of_person(office: Office) -> Path:
    return _directory(office) / f"person-{hashlib.blake2b(office.actor.name.encode(), digest_size=12).hexdigest()}.json"


def _directory(office: Office) -> Path:
    return office.config.bus.data_dir / "console"


def _read(path: Path, kind: type[_Kind], empty: _Kind) -> _Kind:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return empty


def _write(path: Path, content: object) -> None:
    new = path.with_suffix(".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as out:
        out.write(msgspec.json.encode(content))
    os.replace(new, path)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PepperbusError(f"{error.filename or path}: {error.strerror or error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise PepperbusError(f"{error.filename or path}: {error.strerror or error}") from error
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # gevent's os.close closes only in the hub's next turn
        os.close(fd)
