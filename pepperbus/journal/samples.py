"""What happened when, after the counters have moved on: blocks of ten seconds for an hour, minutes for a month.

Floor 3. The ticker writes, operations read, both through SQLite: blocking, so call from a pool thread. A row is written
for a name only when something moved; the row of the name "" says that somebody looked at all. Histograms are kept whole,
so percentiles of any stretch of time are true ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import msgspec

from pepperbus import stats

BLOCK_S, MINUTE_S = 10, 60
KEPT_S = {BLOCK_S: 3600 + 2 * MINUTE_S, MINUTE_S: 31 * 86400}
#: What is counted, the order of `Sample.counts`.
COUNTED = ("pushed", "popped", "done", "failed", "retried", "dead", "returned", "refused")
#: How things stood at the end, the order of `Sample.gauges`; ages in seconds.
GAUGES = ("ready", "delayed", "leased", "dead_jobs", "oldest_s", "in_flight", "window")
_SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA auto_vacuum = INCREMENTAL;
CREATE TABLE IF NOT EXISTS names (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS samples (width INTEGER, name INTEGER, at INTEGER, data BLOB NOT NULL,
    PRIMARY KEY (width, name, at)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS samples_at ON samples (width, at);
"""


class Sample(msgspec.Struct, array_like=True):
    """One name over one block or minute. `seconds`: each second's `counts`, in blocks only. `wait`, `run`: bucket -> n."""

    counts: list[int]
    gauges: list[int]
    seconds: list[list[int]] = []
    wait: dict[int, int] = {}
    run: dict[int, int] = {}

    def count(self, name: str) -> int:
        return self.counts[COUNTED.index(name)]

    def gauge(self, name: str) -> int:
        return self.gauges[GAUGES.index(name)]

    def add(self, later: Sample) -> None:
        """Take in what came after: counts add up, gauges are the later ones."""
        self.counts = [a + b for a, b in zip(self.counts, later.counts, strict=True)]
        self.gauges = later.gauges
        for mine, theirs in ((self.wait, later.wait), (self.run, later.run)):
            for bucket, n in theirs.items():
                mine[bucket] = mine.get(bucket, 0) + n


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Sample).decode


def percentile(buckets: dict[int, int], q: float) -> float | None:
    """The q-quantile (0..1) in seconds; None when nothing was measured."""
    rank, seen = q * sum(buckets.values()), 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= rank:
            return stats.bucket_micros(bucket) / 1e6
    return None


@contextmanager
def _opened(database: Path) -> Iterator[apsw.Connection]:
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(apsw.Connection(str(database))) as connection:
        connection.set_busy_timeout(5000)
        connection.execute(_SCHEMA).fetchall()
        yield connection


def write(database: Path, width: int, at_s: int, rows: Iterable[tuple[str, Sample]]) -> None:
    """Keep the samples of the stretch that began at `at_s`. A stretch written twice is the later one."""
    with _opened(database) as connection, connection:
        for name, sample in rows:
            connection.execute("INSERT OR IGNORE INTO names (name) VALUES (?)", (name,))
            connection.execute(
                "INSERT OR REPLACE INTO samples SELECT ?, id, ?, ? FROM names WHERE name = ?",
                (width, at_s, _encode(sample), name),
            )


def stretch(database: Path, width: int, at_s: int) -> dict[str, Sample]:
    """Everything that is kept of one stretch."""
    with _opened(database) as connection:
        query = "SELECT names.name, data FROM samples JOIN names ON names.id = samples.name WHERE width = ? AND at = ?"
        return {name: _decode(data) for name, data in connection.execute(query, (width, at_s))}


def retain(database: Path, now_s: int, max_bytes: int) -> None:
    """Forget what is older than `KEPT_S`, and the oldest minutes when the file has grown over `max_bytes`."""
    with _opened(database) as connection:
        for width, kept_s in KEPT_S.items():
            connection.execute("DELETE FROM samples WHERE width = ? AND at < ?", (width, now_s - kept_s))
        pages, free, size = (
            connection.execute(f"PRAGMA {w}").get for w in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > max_bytes:
            oldest = connection.execute("SELECT min(at) FROM samples WHERE width = ?", (MINUTE_S,)).get or now_s
            connection.execute("DELETE FROM samples WHERE width = ? AND at < ?", (MINUTE_S, oldest + 86400))
        connection.execute("DELETE FROM names WHERE id NOT IN (SELECT DISTINCT name FROM samples)")
        connection.execute("PRAGMA incremental_vacuum").fetchall()


def read(database: Path, name: str, width: int, since_s: int) -> tuple[list[tuple[int, Sample]], set[int]]:
    """The samples of `name` from `since_s` on, oldest first, and the stretches in which somebody looked at all.

    The sample before `since_s` comes too, when there is one: its gauges still hold.
    """
    if not database.exists():
        return [], set()
    with closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        connection.set_busy_timeout(1000)
        try:
            mine = "FROM samples WHERE width = ? AND name = (SELECT id FROM names WHERE name = ?) AND at"
            before = connection.execute(f"SELECT at, data {mine} < ? ORDER BY at DESC LIMIT 1", (width, name, since_s))
            found = [(at, _decode(data)) for at, data in before]
            rows = connection.execute(f"SELECT at, data {mine} >= ? ORDER BY at", (width, name, since_s))
            found += [(at, _decode(data)) for at, data in rows]
            looked = {at for (at,) in connection.execute(f"SELECT at {mine} >= ?", (width, "", since_s))}
        except apsw.SQLError:  # the ticker is making the tables this moment
            return [], set()
    return found, looked
