"""Replays of many jobs, planned: the look goes on where whoever made the plan left it. Floor 4."""

from __future__ import annotations

from pathlib import Path

import gevent

from pepperbus.replay import planning, plans
from pepperbus.replay.model import Replay
from pepperbus.replay.store import Replays
from pepperbus.storage.contract import Storage

_PORTIONS = 10  # are noted together


def plan_on(store: Replays, replay: Replay, storage: Storage, data_dir: Path, now_ms: int) -> None:
    """One step of it. Raises the storage's errors; what was noted before stays."""
    if not replay.looked_all:
        jobs: list[tuple[int, int]] = []
        for _ in range(_PORTIONS):
            portion = planning.look(replay, storage, data_dir)
            jobs += portion.jobs
            replay.cursor = portion.cursor
            gevent.sleep(0)  # looks that an embedded storage answers at once add up
            if not portion.cursor:
                break
        plans.found(store, replay.id, jobs, replay.cursor, now_ms)
    elif replay.highest_pick < 0:
        plans.choose(store, replay.id, now_ms)
    else:
        plans.order(store, replay.id, now_ms)
