"""How jobs of a replay move, by where they were selected: dead and delayed ones become ready, finished ones are stored again.

Floor 4. Each function is a question to, or an order for, one storage, and raises its errors. What decides after a crash
whether a job had moved stands here too: the storage tells a job that lies where it lay from one that went and came back, and
of finished jobs the journal tells what ran.
"""

from __future__ import annotations

from collections.abc import Sequence

import gevent

from pepperbus.job import State
from pepperbus.journal.finished import Finished
from pepperbus.journal.reader import Reader
from pepperbus.replay.model import Fate, Item, Phase, Replay
from pepperbus.storage.contract import Push, Storage, Stored
from pepperbus.storage.selection import stamp

_AT_ONCE = 50
FINISHED = "done"  # a replay's source: jobs that have left the storage


def _lies_there(replay: Replay, storage: Storage, item: Item) -> Stored | None:
    """The job, when it lies in the state in which it was selected."""
    found = storage.find(item.job_id, [replay.topic])
    return found[0] if found and found[0].state == replay.source else None


def prepare(replay: Replay, storage: Storage, items: Sequence[Item], now_ms: int) -> None:
    """Mark what is about to move as MOVING, and what is not there (any more) as GONE."""
    for number, item in enumerate(items):
        if number % _AT_ONCE == 0:
            gevent.sleep(0)  # looks that an embedded storage answers at once add up
        item.fate, item.at_ms = Fate.OPEN, now_ms
        if replay.source == FINISHED:
            item.phase = Phase.GONE if storage.find(item.job_id, [replay.topic]) else Phase.MOVING
            continue
        stored = _lies_there(replay, storage, item)
        item.phase = Phase.MOVING if stored else Phase.GONE
        item.stamp = stamp(stored) if stored else item.stamp


def move(replay: Replay, storage: Storage, items: Sequence[Item], finished: Finished, now_ms: int) -> None:
    """Make them ready, with a fresh budget of attempts. Those whose content is not kept any more are GONE."""
    if replay.source != FINISHED:
        storage.replay(replay.topic, [item.job_id for item in items])
        return
    pushes = []
    for item in items:
        body = finished.body(replay.topic, item.job_id)
        if body is None:
            item.phase = Phase.GONE
        else:  # due now: its age begins anew, or `max_age` would end it at once
            pushes.append(Push(item.job_id, body, (replay.topic,), due_ms=now_ms))
    if pushes:
        storage.push(pushes)


def has_moved(replay: Replay, storage: Storage, item: Item, journal: Reader) -> bool:
    """Whether a job that was about to move did, before whoever moved it died."""
    if replay.source == FINISHED:
        if storage.find(item.job_id, [replay.topic]):
            return True
        rows = journal.life(item.job_id)
        return any(row.outcome and row.topic == replay.topic and row.at_ms >= item.at_ms for row in rows)
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
