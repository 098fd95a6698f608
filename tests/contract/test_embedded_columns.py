"""Pushing and leasing by the column leave the very file that going job by job does."""

import random
from pathlib import Path
from typing import Any

import pytest

from pepperbus.clock import ManualClock
from pepperbus.config.model import StorageConfig
from pepperbus.storage.contract import Outcome, Push, Settle
from pepperbus.storage.embedded import EmbeddedStorage
from pepperbus.storage.embedded_layout import TABLES
from pepperbus.storage.embedded_work import Work
from tests.fixtures.ids import floor_id

ME = "n1/w/1"
TOPICS = (("q/a",), ("q/a", "q/b"), ("q/b", "q/a", "q/c"))


def _batches(seed: int) -> list[list[Push]]:
    """Mostly what the quick way is for; also two gateways' ids in turns, repeats, jobs for later and for the front."""
    rng = random.Random(seed)
    ids = [floor_id(1_800_000_000_000 + i) | rng.randrange(2) << 14 for i in range(400)]
    batches, at = [], 0
    while at < len(ids):
        some = ids[at : at + rng.choice((1, 5, 40))]
        at += len(some)
        odd = rng.random()
        if odd < 0.3 and at > 50:
            some = sorted({*some, *rng.sample(ids[:at], 2)})
        elif odd < 0.4:
            rng.shuffle(some)
        due, front = (1_900_000_000_000, False) if odd > 0.9 else (0, odd > 0.8)
        topics = rng.choice(TOPICS)
        batches.append([Push(one, b"%d" % one, topics, due * (i % 2), front) for i, one in enumerate(some)])
    late = batches.pop(2)
    return [*batches, late]


def _file(path: Path, batches: list[list[Push]]) -> dict[str, list[Any]]:
    storage = EmbeddedStorage(StorageConfig("main", "embedded", path=path), ManualClock())
    storage.open()
    for number, batch in enumerate(batches):
        assert storage.push(batch) == []
        for topic in ("q/a", "q/b"):
            jobs = storage.lease(topic, 7 + number % 5, ME)
            fates = (Outcome.DONE, Outcome.BACK, Outcome.DONE, Outcome.RETRY, Outcome.DONE)
            storage.settle(ME, [Settle(topic, job.job_id, fates[i % 5]) for i, job in enumerate(jobs[2:])])
    with storage._engine.look() as look:
        rows = {name: list(look.txn.cursor(look.tables[name])) for name in TABLES}
    storage.close()
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_both_ways_write_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    batches = _batches(seed)
    quick = _file(tmp_path / "quick", batches)
    taken = []
    monkeypatch.setattr(Work, "_push_many", lambda self, batch: bool(taken.append(batch)))
    monkeypatch.setattr(Work, "_lease_many", lambda self, topic, rows, owner: [])
    assert quick == _file(tmp_path / "plain", batches)
    assert len(taken) == len(batches)
