"""The journal as operators read it: the database, read only, and the log files for what is not in it yet.

Floor 3. Nothing is invisible for the second until the ticker takes it over, nor while no ticker runs. Ids, fields and traces
are found by index; anything else is looked for from the newest row back, in stretches, for a bounded time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import apsw
import gevent
import msgspec

from pepperbus.journal import failures, log
from pepperbus.journal.contract import Row
from pepperbus.journal.fields import key_of
from pepperbus.journal.store import error_text, signed

SEARCH_SECONDS = 2.0
_STRETCH = 1024, 65_536  # rows of a scan's first and widest stretch
_LATE_MS = 10_000  # so much later than what they tell of may rows be written at most, beside how long it took
_NEAR_IDS = 1000 << 24  # a second's worth, in the numbers of ids.py
_decode = msgspec.msgpack.Decoder(Row).decode
_Result = TypeVar("_Result")


class Found(list[Row]):
    """Rows of a search, newest first. `complete` False: the time was over before everything was looked at.

    `reached_ms`: how far back the look came, when it is not complete.
    """

    complete = True
    reached_ms = 0


class Reader:
    """The operators' end: read only, bounded; a database that is not there yet is an empty one."""

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
        field: str = "",
        limit: int = 100,
    ) -> Found:
        """Newest first. `error` matches reason and error code of failures (without case), `text` the kept content.

        `trace` is a whole one, that of the push or of an attempt; `field` is `path=value` of the queue's `index`.

        Stops after 2 s of looking and says so (`complete`).
        """
        wanted = _Wanted(topic, outcome, since_ms, error.lower(), text.encode(), trace, field)
        return _in_thread(lambda: self._search(wanted, limit))

    def failed(self, topic: str, since_ms: int, now_ms: int) -> failures.Counted:
        """Every failure since then (0: of all that is kept), counted by error, of one topic or ("") of all.

        Counting begins with the bin of time in which `since_ms` lies.
        """
        return _in_thread(lambda: self._failed(topic, since_ms, failures.width_for(since_ms, now_ms)))

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

    def _failed(self, topic: str, since_ms: int, width: int) -> failures.Counted:
        known: failures.Known = {}
        with ExitStack() as stack:
            tails, positions, connection = self._snapshot(stack)
            if connection:
                known = failures.read(connection, topic, since_ms, width)
            for data in _unread(tails, positions):
                failures.add(known, (row for row, _ in log.read(data)), topic, since_ms, width)
            found = list(failures.with_examples(known, connection)) if connection else [*known.values()]
        begin = since_ms or min((at for one in found for at in one.bins), default=0)
        return failures.Counted(found, begin - begin % width, width)

    def _search_database(
        self, connection: apsw.Connection, wanted: _Wanted, limit: int, deadline: float, found: Found
    ) -> None:
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 1000)
        try:
            if wanted.field:
                found += _by_field(connection, wanted, limit)
            elif not (wanted.trace and _by_trace(connection, wanted, limit, found)):
                _scan(connection, wanted, limit, found)
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


def _by_field(connection: apsw.Connection, wanted: _Wanted, limit: int) -> Iterator[Row]:
    """CROSS JOIN: the few rows with that field are looked at, whatever else is asked of them."""
    where, values = wanted.sql()
    query = (
        "SELECT data FROM fields CROSS JOIN rows ON rows.rowid = fields.line "
        f"WHERE fields.key = ? AND {where} ORDER BY fields.line DESC"
    )
    rows = (_decode(data) for (data,) in connection.execute(query, (key_of(wanted.field), *values)))
    return islice((row for row in rows if wanted.matches(row)), limit)


def _by_trace(connection: apsw.Connection, wanted: _Wanted, limit: int, found: Found) -> bool:
    """A trace is a number of the ids' form and the jobs of its push got theirs at once after it, so they are neighbours.

    False when nothing is there: then it is that of an attempt, or of a push whose clock went back.
    """
    number = wanted.trace.partition("-")[0]
    if not (number.isdecimal() and int(number) >> 63 == 1):
        return False
    where, values = wanted.sql()
    near = (signed(int(number)) - _NEAR_IDS, signed(int(number)) + _NEAR_IDS)
    query = f"SELECT data FROM rows WHERE job BETWEEN ? AND ? AND {where} ORDER BY job DESC LIMIT ?"
    rows = [_decode(data) for (data,) in connection.execute(query, (*near, *values, limit))]
    rows = [row for row in rows if wanted.matches(row)]
    found += rows
    return bool(rows)


def _scan(connection: apsw.Connection, wanted: _Wanted, limit: int, found: Found) -> None:
    """From the newest row back, in stretches that grow while they are quick, until enough is found or it is interrupted."""
    where, values = wanted.sql()
    newest, oldest = (int(connection.execute(f"SELECT {which}(rowid) FROM rows").get or 0) for which in ("max", "min"))
    if not newest:
        return
    query = f"SELECT data FROM rows WHERE {where} AND rowid BETWEEN ? AND ? ORDER BY rowid DESC LIMIT ?"
    end, width, left = newest, _STRETCH[0], limit
    found.reached_ms = _written_ms(connection, newest)
    while end >= oldest and left > 0:
        for (data,) in connection.execute(query, (*values, end - width + 1, end, left)):
            row = _decode(data)
            if wanted.matches(row):
                found.append(row)
                left -= 1
        end -= width
        width = min(width * 2, _STRETCH[1])
        found.reached_ms = _written_ms(connection, max(end, oldest))
        if found.reached_ms < wanted.since_ms - _LATE_MS:
            return


def _written_ms(connection: apsw.Connection, rowid: int) -> int:
    """When about the row at or after `rowid` was written: rows lie in that order, whenever what they tell of began."""
    for (data,) in connection.execute("SELECT data FROM rows WHERE rowid >= ? ORDER BY rowid LIMIT 1", (rowid,)):
        row = _decode(data)
        return int(row.at_ms + row.run_ms)
    return 0


class _Wanted(NamedTuple):
    topic: str
    outcome: str
    since_ms: int
    error: str
    text: bytes
    trace: str = ""
    field: str = ""

    def matches(self, row: Row) -> bool:
        return (
            self.topic in ("", row.topic)
            and self.outcome in ("", row.outcome, row.event)
            and row.at_ms >= self.since_ms
            and (not self.error or self.error in error_text(row))
            and self.text in row.content
            and self.trace in ("", row.in_trace, row.out_trace)
            and (not self.field or self.field in row.fields)
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
