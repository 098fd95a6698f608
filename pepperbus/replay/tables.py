"""The tables of replays on disk, and what is read from and written to them within one transaction.

Floor 3. Whoever calls has begun the transaction; nothing here waits for anything but the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar, cast

import apsw
import gevent
import msgspec

from pepperbus.errors import NotFound
from pepperbus.replay.model import Deed, Fate, Item, Phase, Replay

SCHEMA = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS replays (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, state TEXT NOT NULL,
    changed INTEGER NOT NULL, open INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS items (replay INTEGER NOT NULL, number INTEGER NOT NULL, job INTEGER NOT NULL,
    phase INTEGER NOT NULL, fate INTEGER NOT NULL, stamp INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (replay, number)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_phase ON items (replay, phase, number);
CREATE TABLE IF NOT EXISTS deeds (replay INTEGER NOT NULL, at INTEGER NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
    why TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS deeds_replay ON deeds (replay);
CREATE TABLE IF NOT EXISTS found (replay INTEGER NOT NULL, job INTEGER NOT NULL, stamp INTEGER NOT NULL,
    pick INTEGER NOT NULL, PRIMARY KEY (replay, job)) WITHOUT ROWID;
"""
COLUMNS = "number, job, phase, fate, stamp, at"
_COUNTED = {Fate.SUCCEEDED: "succeeded", Fate.FAILING: "failing", Fate.FAILED: "failed", Fate.REMOVED: "removed"}
encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Replay).decode
_Result = TypeVar("_Result")


def in_thread(work: Callable[[], _Result]) -> _Result:
    """Errors as values: the pool prints a traceback of whatever escapes it."""

    def quiet() -> tuple[object, BaseException | None]:
        try:
            return work(), None
        except BaseException as error:
            return None, error

    result, error = gevent.get_hub().threadpool.apply(quiet)
    if error is not None:
        raise error
    return cast("_Result", result)


def _count(replay: Replay, was: Item, now: Item) -> None:
    """A replay's figures after one of its jobs went from `was` to `now`."""
    tried = (Phase.MOVED, Phase.BACK)
    replay.replayed += (now.phase in tried) - (was.phase in tried)
    replay.gone += (now.phase is Phase.GONE) - (was.phase is Phase.GONE)
    for fate, name in _COUNTED.items():
        setattr(replay, name, getattr(replay, name) + (now.fate is fate) - (was.fate is fate))


def apply(db: apsw.Connection, replay: Replay, items: Sequence[Item]) -> None:
    """The jobs as they are now; the replay's figures follow."""
    numbers = [item.number for item in items]
    known = _together(db, replay.id, numbers) if items else {}
    for item in items:
        if (was := known.get(item.number)) is not None:
            _count(replay, was, item)
    db.executemany(
        "UPDATE items SET phase = ?, fate = ?, stamp = ?, at = ? WHERE replay = ? AND number = ?",
        ((item.phase, item.fate, item.stamp, item.at_ms, replay.id, item.number) for item in items),
    )


def _together(db: apsw.Connection, number: int, items: Sequence[int]) -> dict[int, Item]:
    """The jobs of these numbers as they are; a portion is mostly a run of them, and one question is enough."""
    low, high = min(items), max(items)
    if high - low <= 4 * len(items):
        rows = db.execute(
            f"SELECT {COLUMNS} FROM items WHERE replay = ? AND number BETWEEN ? AND ?", (number, low, high)
        )
        return {item.number: item for item in map(item_of, rows)}
    query = f"SELECT {COLUMNS} FROM items WHERE replay = ? AND number = ?"
    found = (db.execute(query, (number, one)).fetchone() for one in items)
    return {item.number: item for item in map(item_of, (row for row in found if row is not None))}


def put(db: apsw.Connection, replay: Replay, now_ms: int) -> None:
    replay.changed_ms = now_ms
    is_open = replay.unknown > 0 or replay.failing > 0
    db.execute(
        "UPDATE replays SET state = ?, changed = ?, open = ?, data = ? WHERE id = ?",
        (replay.state, now_ms, is_open, encode(replay), replay.id),
    )


def forget_unmoved(db: apsw.Connection, number: int) -> None:
    """What a cancelled replay will not move any more."""
    db.execute("DELETE FROM found WHERE replay = ?", (number,))
    db.execute("DELETE FROM items WHERE replay = ? AND phase = ?", (number, Phase.NEW))


def note(db: apsw.Connection, number: int, deed: Deed) -> None:
    db.execute("INSERT INTO deeds VALUES (?,?,?,?,?)", (number, deed.at_ms, deed.who, deed.what, deed.why))


def get(db: apsw.Connection, number: int) -> Replay:
    row = db.execute("SELECT id, data FROM replays WHERE id = ?", (number,)).fetchone() if number < 1 << 63 else None
    return made(*row) if row else missing(number)


def made(number: int, data: bytes) -> Replay:
    replay = _decode(data)
    replay.id = number
    return replay


def item_of(row: Sequence[int]) -> Item:
    number, job, phase, fate, stamp, at = row
    return Item(number, job % (1 << 64), Phase(phase), Fate(fate), stamp, at)


def signed(job_id: int) -> int:
    """SQLite's integers have a sign."""
    return job_id - (1 << 64) if job_id >> 63 else job_id


def missing(number: int) -> NoReturn:
    raise NotFound(f"no replay {number}")
