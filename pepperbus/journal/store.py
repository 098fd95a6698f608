"""The journal database: filled by the ticker alone, searched by operators.

Floor 3. `ingest` and `retain` belong to the one writing process; they wait for the disk, so under gevent
they are called in a pool thread. `Reader` opens the file read only and looks into the log files as well for what the
ticker has not taken over yet: nothing is invisible, not even for a second, nor while no ticker runs.

A position is remembered in the transaction that stores the rows before it, so a row is ingested exactly once,
whenever the process dies. Rows lie in the order of ingestion, which is the order of time to within a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw
import msgspec

from pepperbus.journal import failures, log
from pepperbus.journal.contract import Row
from pepperbus.journal.fields import key_of

_decode = msgspec.msgpack.Decoder(Row).decode
LINGER_S = 2.0  # a finished file lies that long before it is deleted, for those who follow
BATCH_BYTES = 16 << 20  # of log file a transaction
_DELETE_ROWS = 20_000
_SCHEMA = f"""
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA journal_size_limit = 67108864;
CREATE TABLE IF NOT EXISTS rows (
    job INTEGER NOT NULL, topic TEXT NOT NULL, at INTEGER NOT NULL, outcome TEXT NOT NULL,
    failed INTEGER NOT NULL, error TEXT NOT NULL, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS rows_job ON rows (job);
CREATE INDEX IF NOT EXISTS rows_topic ON rows (topic);
CREATE INDEX IF NOT EXISTS rows_failed ON rows (topic) WHERE failed;
CREATE TABLE IF NOT EXISTS fields (key INTEGER NOT NULL, line INTEGER NOT NULL, PRIMARY KEY (key, line)) WITHOUT ROWID;
{failures.SCHEMA}
CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
"""


class Ingested(NamedTuple):
    """What one `ingest` did. `torn`: files of killed processes whose last bytes were no whole row."""

    rows: int = 0
    bytes: int = 0
    finished: int = 0
    torn: int = 0


@contextmanager
def _opened(path: Path) -> Iterator[apsw.Connection]:
    """The writing end. It is opened anew each time, so a database that somebody deletes is simply begun again.

    Closing does not move the write-ahead log into the database: that costs disk flushes every second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(apsw.Connection(str(path))) as connection:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.set_busy_timeout(5000)
        connection.execute(_SCHEMA).fetchall()
        yield connection


def ingest(directory: Path, database: Path, linger_s: float = LINGER_S) -> Ingested:
    """Take over every row that is in the log files by now; delete files read whole whose writer is gone."""
    total = Ingested()
    with _opened(database) as connection:
        positions = dict(connection.execute("SELECT name, position FROM files"))
        paths = log.files(directory)
        for path in paths:
            done = _ingest_file(path, positions.get(path.name, 0), connection, linger_s)
            total = Ingested(*(a + b for a, b in zip(total, done, strict=True)))
        gone = positions.keys() - {path.name for path in paths}
        connection.executemany("DELETE FROM files WHERE name = ?", ((name,) for name in gone))
    return total


def _ingest_file(path: Path, position: int, connection: apsw.Connection, linger_s: float) -> Ingested:
    start, rows = position, 0
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return Ingested()
    with file:
        finished = log.is_finished(file.fileno())
        while True:
            file.seek(position)
            batch = list(_records(file.read(BATCH_BYTES)))
            if not batch:
                break
            position += batch[-1][2]
            rows += len(batch)
            with connection:
                connection.executemany(
                    "INSERT INTO rows VALUES (?,?,?,?,?,?,?)", (_columns(row, data) for row, data, _ in batch)
                )
                first = connection.last_insert_rowid() - len(batch) + 1
                lines = [(first + i, row) for i, (row, _, _) in enumerate(batch)]
                _index(lines, connection)
                failures.count(lines, connection)
                connection.execute("INSERT OR REPLACE INTO files VALUES (?,?)", (path.name, position))
        stat = os.fstat(file.fileno())
        finished = finished and time.time() - stat.st_mtime >= linger_s
        torn = finished and stat.st_size > position
        if finished:
            path.unlink(missing_ok=True)
    return Ingested(rows, position - start, int(finished), int(torn))


def _records(data: bytes) -> Iterator[tuple[Row, bytes, int]]:
    start = 0
    for row, end in log.read(data):
        yield row, data[start + log.HEAD_BYTES : end], end
        start = end


def _index(lines: list[tuple[int, Row]], connection: apsw.Connection) -> None:
    """Remember where the fields of these rows are."""
    found = ((key_of(field), line) for line, row in lines for field in row.fields)
    connection.executemany("INSERT OR IGNORE INTO fields VALUES (?,?)", found)


def _columns(row: Row, data: bytes) -> tuple[object, ...]:
    failed = row.outcome in ("retry", "dead") or row.event == "released"
    return signed(row.job_id), row.topic, row.at_ms, row.outcome, failed, error_text(row) if failed else "", data


def error_text(row: Row) -> str:
    """What a search for an error looks at."""
    return f"{row.error_code} {row.reason}".lower()


def signed(job_id: int) -> int:
    """SQLite's integers have a sign; ids, which all have the top bit, keep their order."""
    return job_id - (1 << 64) if job_id >> 63 else job_id


def retain(database: Path, oldest_ms: int, max_bytes: int) -> int:
    """Delete rows from before `oldest_ms` and, oldest first, what exceeds `max_bytes`. Returns how many rows went.

    Works in short transactions and gives the freed pages back to the file system.
    """
    deleted = 0
    with _opened(database) as connection:
        while gone := _delete_oldest(connection, "at < ?", oldest_ms):
            deleted += gone
        while _used(connection) > max_bytes and (gone := _delete_oldest(connection, "?", 1)):
            deleted += gone
        left_ms = connection.execute("SELECT at FROM rows ORDER BY rowid LIMIT 1").get or 0
        failures.retain(connection, max(oldest_ms, int(left_ms)))
        if deleted:
            connection.execute("PRAGMA incremental_vacuum").fetchall()
    return deleted


def _used(connection: apsw.Connection) -> int:
    """Bytes of live pages."""
    pages, free, size = (
        connection.execute(f"PRAGMA {what}").get for what in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _delete_oldest(connection: apsw.Connection, condition: str, value: int) -> int:
    """Looks before it begins to write: a transaction that looked first cannot write once somebody else has.

    A row without fields ends with an empty list, so only those that have some are read.
    """
    last = connection.execute(
        f"SELECT max(rowid) FROM (SELECT rowid FROM rows ORDER BY rowid LIMIT {_DELETE_ROWS})"
    ).get
    chosen = f"rowid <= ? AND {condition}"
    indexed = connection.execute(
        f"SELECT rowid, data FROM rows WHERE {chosen} AND substr(data, -1) <> x'90'", (last, value)
    )
    keys = [(key_of(field), line) for line, data in indexed for field in _decode(data).fields]
    with connection:
        connection.executemany("DELETE FROM fields WHERE key = ? AND line = ?", keys)
        connection.execute(f"DELETE FROM rows WHERE {chosen}", (last, value))
    return int(connection.changes())
