"""Replays that are being planned, on disk: what was found so far, and how that becomes a snapshot in its order.

Floor 3. First all that match are gathered, portion by portion; then the sample and the first share are known, and the jobs get
their numbers, again portion by portion. Each function is one transaction, so whoever is killed goes on where he was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import apsw

from pepperbus.replay import tables
from pepperbus.replay.model import Deed, Replay, State, gray_of
from pepperbus.replay.store import Replays, insert

MOST = 2_000_000  # jobs of a snapshot
_NUMBERED = 5000  # in one transaction


def begin(store: Replays, replay: Replay, jobs: Sequence[tuple[int, int]]) -> Replay:
    """Keep a replay that goes on being planned, with what was found of it. Raises UsageError when there are too many."""

    def work(db: apsw.Connection) -> Replay:
        replay.state, replay.looked_all, replay.matched = State.PLANNING, False, 0
        insert(db, replay)
        _gather(db, replay, jobs)
        tables.put(db, replay, replay.at_ms)
        return replay

    return store.write(work)


def found(store: Replays, number: int, jobs: Sequence[tuple[int, int]], cursor: str, now_ms: int) -> Replay:
    """These match too; the look goes on at `cursor`, "": it is over."""

    def work(db: apsw.Connection) -> Replay:
        replay = tables.get(db, number)
        if replay.state is not State.PLANNING:
            return replay  # somebody cancelled it
        _gather(db, replay, jobs)
        replay.cursor, replay.looked_all = cursor, not cursor
        if replay.matched > MOST:
            _end(db, replay, State.CANCELLED, f"more than {MOST} jobs match: narrow it down", now_ms)
        elif replay.looked_all and not replay.matched:
            _end(db, replay, State.DONE, "nothing matches", now_ms)
        tables.put(db, replay, now_ms)
        return replay

    return store.write(work)


def choose(store: Replays, number: int, now_ms: int) -> Replay:
    """All are found: so many are the sample, and so many of it go first, by chance."""

    def look(db: apsw.Connection) -> tuple[int, int, int, int]:
        replay = tables.get(db, number)
        jobs = max(1, round(replay.matched * replay.sample))
        share = gray_of(replay.want, jobs)
        share = share if share < jobs or replay.canary else 0
        return jobs, share, _pick(db, replay, jobs), _pick(db, replay, share)

    jobs, first, highest, highest_first = store.read(look, lambda: tables.missing(number))

    def work(db: apsw.Connection) -> Replay:
        replay = tables.get(db, number)
        if replay.state is State.PLANNING:
            replay.jobs, replay.gray, replay.numbered = jobs, first, first
            replay.highest_pick, replay.highest_first = highest, highest_first
            replay.canary = replay.canary and first > 0
            tables.put(db, replay, now_ms)
        return replay

    return store.write(work)


def order(store: Replays, number: int, now_ms: int) -> Replay:
    """The next of them get their numbers; with the last it is planned, and begins if somebody said so."""

    def work(db: apsw.Connection) -> Replay:
        replay = tables.get(db, number)
        if replay.state is not State.PLANNING:
            return replay
        query = "SELECT job, stamp, pick FROM found WHERE replay = ? ORDER BY job LIMIT ?"
        rows = list(db.execute(query, (number, _NUMBERED)))
        if not rows:
            _planned(db, replay, now_ms)
            return replay
        db.executemany("INSERT INTO items VALUES (?,?,?,0,0,?,0)", _numbered(replay, rows))
        db.execute("DELETE FROM found WHERE replay = ? AND job <= ?", (number, rows[-1][0]))
        tables.put(db, replay, now_ms)
        return replay

    return store.write(work)


def _gather(db: apsw.Connection, replay: Replay, jobs: Sequence[tuple[int, int]]) -> None:
    """A job that moved while it was looked at may be met twice."""
    before = db.total_changes()
    rows = ((replay.id, tables.signed(job), stamp, random.getrandbits(62)) for job, stamp in jobs)
    db.executemany("INSERT OR IGNORE INTO found VALUES (?,?,?,?)", rows)
    replay.matched += db.total_changes() - before


def _pick(db: apsw.Connection, replay: Replay, n: int) -> int:
    """The n-th smallest of the numbers that chance has given them; -1 for none."""
    query = "SELECT pick FROM found WHERE replay = ? ORDER BY pick LIMIT 1 OFFSET ?"
    row = db.execute(query, (replay.id, n - 1)).fetchone() if n else None
    return int(str(row[0])) if row else -1


def _numbered(replay: Replay, rows: Sequence[Sequence[int]]) -> list[tuple[int, int, int, int]]:
    made = []
    for job, stamp, pick in rows:
        if pick <= replay.highest_first:
            made.append((replay.id, replay.numbered_first, job, stamp))
            replay.numbered_first += 1
        elif pick <= replay.highest_pick:
            made.append((replay.id, replay.numbered, job, stamp))
            replay.numbered += 1
    return made


def _planned(db: apsw.Connection, replay: Replay, now_ms: int) -> None:
    tables.note(db, replay.id, Deed(now_ms, "", "planned"))
    replay.state = replay.first if replay.goes else State.PLANNED
    tables.put(db, replay, now_ms)


def _end(db: apsw.Connection, replay: Replay, state: State, why: str, now_ms: int) -> None:
    replay.state, replay.why = state, why
    tables.forget_unmoved(db, replay.id)
    tables.note(db, replay.id, Deed(now_ms, "", state, why))
