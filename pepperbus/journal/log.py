"""The log file of one process incarnation: rows appended by its owner, read by the ticker and by operators.

Floor 3. Knows files and rows, no database and no configuration. A file is a run of records, each
`<length u32><crc32 u32><msgpack array of a Row>`. A record whose length or crc does not fit is the torn tail of a
killed process, or one that is being written this moment; `read` stops in front of it.

Who is alive: a writer holds flock on its newest file and on no other, so whoever gets the lock knows that the file
will never grow again. Names end in a number that is never used twice, so a remembered position can never be
taken for that of another file.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import gevent
import msgspec

from pepperbus.journal.contract import Row

SUFFIX = ".log"
ROTATE_BYTES = 8 << 20
BODY_CAP = 4096  # the beginning of an answer is what tells
STDERR_CAP = 8192  # the end of stderr is what tells: PHP's fatal line comes last
PENDING_CAP = 1 << 20  # bytes waiting for the turn's write; more are written at once

_HEAD = struct.Struct("<II")
HEAD_BYTES = _HEAD.size
_RECORD_CAP = 64 << 20
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Row).decode


class LogWriter:
    """The end of the hot path; a `JournalWriter`. `add` never blocks on more than a page-cache write and never raises.

    Rows of one turn of the hub are one `write`; those added as not `soon` wait for the next `flush`. What could not be
    written (full disk, directory gone) is counted in `dropped` and forgotten. Make it after the fork. `content_cap` may be
    changed at any time (a reload).
    """

    def __init__(self, directory: Path, process: str, content_cap: int) -> None:
        self.content_cap = content_cap
        self.dropped = 0
        self._directory = directory
        self._process = process
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._scheduled = False
        self._fd = -1
        self._size = 0

    def add(self, row: Row, soon: bool = True) -> None:
        """Remember a row; it is in the file after this turn of the hub, or (not `soon`) after the caller's `flush`."""
        try:
            data = _encode(self._capped(row))
        except (TypeError, ValueError, OverflowError):
            self.dropped += 1
            return
        self._pending.append(_HEAD.pack(len(data), zlib.crc32(data)) + data)
        self._pending_bytes += len(data) + _HEAD.size
        if self._pending_bytes > PENDING_CAP:
            self.flush()
        elif soon and not self._scheduled:
            self._scheduled = True
            gevent.get_hub().loop.run_callback(self._turn)

    def flush(self) -> None:
        """Write what is pending now. Never raises."""
        batch, self._pending, self._pending_bytes = self._pending, [], 0
        if not batch:
            return
        data = b"".join(batch)
        try:
            if self._fd < 0 or self._size >= ROTATE_BYTES:
                self._rotate()
            if os.write(self._fd, data) != len(data):
                raise OSError("short write")
            self._size += len(data)
        except OSError:
            self.dropped += len(batch)
            self._mend()

    def close(self) -> None:
        """Write out what is left and let go of the file."""
        self.flush()
        self._let_go()

    def _turn(self) -> None:
        self._scheduled = False
        self.flush()

    def _capped(self, row: Row) -> Row:
        if len(row.content) > self.content_cap or len(row.body) > BODY_CAP or len(row.stderr) > STDERR_CAP:
            return msgspec.structs.replace(
                row, content=row.content[: self.content_cap], body=row.body[:BODY_CAP], stderr=row.stderr[-STDERR_CAP:]
            )
        return row

    def _mend(self) -> None:
        """Cut off half a batch, or, where even that fails, leave the file for good."""
        if self._fd < 0:
            return
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # gevent's os.close closes only in the hub's next turn
            os.close(self._fd)
            self._fd = -1

    def _rotate(self) -> None:
        self._let_go()
        self._directory.mkdir(parents=True, exist_ok=True)
        number = time.time_ns() // 1000
        while self._fd < 0:
            self._fd = _create(self._directory / f"{self._process}.{number}{SUFFIX}")
            number += 1
        self._size = 0


def _create(path: Path) -> int:
    """A new locked file, or -1 when the name is taken or a tidying ingest was quicker than our lock."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink:
            return fd
    except BlockingIOError:
        pass
    os.close(fd)
    return -1


def files(directory: Path) -> list[Path]:
    """The log files of a directory, oldest name first; empty when there is no directory."""
    return sorted(directory.glob(f"*{SUFFIX}"), key=lambda path: path.name)


def sizes(directory: Path) -> dict[str, int]:
    """The same by name, with their lengths in bytes."""
    found = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    found[entry.name] = entry.stat().st_size
    except FileNotFoundError:  # the directory, or a file that went this moment
        pass
    return found


def is_finished(fd: int) -> bool:
    """Whether the file's writer is gone. Takes the lock when it is; closing `fd` gives it back."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read(data: bytes, start: int = 0) -> Iterator[tuple[Row, int]]:
    """Every whole row of `data` from `start`, with the position behind it; stops before the first broken record."""
    view, at = memoryview(data), start
    while at + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        record = view[at + _HEAD.size : end]
        if length > _RECORD_CAP or end > len(data) or zlib.crc32(record) != crc:
            return
        try:
            row = _decode(record)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # msgspec hands on the last two as they are
            return
        yield row, end
        at = end
