"""The audit log: append-only JSON lines in `data_dir/audit/`, each holding the hash of the one before.

Floor 2. Sidecar and command line both append, under a lock. An operation is written down before it begins and again when
it has ended (`of`: the number of its beginning), so one that was cut off shows. What is changed or missing in the middle
breaks the chain; what is cut off at the end lacks the line whose number and hash `head` holds.
Disk space for some thousand lines is reserved ahead, so that people can still act, and are still written down, when
the disk is full; when that is used up too, `begin` refuses and nothing is done.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from pepperbus.accounts.aside import aside
from pepperbus.accounts.model import Actor
from pepperbus.clock import Clock, SystemClock
from pepperbus.errors import PepperbusError

SEGMENT_BYTES = 16 << 20
RESERVE_BYTES = 1 << 20
_MARGIN_BYTES = 64 << 10  # kept for the ends of what has begun
_TEXT = 2000  # characters of one value; longer ones are cut
SEARCH_S = 2.0
BEGUN = "begun"
START = "0" * 64
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
_libc = ctypes.CDLL(None, use_errno=True)


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


class Audit:
    """The log of one node. Raises PepperbusError when a line cannot be written."""

    def __init__(self, data_dir: Path, clock: Clock | None = None) -> None:
        self.directory = data_dir / "audit"
        self._clock = clock or SystemClock()

    def begin(self, actor: Actor, what: str, about: str, details: dict[str, Any]) -> Entry:
        """Write down that something begins. Refuses when its end might find no room."""
        entry = self._entry(actor, what, about, details)
        aside(lambda: self._append(entry, _MARGIN_BYTES))
        return entry

    def end(self, begun: Entry, result: str, reason: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Write down how it ended; on the disk when this returns."""
        entry = msgspec.structs.replace(begun, of=begun.n, result=result, reason=reason[:_TEXT])
        entry.at_ms, entry.before, entry.after = self._clock.now_ms(), _bounded(before), _bounded(after)
        try:
            aside(lambda: self._append(entry, 0))
        except PepperbusError as error:
            raise PepperbusError(
                f"{begun.what} has ended ({result}), but that could not be written down: {error}"
            ) from error

    def add(self, actor: Actor, what: str, about: str, result: str, reason: str = "", **details: Any) -> None:
        """Something that took no time: a login, a refusal."""
        entry = self._entry(actor, what, about, details)
        entry.result, entry.reason = result, reason[:_TEXT]
        aside(lambda: self._append(entry, _MARGIN_BYTES))

    def _entry(self, actor: Actor, what: str, about: str, details: dict[str, Any]) -> Entry:
        return Entry(
            0,
            self._clock.now_ms(),
            actor.name[:200],
            str(actor.via),
            what,
            about[:_TEXT],
            address=actor.address,
            token=actor.token,
            details=_bounded(details),
        )

    # -- writing ---------------------------------------------------------------------------------------------------

    def _append(self, entry: Entry, margin: int) -> None:
        try:
            with self._locked() as head_fd:
                # A crash leaves `head` behind the file; a cut tail leaves it ahead, and then the gap must stay visible.
                number, entry.prev = max(_head(head_fd), self._tail(), key=lambda place: place[0])
                entry.n = number + 1
                line = msgspec.json.encode(entry) + b"\n"
                fd = self._open_segment(entry.n)
                try:
                    _reserve(fd, margin + len(line))
                    _write(fd, line)
                    os.fdatasync(fd)  # before `head` tells of it
                finally:
                    os.close(fd)
                _set_head(head_fd, entry.n, _digest(line))
        except OSError as error:
            raise PepperbusError(
                f"the audit log in {self.directory} cannot be written: {error.strerror or error}"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[int]:
        if not self.directory.is_dir():
            self.directory.mkdir(0o750, parents=True, exist_ok=True)
            _give(self.directory, self.directory.parent)
        path = self.directory / "head"
        is_new = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            if is_new:
                _give(path, self.directory)
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _open_segment(self, number: int) -> int:
        """The newest segment, or a new one named by its first line's number."""
        paths = self._segments()
        path = (
            paths[-1] if paths and paths[-1].stat().st_size < SEGMENT_BYTES else self.directory / f"{number:012d}.jsonl"
        )
        is_new = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if is_new:
            _give(path, self.directory)
        return fd

    def _tail(self) -> tuple[int, str]:
        """Number and hash of the last whole line; half a line, left by a power cut, is taken away."""
        for path in reversed(self._segments()):
            with path.open("rb+") as file:
                size = file.seek(0, os.SEEK_END)
                data = _last_lines(file, size)
                whole = data.rfind(b"\n") + 1
                if whole < len(data):
                    file.truncate(size - len(data) + whole)
            line = data[:whole].rstrip(b"\n").rpartition(b"\n")[2]
            if entry := _parsed(line):
                return entry.n, _digest(line + b"\n")
        return 0, START

    def _segments(self) -> list[Path]:
        return sorted(self.directory.glob("*.jsonl"))

    # -- reading ---------------------------------------------------------------------------------------------------

    def search(
        self, *, who: str = "", what: str = "", about: str = "", since_ms: int = 0, before: int = 0, limit: int = 100
    ) -> Found:
        """Newest first, older than number `before` (0: from the end); each operation once, with its end if it has one.

        `about` matches from its beginning. Stops after 2 s of looking (`complete` False).
        """
        wanted = (who, what, about, since_ms)
        return aside(lambda: self._search(wanted, before, limit))

    def _search(self, wanted: tuple[str, str, str, int], before: int, limit: int) -> Found:
        who, what, about, since_ms = wanted
        deadline = time.monotonic() + SEARCH_S
        found, ended = Found([]), set[int]()
        for line in self._backwards():
            entry = _parsed(line)
            if entry is None or entry.n in ended:
                continue
            if entry.of:
                ended.add(entry.of)
            if before and entry.n >= before:
                continue
            if since_ms and entry.at_ms < since_ms:
                break
            if len(found.entries) == limit:
                found.cursor = found.entries[-1].n
                break
            if who in ("", entry.who) and what in ("", entry.what) and entry.about.startswith(about):
                found.entries.append(entry)
            if time.monotonic() > deadline:
                found.complete, found.cursor = False, entry.n
                break
        return found

    def _backwards(self) -> Iterator[bytes]:
        for path in reversed(self._segments()):
            yield from reversed(path.read_bytes().splitlines())

    def verify(self, known: str = "") -> Verified:
        """Follow the whole chain. `known`: a hash noted earlier, which must still be in it."""
        return aside(lambda: self._verify(known))

    def _verify(self, known: str) -> Verified:
        found = Verified(True, 0, 0, 0, START, [])
        with self._locked() as head_fd:
            number, newest = _head(head_fd)
            missing = {digest for digest in (newest, known) if digest not in ("", START)}
            for path in self._segments():
                for line in path.read_bytes().splitlines(keepends=True):
                    self._follow(found, path.name, line)
                    missing.discard(found.head)
        if newest in missing:
            found.broken.append(f"line {number} of hash {newest} is missing: the end was cut off or changed")
        if known in missing:
            found.broken.append(f"no line has the hash {known}: the log was written anew")
        found.ok = not found.broken
        return found

    def _follow(self, found: Verified, name: str, line: bytes) -> None:
        entry = _parsed(line)
        if entry is None:
            found.broken.append(f"{name}: a line after {found.last} cannot be read")
        elif found.last and (entry.n, entry.prev) != (found.last + 1, found.head):
            found.broken.append(
                f"{name}: line {entry.n} does not follow line {found.last}: something was changed or taken out"
            )
        if entry is not None:
            found.first, found.last = found.first or entry.n, entry.n
        found.entries += 1
        found.head = _digest(line)


def _last_lines(file: BinaryIO, size: int) -> bytes:
    """The end of the file with at least one whole line in it, if it has one."""
    wanted = 4096
    while True:
        file.seek(max(0, size - wanted))
        data = file.read(size)
        if data.count(b"\n") > 1 or wanted >= size:
            return data
        wanted *= 4


def _parsed(line: bytes) -> Entry | None:
    try:
        return msgspec.json.decode(line, type=Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _head(fd: int) -> tuple[int, str]:
    number, _, digest = os.pread(fd, 200, 0).decode().strip().partition(" ")
    return (int(number), digest) if digest else (0, START)


def _set_head(fd: int, number: int, digest: str) -> None:
    os.pwrite(fd, f"{number:020d} {digest}\n".encode(), 0)  # always the same length: nothing of the one before is left


def _reserve(fd: int, needed: int) -> None:
    """Room for `needed` bytes, taken from the disk ahead of time. Raises OSError when there is none."""
    stat = os.fstat(fd)
    if stat.st_blocks * 512 - stat.st_size >= needed:
        return
    result = _libc.fallocate(fd, _KEEP_SIZE, ctypes.c_long(stat.st_size), ctypes.c_long(RESERVE_BYTES))
    if result and (number := ctypes.get_errno()) not in (95, 38, 22):  # not on this file system: then no reserve
        raise OSError(number, os.strerror(number))


def _write(fd: int, line: bytes) -> None:
    size = os.fstat(fd).st_size
    if os.write(fd, line) != len(line):
        os.ftruncate(fd, size)  # half a line on a full disk would break the chain
        raise OSError(28, os.strerror(28))


def _give(path: Path, like: Path) -> None:
    """What root makes belongs to whom the directory belongs to."""
    owner = like.stat()
    if os.geteuid() == 0 and owner.st_uid:
        os.chown(path, owner.st_uid, owner.st_gid)


def _bounded(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value[:_TEXT] if isinstance(value, str) else value for key, value in list(facts.items())[:50]}
