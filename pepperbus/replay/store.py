"""Replays on disk: one SQLite file that operators plan in and steer through, and that the ticker works off.

Floor 3. Every function is one transaction, made in a pool thread, for it waits for the disk. What is about to happen to a
job is written before it happens, so a ticker that was killed finds out what it had begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar, cast

import apsw
import gevent
import msgspec

from pepperbus.errors import NotFound, UsageError
from pepperbus.replay.model import DEEDS, ENDED, MOVING, Deed, Fate, Item, Phase, Replay, State

KEPT_MS = 90 * 86_400_000
FOLLOWED_MS = 7 * 86_400_000  # so long after a replay's last change somebody still looks what becomes of its jobs
_SCHEMA = """
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
"""
_COLUMNS = "number, job, phase, fate, stamp, at"
_COUNTED = {Fate.SUCCEEDED: "succeeded", Fate.FAILING: "failing", Fate.FAILED: "failed", Fate.REMOVED: "removed"}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Replay).decode
_Result = TypeVar("_Result")


class Replays:
    """The replays of one node; a file that is not there yet is an empty one."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "replays.db"

    # -- looking ---------------------------------------------------------------------------------------------------

    def get(self, number: int) -> Replay:
        """Raises NotFound."""
        return self._read(lambda db: _get(db, number), lambda: _missing(number))

    def newest(self, topic: str = "", limit: int = 200) -> list[Replay]:
        """The newest first."""
        where, values = ("WHERE topic = ?", (topic,)) if topic else ("", ())
        query = f"SELECT id, data FROM replays {where} ORDER BY id DESC LIMIT ?"
        return self._read(lambda db: [_made(*row) for row in db.execute(query, (*values, limit))], list)

    def deeds(self, number: int) -> list[Deed]:
        """What was done to it, oldest first."""
        query = "SELECT at, who, what, why FROM deeds WHERE replay = ? ORDER BY rowid"
        return self._read(lambda db: [Deed(*row) for row in db.execute(query, (number,))], list)

    def live(self, now_ms: int) -> list[int]:
        """Those the ticker has to do with: jobs to move, or fates still open."""
        query = f"SELECT id FROM replays WHERE state IN (?, ?) OR (open AND changed > {now_ms - FOLLOWED_MS})"
        return self._read(lambda db: [number for (number,) in db.execute(query, MOVING)], list)

    def items(self, number: int, phases: Sequence[Phase], limit: int = -1, below: int = -1) -> list[Item]:
        """The next jobs of the snapshot in one of `phases`; `below`: only the first so many of the snapshot."""
        marks = ",".join("?" * len(phases))
        bound = f" AND number < {below}" if below >= 0 else ""
        query = f"SELECT {_COLUMNS} FROM items WHERE replay = ? AND phase IN ({marks}){bound} ORDER BY number LIMIT ?"
        return self._read(lambda db: [_item(row) for row in db.execute(query, (number, *phases, limit))], list)

    def open_items(self, number: int) -> list[Item]:
        """Those that were replayed and whose fate is not final."""
        query = f"SELECT {_COLUMNS} FROM items WHERE replay = ? AND phase = ? AND fate IN (?, ?)"
        values = (number, Phase.MOVED, Fate.OPEN, Fate.FAILING)
        return self._read(lambda db: [_item(row) for row in db.execute(query, values)], list)

    # -- planning and steering ---------------------------------------------------------------------------------------

    def plan(self, replay: Replay, jobs: Iterable[tuple[int, int]]) -> Replay:
        """Keep a new replay with its snapshot, (job id, stamp) in the order they will run in."""

        def work(db: apsw.Connection) -> Replay:
            db.execute(
                "INSERT INTO replays (topic, state, changed, open, data) VALUES (?,?,?,0,?)",
                (replay.topic, replay.state, replay.at_ms, _encode(replay)),
            )
            replay.id = db.last_insert_rowid()
            rows = ((replay.id, number, _signed(job), 0, 0, stamp, 0) for number, (job, stamp) in enumerate(jobs))
            db.executemany("INSERT INTO items VALUES (?,?,?,?,?,?,?)", rows)
            _put(db, replay, replay.at_ms)
            _note(db, replay.id, Deed(replay.at_ms, replay.by, "plan"))
            return replay

        return self._write(work)

    def steer(self, number: int, what: str, who: str, now_ms: int) -> Replay:
        """`go`, `pause`, `resume` or `cancel`. Raises NotFound, and UsageError in a state where that means nothing."""

        def work(db: apsw.Connection) -> Replay:
            replay = _get(db, number)
            if replay.state not in DEEDS[what]:
                fine = [deed for deed, states in DEEDS.items() if replay.state in states]
                hint = f"; one can {', '.join(fine)}" if fine else ""
                raise UsageError(f"replay {number} is {replay.state}: {what} means nothing now{hint}")
            replay.rest |= what == "go" and replay.state is State.WAITING
            if what in ("go", "resume"):
                replay.judged, replay.judged_failed = replay.known, replay.failing + replay.failed
                replay.state = State.RUNNING if replay.rest or not replay.gray else State.GRAY
            else:
                replay.state = {"pause": State.PAUSED, "cancel": State.CANCELLED}[what]
            replay.why = ""
            _put(db, replay, now_ms)
            _note(db, number, Deed(now_ms, who, what))
            return replay

        return self._write(work)

    # -- the ticker's ------------------------------------------------------------------------------------------------

    def turn(self, number: int, state: State, why: str, now_ms: int) -> Replay:
        """The bus itself ends a stage, unless a person was quicker. Waiting for a person, a replay can only be stopped."""

        def work(db: apsw.Connection) -> Replay:
            replay = _get(db, number)
            if replay.state in MOVING or (replay.state is State.WAITING and state is State.STOPPED):
                replay.state, replay.why = state, why
                _put(db, replay, now_ms)
                _note(db, number, Deed(now_ms, "", state, why))
            return replay

        return self._write(work)

    def intend(self, number: int, items: Sequence[Item]) -> bool:
        """These are about to move. False: nobody wants them moved any more."""

        def work(db: apsw.Connection) -> bool:
            replay = _get(db, number)
            if replay.state not in MOVING:
                return False
            _apply(db, replay, items)
            _put(db, replay, replay.changed_ms)
            return True

        return self._write(work)

    def settle(self, number: int, items: Sequence[Item], now_ms: int, position: int = 0) -> Replay:
        """What became of these jobs, in phase and fate; counts follow. `position`: the journal is read so far."""

        def work(db: apsw.Connection) -> Replay:
            replay = _get(db, number)
            _apply(db, replay, items)
            replay.position = position or replay.position
            _put(db, replay, now_ms if items else replay.changed_ms)
            return replay

        return self._write(work)

    def retain(self, now_ms: int) -> int:
        """Forget ended replays that nobody touched for KEPT_MS. Returns how many."""
        old = f"SELECT id FROM replays WHERE changed < {now_ms - KEPT_MS} AND state IN (?, ?)"

        def work(db: apsw.Connection) -> int:
            for table in ("items", "deeds"):
                db.execute(f"DELETE FROM {table} WHERE replay IN ({old})", ENDED)
            db.execute(f"DELETE FROM replays WHERE id IN ({old})", ENDED)
            return int(db.changes())

        return self._write(work) if self.path.exists() else 0

    def _read(self, work: Callable[[apsw.Connection], _Result], empty: Callable[[], _Result]) -> _Result:
        def whole() -> _Result:
            if not self.path.exists():
                return empty()
            with self._opened() as db:
                return work(db)

        return _in_thread(whole)

    def _write(self, work: Callable[[apsw.Connection], _Result]) -> _Result:
        def whole() -> _Result:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._opened() as db:
                db.execute("BEGIN IMMEDIATE")
                with db:
                    result = work(db)
                db.execute("COMMIT")
                return result

        return _in_thread(whole)

    @contextmanager
    def _opened(self) -> Iterator[apsw.Connection]:
        with closing(apsw.Connection(str(self.path))) as db:
            db.set_busy_timeout(10_000)
            db.execute(_SCHEMA).fetchall()
            yield db


