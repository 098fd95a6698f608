"""The audit log as it lies on the disk: its lines, how each holds the hash of the one before, looking back through them.

Floor 2. Reads only, and waits for the disk; writing, locks and threads are audit.py's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

SEARCH_S = 2.0
BEGUN = "begun"
START = "0" * 64  # what the very first line holds


class Entry(msgspec.Struct, omit_defaults=True):
    """One line. `result`: begun, done, failed, refused. `of`: the number of the line this one ends."""

    n: int
    at_ms: int
    who: str
    via: str
    what: str
    about: str = ""
    result: str = BEGUN
    address: str = ""
    token: str = ""
    reason: str = ""
    details: dict[str, Any] = {}
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    of: int = 0
    prev: str = START


class Verified(msgspec.Struct):
    """What a look at the whole chain found. `broken`: one line for each thing that is wrong."""

    ok: bool
    entries: int
    first: int
    last: int
    head: str
    broken: list[str]


class Found(msgspec.Struct):
    """Newest first. `cursor`: what to ask with for the page after this one, 0 at the end. `complete` False: time ran out."""

    entries: list[Entry]
    cursor: int = 0
    complete: bool = True


class Wanted(NamedTuple):
    """What to look for; empty means anything. `about` matches from its beginning."""

    who: str
    what: str
    about: str
    since_ms: int
    result: str = ""

    def matches(self, entry: Entry) -> bool:
        return (
            self.who in ("", entry.who)
            and self.what in ("", entry.what)
            and self.result in ("", entry.result)
            and entry.about.startswith(self.about)
        )


def search(segments: Sequence[Path], wanted: Wanted, before: int, limit: int) -> Found:
    """Newest first, older than number `before` (0: from the end); each operation once, with its end if it has one."""
    deadline = time.monotonic() + SEARCH_S
    found, ended = Found([]), set[int]()
    for line in _backwards(segments):
        entry = parsed(line)
        if entry is None or entry.n in ended:
            continue
        if entry.of:
            ended.add(entry.of)
        if before and entry.n >= before:
            continue
        if wanted.since_ms and entry.at_ms < wanted.since_ms:
            break
        if len(found.entries) == limit:
            found.cursor = found.entries[-1].n
            break
        if wanted.matches(entry):
            found.entries.append(entry)
        if time.monotonic() > deadline:
            found.complete, found.cursor = False, entry.n
            break
    return found


def _backwards(segments: Sequence[Path]) -> Iterator[bytes]:
    for path in reversed(segments):
        yield from reversed(path.read_bytes().splitlines())


def verify(parts: Sequence[tuple[Path, int]], head: tuple[int, str], known: str) -> Verified:
    """Follow the chain through the files, each up to its size. `head`: the newest number and hash that must be in it."""
    found = Verified(True, 0, 0, 0, START, [])
    number, newest = head
    missing = {digest for digest in (newest, known) if digest not in ("", START)}
    for path, size in parts:
        with path.open("rb") as file:
            data = file.read(size)
        for line in data.splitlines(keepends=True):
            _follow(found, path.name, line)
            missing.discard(found.head)
    if newest in missing:
        found.broken.append(f"line {number} of hash {newest} is missing: the end was cut off or changed")
    if known in missing:
        found.broken.append(f"no line has the hash {known}: the log was written anew")
    found.ok = not found.broken
    return found


def _follow(found: Verified, name: str, line: bytes) -> None:
    entry = parsed(line)
    follows = (found.last + 1, found.head)
    if entry is None:
        found.broken.append(f"{name}: a line after {found.last} cannot be read")
    elif (entry.n, entry.prev) != follows and (found.last or entry.n == 1):  # old files may have been taken away
        found.broken.append(
            f"{name}: line {entry.n} does not follow line {found.last}: something was changed or taken out"
        )
    if entry is not None:
        found.first, found.last = found.first or entry.n, entry.n
    found.entries += 1
    found.head = digest(line)


def parsed(line: bytes) -> Entry | None:
    """The line's entry; None for what is none."""
    try:
        return msgspec.json.decode(line, type=Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def digest(line: bytes) -> str:
    """The hash that the next line holds."""
    return hashlib.sha256(line).hexdigest()
