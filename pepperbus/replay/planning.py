"""The look for a replay's jobs: a portion at a time, from where the last one ended.

Floor 3. It asks the storage, or the node's finished jobs, and keeps nothing: a plan of a million jobs goes on after a restart,
and costs whoever makes it the memory of one portion.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pepperbus.job import State
from pepperbus.journal.finished import Finished
from pepperbus.replay.model import Replay
from pepperbus.storage.contract import Storage, Stored
from pepperbus.storage.selection import Selection, came_ms, stamp

PORTION = 500
FINISHED = "done"  # a replay's source: jobs that have left the storage
AGED = "max_age:"  # how the reason of a job begins that is dead of old age


class Portion(NamedTuple):
    """(job id, stamp) of those that match; `cursor` "": that was the last portion."""

    jobs: list[tuple[int, int]]
    cursor: str
    looked: int


def has_failed(stored: Stored) -> bool:
    """Whether it waits for another attempt, or is dead of failures."""
    return stored.attempts > 0 if stored.state is State.DELAYED else not stored.reason.startswith(AGED)


def look(replay: Replay, storage: Storage, data_dir: Path) -> Portion:
    """The next portion. What came later than the replay itself is not part of it. Raises the storage's errors."""
    if replay.source == FINISHED:
        after = int(replay.cursor) if replay.cursor else None
        kept = Finished(data_dir)
        found, last = kept.portion(replay.topic, after, replay.since_ms, replay.at_ms, replay.text, PORTION)
        return Portion(found, str(last) if last is not None else "", PORTION)
    state = State(replay.source)
    chosen = Selection(replay.topic, (), state, replay.error, replay.since_ms, replay.text)
    piece = storage.peek(replay.topic, state, replay.cursor, PORTION)
    jobs = [
        (stored.job_id, stamp(stored))
        for stored in piece.jobs
        if chosen.matches(stored) and came_ms(stored) <= replay.at_ms and (has_failed(stored) or not replay.tried)
    ]
    return Portion(jobs, piece.cursor, len(piece.jobs))
