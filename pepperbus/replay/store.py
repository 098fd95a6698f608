"""Replays on disk: one SQLite file that operators plan in and steer through, and that the ticker works off.

Floor 3. Every function is one transaction, made in a pool thread, for it waits for the disk. What is about to happen to a
job is written before it happens, so a ticker that was killed finds out what it had begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import apsw

from pepperbus.errors import UsageError
from pepperbus.replay import tables
from pepperbus.replay.model import DEEDS, ENDED, MOVING, Deed, Fate, Item, Phase, Replay, State

KEPT_MS = 90 * 86_400_000
MOST_OPEN = 20  # replays of a topic that have not ended
MOST_JOBS = 10_000_000  # of all replays of this node that have not ended
FOLLOWED_MS = 7 * 86_400_000  # so long after a replay's last change somebody still looks what becomes of its jobs
_Result = TypeVar("_Result")


class Replays:
    """The replays of one node; a file that is not there yet is an empty one."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "replays.db"

    # -- looking ---------------------------------------------------------------------------------------------------

    def get(self, number: int) -> Replay:
        """Raises NotFound."""
        return self.read(lambda db: tables.get(db, number), lambda: tables.missing(number))

    def newest(self, topic: str = "", limit: int = 200) -> list[Replay]:
        """The newest first."""
        where, values = ("WHERE topic = ?", (topic,)) if topic else ("", ())
        query = f"SELECT id, data FROM replays {where} ORDER BY id DESC LIMIT ?"
        return self.read(lambda db: [tables.made(*row) for row in db.execute(query, (*values, limit))], list)

    def deeds(self, number: int) -> list[Deed]:
        """What was done to it, oldest first."""
        query = "SELECT at, who, what, why FROM deeds WHERE replay = ? ORDER BY rowid"
        return self.read(lambda db: [Deed(*row) for row in db.execute(query, (number,))], list)

    def live(self, now_ms: int) -> list[int]:
        """Those the ticker has to do with: jobs to move, or fates still open."""
        query = f"SELECT id FROM replays WHERE state IN (?, ?, ?) OR (open AND changed > {now_ms - FOLLOWED_MS})"
        return self.read(lambda db: [number for (number,) in db.execute(query, (State.PLANNING, *MOVING))], list)

    def items(self, number: int, phases: Sequence[Phase], limit: int = -1, below: int = -1) -> list[Item]:
        """The next jobs of the snapshot in one of `phases`; `below`: only the first so many of the snapshot."""
        marks = ",".join("?" * len(phases))
        bound = f" AND number < {below}" if below >= 0 else ""
        query = (
            f"SELECT {tables.COLUMNS} FROM items WHERE replay = ? AND phase IN ({marks}){bound} ORDER BY number LIMIT ?"
        )
        return self.read(lambda db: [tables.item_of(row) for row in db.execute(query, (number, *phases, limit))], list)

    def open_items(self, number: int) -> list[Item]:
        """Those that were replayed and whose fate is not final."""
        query = f"SELECT {tables.COLUMNS} FROM items WHERE replay = ? AND phase = ? AND fate IN (?, ?)"
        values = (number, Phase.MOVED, Fate.OPEN, Fate.FAILING)
        return self.read(lambda db: [tables.item_of(row) for row in db.execute(query, values)], list)

    # -- planning and steering ---------------------------------------------------------------------------------------

    def plan(self, replay: Replay, jobs: Iterable[tuple[int, int]]) -> Replay:
        """Keep a new replay with its snapshot, (job id, stamp) in the order they will run in.

        Raises UsageError when there are too many replays.
        """

        def work(db: apsw.Connection) -> Replay:
            insert(db, replay)
            rows = ((replay.id, number, tables.signed(job), 0, 0, stamp, 0) for number, (job, stamp) in enumerate(jobs))
            db.executemany("INSERT INTO items VALUES (?,?,?,?,?,?,?)", rows)
            return replay

        return self.write(work)

    def steer(self, number: int, what: str, who: str, now_ms: int) -> Replay:
        """`go`, `pause`, `resume` or `cancel`. Raises NotFound, and UsageError in a state where that means nothing."""

        def work(db: apsw.Connection) -> Replay:
            replay = tables.get(db, number)
            if replay.state not in DEEDS[what]:
                fine = [deed for deed, states in DEEDS.items() if replay.state in states]
                hint = f"; one can {', '.join(fine)}" if fine else ""
                raise UsageError(f"replay {number} is {replay.state}: {what} means nothing now{hint}")
            if replay.state is State.PLANNING and what == "go":
                replay.goes = True
                tables.put(db, replay, now_ms)
                tables.note(db, number, Deed(now_ms, who, what))
                return replay
            replay.rest |= what == "go" and replay.state is State.WAITING
            if what in ("go", "resume"):
                replay.judged, replay.judged_failed = replay.known, replay.failing + replay.failed
                replay.state = replay.first
            else:
                replay.state = {"pause": State.PAUSED, "cancel": State.CANCELLED}[what]
            if what == "cancel":
                tables.forget_unmoved(db, number)
            replay.why = ""
            tables.put(db, replay, now_ms)
            tables.note(db, number, Deed(now_ms, who, what))
            return replay

        return self.write(work)

    # -- the ticker's ------------------------------------------------------------------------------------------------

    def turn(self, number: int, state: State, why: str, now_ms: int) -> Replay:
        """The bus itself ends a stage, unless a person was quicker. Waiting for a person, a replay can only be stopped."""

        def work(db: apsw.Connection) -> Replay:
            replay = tables.get(db, number)
            if replay.state in MOVING or (replay.state is State.WAITING and state is State.STOPPED):
                replay.state, replay.why = state, why
                tables.put(db, replay, now_ms)
                tables.note(db, number, Deed(now_ms, "", state, why))
            return replay

        return self.write(work)

    def intend(self, number: int, items: Sequence[Item]) -> bool:
        """These are about to move. False: nobody wants them moved any more."""

        def work(db: apsw.Connection) -> bool:
            replay = tables.get(db, number)
            if replay.state not in MOVING:
                return False
            tables.apply(db, replay, items)
            tables.put(db, replay, replay.changed_ms)
            return True

        return self.write(work)

    def settle(self, number: int, items: Sequence[Item], now_ms: int, position: int = 0) -> Replay:
        """What became of these jobs, in phase and fate; counts follow. `position`: the journal is read so far."""

        def work(db: apsw.Connection) -> Replay:
            replay = tables.get(db, number)
            tables.apply(db, replay, items)
            replay.position = position or replay.position
            tables.put(db, replay, now_ms if items else replay.changed_ms)
            return replay

        return self.write(work)

    def retain(self, now_ms: int) -> int:
        """Forget ended replays that nobody touched for KEPT_MS. Returns how many."""
        old = f"SELECT id FROM replays WHERE changed < {now_ms - KEPT_MS} AND state IN (?, ?)"

        def work(db: apsw.Connection) -> int:
            for table in ("items", "deeds"):
                db.execute(f"DELETE FROM {table} WHERE replay IN ({old})", ENDED)
            db.execute(f"DELETE FROM replays WHERE id IN ({old})", ENDED)
            return int(db.changes())

        return self.write(work) if self.path.exists() else 0

    def read(self, work: Callable[[apsw.Connection], _Result], empty: Callable[[], _Result]) -> _Result:
        def whole() -> _Result:
            if not self.path.exists():
                return empty()
            with self._opened() as db:
                return work(db)

        return tables.in_thread(whole)

    def write(self, work: Callable[[apsw.Connection], _Result]) -> _Result:
        def whole() -> _Result:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._opened() as db:
                db.execute("BEGIN IMMEDIATE")
                with db:
                    result = work(db)
                db.execute("COMMIT")
                return result

        return tables.in_thread(whole)

    @contextmanager
    def _opened(self) -> Iterator[apsw.Connection]:
        with closing(apsw.Connection(str(self.path))) as db:
            db.set_busy_timeout(10_000)
            db.execute(tables.SCHEMA).fetchall()
            yield db


def insert(db: apsw.Connection, replay: Replay) -> None:
    """A new replay gets its number. Raises UsageError when there are too many that have not ended."""
    query = "SELECT id, data FROM replays WHERE state NOT IN (?, ?)"
    open_ones = [tables.made(*row) for row in db.execute(query, ENDED)]
    if sum(one.topic == replay.topic for one in open_ones) >= MOST_OPEN:
        raise UsageError(f"{replay.topic} has {MOST_OPEN} replays that have not ended: cancel those nobody needs")
    kept = sum(max(one.jobs, one.matched * one.sample) for one in open_ones)
    if kept + replay.jobs > MOST_JOBS:
        raise UsageError(
            f"replays that have not ended hold {kept:.0f} jobs, {MOST_JOBS} are the most: cancel those nobody needs"
        )
    db.execute(
        "INSERT INTO replays (topic, state, changed, open, data) VALUES (?,?,?,0,?)",
        (replay.topic, replay.state, replay.at_ms, tables.encode(replay)),
    )
    replay.id = db.last_insert_rowid()
    tables.put(db, replay, replay.at_ms)
    tables.note(db, replay.id, Deed(replay.at_ms, replay.by, "plan"))
