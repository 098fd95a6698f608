"""How jobs of a replay move, by where they were selected: dead and delayed ones become ready, finished ones are stored again.

Floor 4. Each function is a question to, or an order for, one storage, and raises its errors. What decides after a crash
whether a job had moved stands here too: the storage tells a job that lies where it lay from one that went and came back.
"""

from __future__ import annotations

from collections.abc import Sequence

from pepperbus.job import State
from pepperbus.journal.reader import Reader
from pepperbus.replay.model import Fate, Item, Phase, Replay
from pepperbus.storage.contract import Storage, Stored


def stamp(stored: Stored) -> int:
    """What tells this stay of a job from its next one in the same state."""
    return stored.dead_ms if stored.state is State.DEAD else stored.due_ms


def _lies_there(replay: Replay, storage: Storage, item: Item) -> Stored | None:
    """The job, when it lies in the state in which it was selected."""
    found = storage.find(item.job_id, [replay.topic])
    return found[0] if found and found[0].state == replay.source else None


def prepare(replay: Replay, storage: Storage, items: Sequence[Item], now_ms: int) -> None:
    """Mark what is about to move as MOVING, and what is not there (any more) as GONE."""
    for item in items:
        stored = _lies_there(replay, storage, item)
        item.phase = Phase.MOVING if stored else Phase.GONE
        item.fate = Fate.OPEN
        item.stamp = stamp(stored) if stored else item.stamp
        item.at_ms = now_ms


def move(replay: Replay, storage: Storage, items: Sequence[Item]) -> None:
    """Make them ready, with a fresh budget of attempts."""
    storage.replay(replay.topic, [item.job_id for item in items])


def has_moved(replay: Replay, storage: Storage, item: Item) -> bool:
    """Whether a job that was about to move did, before whoever moved it died."""
    stored = _lies_there(replay, storage, item)
    return stored is None or stamp(stored) != item.stamp


def is_told(replay: Replay, journal: Reader, item: Item) -> bool:
    """Whether the journal says already that this job was replayed."""
    rows = journal.life(item.job_id)
    return any(row.event == "replayed" and row.topic == replay.topic and row.at_ms >= item.at_ms for row in rows)


def fate_in(replay: Replay, storage: Storage, item: Item) -> Fate | None:
    """What the storage itself says of a replayed job, for jobs that ran where this journal does not reach. None: gone."""
    found = storage.find(item.job_id, [replay.topic])
    if not found:
        return None
    stored = found[0]
    if stored.state is State.DEAD:
        return Fate.FAILED
    return Fate.FAILING if stored.state is State.DELAYED and stored.attempts else item.fate
