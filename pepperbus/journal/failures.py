"""Failures counted by error while their rows are taken over, so that showing them costs the same however many there were.

Floor 3. An error is a topic and its words without what differs from job to job. Each is counted in bins of three widths: the
finest for the last hours, the widest as long as the rows are kept; they are written in the transaction of the rows they count.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import apsw
import msgspec

from pepperbus.journal.contract import Row

#: Width of a bin in ms -> how long such bins are kept; 0: as long as the rows.
WIDTHS = {150_000: 3 * 3_600_000, 3_600_000: 50 * 3_600_000, 21_600_000: 0}
_MOST_BINS = 48  # that a time is looked at in, if there are bins wide enough
_WIDEST = max(WIDTHS)
_MOST_ERRORS = 200  # of a topic in a bin of the widest; what is more (texts that never repeat) is counted as one
OTHERS = "…"
SCHEMA = """
CREATE TABLE IF NOT EXISTS failures (
    width INTEGER NOT NULL, at INTEGER NOT NULL, topic TEXT NOT NULL, key TEXT NOT NULL, count INTEGER NOT NULL,
    dead INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, line INTEGER NOT NULL,
    PRIMARY KEY (width, at, topic, key)) WITHOUT ROWID;
"""
_ADD = """
INSERT INTO failures VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET count = count + excluded.count,
    dead = dead + excluded.dead, first = min(first, excluded.first), last = max(last, excluded.last),
    line = max(line, excluded.line)
"""
_VARYING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b|'[^']*'|\"[^\"]*\"|\d+(?:\.\d+)*", re.IGNORECASE)
_COUNTED = re.compile(r"^(attempt \d+ of \d+ failed: |sendToCGI fail: )+")
_decode = msgspec.msgpack.Decoder(Row).decode


@dataclass(slots=True)
class Failure:
    """One error of one topic over the time looked at. `dead`: how many of `count` ended a job; `example`: the latest row.

    `bins`: beginning of a bin in ms -> how many; `line`: where the latest row is, 0 for one that is not in the database yet.
    """

    topic: str
    key: str
    count: int = 0
    dead: int = 0
    first_ms: int = 1 << 62
    last_ms: int = 0
    line: int = 0
    bins: dict[int, int] = field(default_factory=dict)
    example: Row | None = None

    def add(self, at: int, count: int, dead: int, first_ms: int, last_ms: int) -> None:
        self.count += count
        self.dead += dead
        self.first_ms = min(self.first_ms, first_ms)
        self.last_ms = max(self.last_ms, last_ms)
        self.bins[at] = self.bins.get(at, 0) + count


Known = dict[tuple[str, str], Failure]


class Counted(NamedTuple):
    """What was counted from `from_ms` on, in bins of `width_ms`."""

    failures: list[Failure]
    from_ms: int
    width_ms: int


def uncounted(reason: str) -> str:
    """Why, without which of how many attempts it was."""
    return _COUNTED.sub("", reason)


def words(row: Row) -> str:
    """Why, whatever there is to say."""
    return uncounted(row.reason) or row.error_code or f"Code {row.code}"


@lru_cache(4096)
def shape(reason: str) -> str:
    """A reason without what differs from job to job."""
    return _VARYING.sub("…", reason.split("\n", 1)[0])[:300]


@lru_cache(4096)
def key(topic: str, text: str) -> str:
    """By which an error is known: the first 64 bits of a BLAKE2b of topic and shape, in hex."""
    return hashlib.blake2b(f"{topic}\0{text}".encode(), digest_size=8).hexdigest()


def counts(row: Row) -> bool:
    return row.outcome in ("retry", "dead")


def width_for(since_ms: int, now_ms: int) -> int:
    """The narrowest bins of which not too many reach back to `since_ms` (0: as far as there are any)."""
    fitting = (width for width in sorted(WIDTHS) if now_ms - since_ms <= width * _MOST_BINS)
    return next(fitting, _WIDEST)


# -- writing: the ticker, in the transaction of the rows ----------------------------------------------------------------


def count(rows: Iterable[tuple[int, Row]], connection: apsw.Connection) -> None:
    """Count the failures among these rows, each with its line in the table."""
    fine = min(WIDTHS)
    made: dict[tuple[int, str, str], list[int]] = {}  # bin, topic, key -> count, dead, first, last, line
    for line, row in rows:
        if counts(row):
            name = (row.at_ms - row.at_ms % fine, row.topic, key(row.topic, shape(words(row))))
            one = made.setdefault(name, [0, 0, row.at_ms, row.at_ms, line])
            one[0] += 1
            one[1] += row.outcome == "dead"
            one[2:] = min(one[2], row.at_ms), max(one[3], row.at_ms), line
    for (at, topic, which), facts in made.items():
        which = _counted_as(at - at % _WIDEST, topic, which, connection)
        connection.executemany(_ADD, ((width, at - at % width, topic, which, *facts) for width in WIDTHS))


def _counted_as(at: int, topic: str, which: str, connection: apsw.Connection) -> str:
    """Its own key, or that of all others when there are too many."""
    where = "FROM failures WHERE width = ? AND at = ? AND topic = ?"
    if connection.execute(f"SELECT 1 {where} AND key = ?", (_WIDEST, at, topic, which)).get:
        return which
    n = connection.execute(f"SELECT count(*) {where}", (_WIDEST, at, topic)).get
    return which if int(n) < _MOST_ERRORS else key(topic, OTHERS)


def retain(connection: apsw.Connection, oldest_ms: int) -> None:
    """Forget bins that ended before `oldest_ms`, and the narrow ones once wider ones serve."""
    with connection:
        for width, kept_ms in WIDTHS.items():
            newest = connection.execute("SELECT max(at) FROM failures WHERE width = ?", (width,)).get or 0
            limit = max(oldest_ms - width, newest - kept_ms if kept_ms else 0)
            connection.execute("DELETE FROM failures WHERE width = ? AND at < ?", (width, limit))


# -- reading -----------------------------------------------------------------------------------------------------------


def read(connection: apsw.Connection, topic: str, since_ms: int, width: int) -> Known:
    """What the database holds from the bin on in which `since_ms` lies, without examples."""
    known: Known = {}
    query = "SELECT topic, key, line, at, count, dead, first, last FROM failures WHERE width = ? AND at >= ?"
    values: list[object] = [width, since_ms - since_ms % width]
    if topic:
        query, values = f"{query} AND topic = ?", [*values, topic]
    for name, which, line, *facts in connection.execute(query, values):
        one = known.get((name, which)) or known.setdefault((name, which), Failure(name, which))
        one.add(*facts)
        one.line = max(one.line, line)
    return known


def add(known: Known, rows: Iterable[Row], topic: str, since_ms: int, width: int) -> None:
    """Count rows that are in no database yet; the later ones are the examples."""
    for row in rows:
        if counts(row) and topic in ("", row.topic) and row.at_ms >= since_ms - since_ms % width:
            which = key(row.topic, shape(words(row)))
            one = known.setdefault((row.topic, which), Failure(row.topic, which))
            one.add(row.at_ms - row.at_ms % width, 1, int(row.outcome == "dead"), row.at_ms, row.at_ms)
            if one.example is None or row.at_ms >= one.example.at_ms:
                one.example = row


def with_examples(known: Known, connection: apsw.Connection) -> Iterator[Failure]:
    """Each with its latest row; without those of which no row is left."""
    for one in known.values():
        if one.example is None:
            data = connection.execute("SELECT data FROM rows WHERE rowid = ?", (one.line,)).get
            one.example = _decode(data) if data else None
        if one.example is not None:
            yield one
