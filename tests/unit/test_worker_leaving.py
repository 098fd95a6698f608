"""A worker that leaves: what it could not give back is told from what it had begun."""

from pathlib import Path

import gevent
import pytest

from pepperbus.child import Child
from pepperbus.config.load import load
from pepperbus.errors import StorageUnknown
from pepperbus.job import Job
from pepperbus.log import Log
from pepperbus.storage.contract import Leased, Push
from pepperbus.storage.embedded import EmbeddedStorage
from pepperbus.worker.app import Worker
from pepperbus.worker.inflight import started

TOPIC, OWNER = "orders/mail", "n/worker.orders.0/b.1"


def test_a_claim_without_an_answer_at_the_end_costs_no_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "queues.d").mkdir()
    (tmp_path / "pepperbus.conf").write_text(
        "queue_files = queues.d/*.conf\n[bus]\nnode = n\ndata_dir = data\nrun_dir = run\n"
        "[storages]\n[[local]]\ntype = embedded\n"
    )
    (tmp_path / "queues.d" / "orders.conf").write_text(
        "open = loopback\n[topics]\n[[mail]]\nrun = http\nurl = http://127.0.0.1:9/\ncontract = status\n"
    )
    config = load(tmp_path / "pepperbus.conf", {})
    config.bus.run_dir.mkdir()
    storage = EmbeddedStorage(config.storages["local"])
    storage.open()
    storage.push([Push((1 << 63) + 1, Job((1 << 63) + 1, "t", b"x").encode(), (TOPIC,))])
    storage.close()
    asked = gevent.event.Event()
    lease = EmbeddedStorage.lease

    def cut(self: EmbeddedStorage, topic: str, n: int, owner: str) -> list[Leased]:
        lease(self, topic, n, owner)
        asked.set()
        raise StorageUnknown("cut")

    with monkeypatch.context() as lossy:
        lossy.setattr(EmbeddedStorage, "lease", cut)
        log = Log("w", str(tmp_path / "log"))
        worker = Worker(Child("worker", "worker.orders.0", 0, "orders", "b.1", "b", OWNER, config, log))
        run = gevent.spawn(worker.run)
        assert asked.wait(20)
        worker.child.on_drain(20.0)
        run.join(20)
    assert run.successful()
    storage.open()
    (back,) = storage.release(OWNER, started(tmp_path / "run", OWNER))
    assert (back.attempt, back.started) == (1, False)
    storage.close()
