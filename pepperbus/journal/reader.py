"""The journal as operators read it: the database, read only, and the log files for what is not in it yet.

Floor 3. Nothing is invisible for the second until the ticker takes it over, nor while no ticker runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import apsw
import gevent
import msgspec

from pepperbus.journal import log
from pepperbus.journal.contract import Row
from pepperbus.journal.store import error_text, signed

SEARCH_SECONDS = 2.0
_decode = msgspec.msgpack.Decoder(Row).decode
_Result = TypeVar("_Result")


class Found(list[Row]):
    """Rows of a search, newest first. `complete` False: the time was over before everything was looked at."""

    complete = True


class Reader:
    """The operators' end, a `JournalReader`: read only; a database that is not there yet is an empty one."""

    def __init__(self, database: Path, directory: Path) -> None:
        self._database = database
        self._directory = directory

    def life(self, job_id: int) -> list[Row]:
        """Every row of one job, oldest first, all topics."""
        return _in_thread(lambda: self._life(job_id))

    def search(
        self,
        *,
        topic: str = "",
        outcome: str = "",
        since_ms: int = 0,
        error: str = "",
        text: str = "",
        trace: str = "",
        limit: int = 100,
    ) -> Found:
        """Newest first. `error` matches reason and error code of failures (without case), `text` the kept content.

        `trace` is a whole one, that of the push or of an attempt.

        Stops after 2 s of looking and says so (`complete`).
        """
        wanted = _Wanted(topic, outcome, since_ms, error.lower(), text.encode(), trace)
        return _in_thread(lambda: self._search(wanted, limit))

    def _life(self, job_id: int) -> list[Row]:
        packed = b"\xcf" + job_id.to_bytes(8, "big")  # how msgpack spells an id, whose top bit is set
        with ExitStack() as stack:
            tails, positions, connection = self._snapshot(stack)
            found = [
                row
                for data in _unread(tails, positions)
                if packed in data
                for row, _ in log.read(data)
                if row.job_id == job_id
            ]
            if connection:
                query = "SELECT data FROM rows WHERE job = ?"
                found += [_decode(data) for (data,) in connection.execute(query, (signed(job_id),))]
        return sorted(found, key=lambda row: row.at_ms)

    def _search(self, wanted: _Wanted, limit: int) -> Found:
        deadline = time.monotonic() + SEARCH_SECONDS
        found = Found()
        with ExitStack() as stack:
            tails, positions, connection = self._snapshot(stack)
            for data in _unread(tails, positions):
                found += [row for row, _ in log.read(data) if wanted.matches(row)]
                if time.monotonic() > deadline:
                    found.complete = False
                    break
            if connection:
                self._search_database(connection, wanted, limit, deadline, found)
        found.sort(key=lambda row: row.at_ms, reverse=True)
        del found[limit:]
        return found

    def _search_database(
        self, connection: apsw.Connection, wanted: _Wanted, limit: int, deadline: float, found: Found
    ) -> None:
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 1000)
        where, values = wanted.sql()
        try:
            for (data,) in connection.execute(
                f"SELECT data FROM rows WHERE {where} ORDER BY rowid DESC LIMIT ?", (*values, limit)
            ):
                row = _decode(data)
                if wanted.matches(row):
                    found.append(row)
        except apsw.InterruptError:
            found.complete = False

    def _snapshot(self, stack: ExitStack) -> tuple[list[IO[bytes]], dict[str, int], apsw.Connection | None]:
        """The log files opened, then the database as it stands.

        In this order: a file that the ticker deletes in between has its rows in what we see of the database.
        """
        files = (_open(path) for path in log.files(self._directory))
        tails = [stack.enter_context(file) for file in files if file]
        if not self._database.exists():
            return tails, {}, None
        connection = apsw.Connection(str(self._database), flags=apsw.SQLITE_OPEN_READONLY)
        stack.enter_context(closing(connection))
        connection.set_busy_timeout(1000)
        connection.execute("BEGIN")
        try:
            positions = dict(connection.execute("SELECT name, position FROM files"))
        except apsw.SQLError:  # the ticker is making the tables this moment
            return tails, {}, None
        return tails, positions, connection


class _Wanted(NamedTuple):
    topic: str
    outcome: str
    since_ms: int
    error: str
    text: bytes
    trace: str = ""

    def matches(self, row: Row) -> bool:
        return (
            self.topic in ("", row.topic)
            and self.outcome in ("", row.outcome, row.event)
            and row.at_ms >= self.since_ms
            and (not self.error or self.error in error_text(row))
            and self.text in row.content
            and self.trace in ("", row.in_trace, row.out_trace)
        )

    def sql(self) -> tuple[str, list[object]]:
        """What the database can decide; `matches` has the last word."""
        parts: list[tuple[str, object]] = []
        if self.topic:
            parts.append(("topic = ?", self.topic))
        if self.since_ms:
            parts.append(("at >= ?", self.since_ms))
        if self.outcome in ("done", "retry", "dead", "back"):
            parts.append(("outcome = ?", self.outcome))
        if self.text:
            parts.append(("instr(data, ?)", self.text))
        if self.trace:
            parts.append(("instr(data, ?)", self.trace.encode()))
        if self.error:
            parts.append(("failed AND instr(error, ?)", self.error))
        return " AND ".join(["1", *(sql for sql, _ in parts)]), [value for _, value in parts]


def _open(path: Path) -> IO[bytes] | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _unread(tails: Iterable[IO[bytes]], positions: dict[str, int]) -> Iterator[bytes]:
    for file in tails:
        file.seek(positions.get(os.path.basename(file.name), 0))
        yield file.read()


def _in_thread(work: Callable[[], _Result]) -> _Result:
    """Disk waits belong into a pool thread, so that the web sidecar's hub goes on."""
    return gevent.get_hub().threadpool.apply(work)
