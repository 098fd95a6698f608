"""What a queue's file was before each change, kept beside the bus' data, so that a change can be seen and taken back.

Floor 4. The kept texts hold secrets as the files do: they are the daemon's alone, and nothing here shows one.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from configobj import ConfigObjError

from pepperbus.errors import NotFound
from pepperbus.operations.office import Office
from pepperbus.operations.queue_text import STARS, starred
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, operation

KEPT = 100  # versions of a queue
_NAME = re.compile(r"(\d+)-(.*)\.conf")
#: In what cannot be read as a file, and in comments: a line that sounds like a secret, a login in a url.
_SECRET = re.compile(r"auth|cookie|token|secret|passw|key|sign|credential", re.IGNORECASE)
_LOGIN = re.compile(r"://[^/\s]*@")
_MARKED = re.compile(r"\*\*\*[0-9a-f]{16}")


class Version(Result):
    """A file as it stood until `at_ms`, when `who` changed it. `diff`: what that change did, secrets hidden."""

    at_ms: int
    who: str
    diff: list[str] = msgspec.field(default_factory=list)


@contextmanager
def keeping(office: Office, name: str, file: Path) -> Iterator[None]:
    """Around a change: the text that is about to go is remembered, unless the change fails. Raises OSError."""
    if not file.exists():
        yield
        return
    directory = _made(office, name)
    who = re.sub(r"[^\w.@-]", "_", office.actor.name)[:64]
    kept = directory / f"{office.clock.now_ms()}-{who}.conf"
    new = kept.with_suffix(".new")  # half of it, on a full disk, must not look like a version
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as out:
            out.write(file.read_text())
        os.replace(new, kept)
        _give(office, directory.parent, directory, kept)
        yield
    except BaseException:
        new.unlink(missing_ok=True)
        kept.unlink(missing_ok=True)
        raise
    for old in sorted(directory.glob("*.conf"))[:-KEPT]:
        old.unlink(missing_ok=True)


def _made(office: Office, name: str) -> Path:
    directory = _directory(office, name)
    office.config.bus.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    for one in (directory.parent, directory):
        one.mkdir(mode=0o700, exist_ok=True)
    return directory


def _give(office: Office, *made: Path) -> None:
    """Root changes the file, the daemon reads its versions."""
    if os.geteuid() == 0:
        owner = office.config.bus.data_dir.stat()
        for one in made:
            os.chown(one, owner.st_uid, owner.st_gid)


@operation(Right.ADMIN, "name", audited=False)
def versions(office: Office, name: str, file: Path) -> list[Version]:
    """The changes of queue `name`, latest first. Changes made by hand show in the one after them."""
    texts = kept(office, name, file)
    pairs = itertools.pairwise(texts)
    return [Version(at_ms, who, diff(before, after)) for (at_ms, who, before), (_, _, after) in pairs][::-1]


def kept(office: Office, name: str, file: Path) -> list[tuple[int, str, str]]:
    """(until when in ms, who changed it then, text), oldest first; the file as it is comes last. Secrets are in them."""
    named = ((_NAME.fullmatch(path.name), path) for path in sorted(_directory(office, name).glob("*.conf")))
    texts = [(int(match[1]), match[2], path.read_text()) for match, path in named if match]
    return [*texts, (0, "", file.read_text() if file.exists() else "")]


def newest(office: Office, name: str) -> int:
    """When (ms) the queue's file was changed last; 0 for never."""
    kept = [_NAME.fullmatch(path.name) for path in _directory(office, name).glob("*.conf")]
    return max((int(match[1]) for match in kept if match), default=0)


def text_of(office: Office, name: str, at_ms: int) -> str:
    """The file as it was until then. Raises NotFound."""
    for path in _directory(office, name).glob(f"{at_ms}-*.conf"):
        return path.read_text()
    raise NotFound(f"no version of {name} from {at_ms}; see its list")


def diff(before: str, after: str) -> list[str]:
    """The lines that differ, with some around them; secrets are stars, a changed one is said to be changed."""
    key = os.urandom(16)
    was, now = (_marked(text, key).splitlines() for text in (before, after))
    lines = difflib.unified_diff(was, now, lineterm="", n=2)
    return [line[:1] + _hidden(line[1:]) for line in list(lines)[2:]]


def _marked(text: str, key: bytes) -> str:
    """`text` with something in the place of each secret that is the same only where the secret is."""

    def mark(secret: str) -> str:
        return f"{STARS}{hashlib.blake2b(secret.encode(), digest_size=8, key=key).hexdigest()}"

    try:
        return starred(text, mark)
    except ConfigObjError:
        return text


def _hidden(line: str) -> str:
    key, equals, value = line.partition("=")
    if equals and value.strip() and _SECRET.search(key):
        line = f"{key}={value[: len(value) - len(value.lstrip())]}{STARS}"
    return _MARKED.sub(STARS, _LOGIN.sub(f"://{STARS}@", line))


def _directory(office: Office, name: str) -> Path:
    return office.config.bus.data_dir / "versions" / name