def _in_thread(work: Callable[[], _Result]) -> _Result:
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


def _apply(db: apsw.Connection, replay: Replay, items: Sequence[Item]) -> None:
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
            f"SELECT {_COLUMNS} FROM items WHERE replay = ? AND number BETWEEN ? AND ?", (number, low, high)
        )
        return {item.number: item for item in map(_item, rows)}
    query = f"SELECT {_COLUMNS} FROM items WHERE replay = ? AND number = ?"
    found = (db.execute(query, (number, one)).fetchone() for one in items)
    return {item.number: item for item in map(_item, (row for row in found if row is not None))}


def _put(db: apsw.Connection, replay: Replay, now_ms: int) -> None:
    replay.changed_ms = now_ms
    is_open = replay.unknown > 0 or replay.failing > 0
    db.execute(
        "UPDATE replays SET state = ?, changed = ?, open = ?, data = ? WHERE id = ?",
        (replay.state, now_ms, is_open, _encode(replay), replay.id),
    )


def _note(db: apsw.Connection, number: int, deed: Deed) -> None:
    db.execute("INSERT INTO deeds VALUES (?,?,?,?,?)", (number, deed.at_ms, deed.who, deed.what, deed.why))


def _get(db: apsw.Connection, number: int) -> Replay:
    row = db.execute("SELECT id, data FROM replays WHERE id = ?", (number,)).fetchone() if number < 1 << 63 else None
    return _made(*row) if row else _missing(number)


def _made(number: int, data: bytes) -> Replay:
    replay = _decode(data)
    replay.id = number
    return replay


def _item(row: Sequence[int]) -> Item:
    number, job, phase, fate, stamp, at = row
    return Item(number, job % (1 << 64), Phase(phase), Fate(fate), stamp, at)


def _signed(job_id: int) -> int:
    """SQLite's integers have a sign."""
    return job_id - (1 << 64) if job_id >> 63 else job_id


def _missing(number: int) -> Replay:
    raise NotFound(f"no replay {number}")
