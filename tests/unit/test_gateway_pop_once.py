"""RPOP where nobody leases: a storage that goes away between the lease and its end leaves no job with the gateway for ever."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from pepperbus.clock import SystemClock
from pepperbus.config.model import StorageConfig
from pepperbus.errors import StorageUnknown
from pepperbus.gateway import reads
from pepperbus.gateway.process import Process
from pepperbus.ids import IdGenerator
from pepperbus.job import Job
from pepperbus.journal.log import LogWriter
from pepperbus.log import Log
from pepperbus.storage.contract import Push, Settle
from pepperbus.storage.memory import MemoryStorage

TOPIC, OWNER = "orders/mail", "n/gateway.0/b.1"


@pytest.mark.parametrize("written", [True, False])
def test_the_end_of_a_pop_is_stored_when_the_storage_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    clock = SystemClock()
    storage = MemoryStorage(StorageConfig("local", "memory"), clock)
    storage.open()
    job_id = (1 << 63) + 1
    storage.push([Push(job_id, Job(job_id, "t", b"x", clock.now_ms()).encode(), (TOPIC,))])
    lane = SimpleNamespace(storage=storage, trouble="", closed=False, config=SimpleNamespace(name="local"))
    log, journal = Log("gateway.0", str(tmp_path / "log")), LogWriter(tmp_path, "gateway.0", 0)
    process: Any = Process("gateway.0", "n", OWNER, clock, IdGenerator(1, 0, clock.now_ms), log, journal)
    front: Any = SimpleNamespace(
        process=process,
        handout=SimpleNamespace(places={}),
        routes=SimpleNamespace(lane=lambda topic, queue: lane, lanes={"local": lane}),
    )
    queue = SimpleNamespace(topics={"mail": None})
    route = SimpleNamespace(queue=queue, count_popped=lambda topic: None)
    target: Any = SimpleNamespace(queue="orders", topic="mail", route=route)
    pop = reads._Pop(SimpleNamespace(front=front, process=process, protocol=2, client=b"c"), target)  # type: ignore[arg-type]
    assert b"jobs" in pop.run()
    settle = storage.settle
    fails = 3

    def away(owner: str, batch: list[Settle]) -> int:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise StorageUnknown("no answer in time")
        return settle(owner, batch)

    monkeypatch.setattr(storage, "settle", away)
    with gevent.Timeout(20):
        pop.after(written)
        while storage.depth(TOPIC).leased:
            gevent.sleep(0.01)
    assert storage.depth(TOPIC).ready == (not written)
