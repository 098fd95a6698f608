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
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from pepperbus.accounts import chain
from pepperbus.accounts.aside import aside
from pepperbus.accounts.model import Actor
from pepperbus.clock import Clock, SystemClock
from pepperbus.errors import PepperbusError

SEGMENT_BYTES = 16 << 20
RESERVE_BYTES = 1 << 20
_MARGIN_BYTES = 64 << 10  # kept for the ends of what has begun
_TEXT = 2000  # characters of one value; longer ones are cut
_HEAD = re.compile(rb"(\d{20}) ([0-9a-f]{64})\n")
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
_libc = ctypes.CDLL(None, use_errno=True)


class Audit:
    """The log of one node. Raises PepperbusError when a line cannot be written."""

    def __init__(self, data_dir: Path, clock: Clock | None = None) -> None:
        self.directory = data_dir / "audit"
        self._clock = clock or SystemClock()

    def begin(self, actor: Actor, what: str, about: str, details: dict[str, Any]) -> chain.Entry:
        """Write down that something begins. Refuses when its end might find no room."""
        entry = self._entry(actor, what, about, details)
        aside(lambda: self._append(entry, _MARGIN_BYTES))
        return entry

    def end(self, begun: chain.Entry, result: str, reason: str, before: dict[str, Any], after: dict[str, Any]) -> None:
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

    def _entry(self, actor: Actor, what: str, about: str, details: dict[str, Any]) -> chain.Entry:
        return chain.Entry(
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

    def _append(self, entry: chain.Entry, margin: int) -> None:
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
                _set_head(head_fd, entry.n, chain.digest(line))
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
            if entry := chain.parsed(line):
                return entry.n, chain.digest(line + b"\n")
        return 0, chain.START

    def _segments(self) -> list[Path]:
        return sorted(self.directory.glob("*.jsonl"))

    # -- reading ---------------------------------------------------------------------------------------------------

    def search(
        self,
        *,
        who: str = "",
        what: str = "",
        about: str = "",
        result: str = "",
        since_ms: int = 0,
        before: int = 0,
        limit: int = 100,
    ) -> chain.Found:
        """Newest first, older than number `before` (0: from the end); each operation once, with its end if it has one.

        `about` matches from its beginning. Stops after 2 s of looking (`complete` False).
        """
        wanted = chain.Wanted(who, what, about, since_ms, result)
        return aside(lambda: chain.search(self._segments(), wanted, before, limit))

    def verify(self, known: str = "") -> chain.Verified:
        """Follow the whole chain. `known`: a hash noted earlier, which must still be in it."""
        return aside(lambda: self._verify(known))

    def _verify(self, known: str) -> chain.Verified:
        with self._locked() as head_fd:  # only for a moment: those who do something must not wait for those who look
            head = _head(head_fd)
            parts = [(path, path.stat().st_size) for path in self._segments()]
        return chain.verify(parts, head, known)


def _last_lines(file: BinaryIO, size: int) -> bytes:
    """The end of the file with at least one whole line in it, if it has one."""
    wanted = 4096
    while True:
        file.seek(max(0, size - wanted))
        data = file.read(size)
        if data.count(b"\n") > 1 or wanted >= size:
            return data
        wanted *= 4


def _head(fd: int) -> tuple[int, str]:
    """Number and hash of the newest line; nothing for a file that is new or holds something else."""
    match = _HEAD.fullmatch(os.pread(fd, 200, 0))
    return (int(match[1]), match[2].decode()) if match else (0, chain.START)


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
