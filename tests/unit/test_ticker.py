"""Whom the ticker takes for dead: never a process it has not heard of yet, never a node because a clock jumped."""

from pathlib import Path

import pytest

from pepperbus.child import Child
from pepperbus.clock import ManualClock
from pepperbus.config.load import load
from pepperbus.job import Job
from pepperbus.log import Log
from pepperbus.storage.contract import Push
from pepperbus.storage.memory import MemoryStorage
from pepperbus.ticker.main import LOST_MS, Ticker

TOPIC = "orders/mail"


class Stage:
    def __init__(self, where: Path) -> None:
        (where / "queues.d").mkdir()
        (where / "pepperbus.conf").write_text(
            "queue_files = queues.d/*.conf\n[bus]\nnode = n\ndata_dir = data\nrun_dir = run\n"
            "[storages]\n[[local]]\ntype = embedded\n"
        )
        config = load(where / "pepperbus.conf", {})
        self.clock = ManualClock()
        self.storage = MemoryStorage(config.storages["local"], self.clock)
        child = Child("ticker", "ticker", 0, "", "b", "b", "n/ticker/b", config, Log("ticker", str(where / "log")))
        self.ticker = Ticker(child)
        self.ticker.clock = self.clock  # type: ignore[assignment]
        self.ticker._storages["local"] = self.storage
        self.job_id = (1 << 63) + 1

    def lease(self, owner: str) -> None:
        self.job_id += 1
        self.storage.push([Push(self.job_id, Job(self.job_id, "t", b"x").encode(), (TOPIC,))])
        assert self.storage.lease(TOPIC, 1, owner)

    def family(self, *owners: str) -> None:
        self.ticker._on_command({"op": "family", "owners": owners})

    def beat(self, seconds: float = 5.0) -> int:
        """One beat; how many jobs are leased behind it."""
        self.clock.advance(seconds)
        self.ticker._beat()
        return self.storage.depth(TOPIC).leased


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.mark.parametrize("name", ["gateway.0", "worker.orders.3"])
def test_a_process_that_the_ticker_has_not_heard_of_yet_keeps_its_leases(stage: Stage, name: str) -> None:
    stage.family("n/ticker/b", f"n/{name}/old" if name == "gateway.0" else "n/gateway.0/x")
    stage.lease(f"n/{name}/new")
    assert stage.beat() == 1
    stage.family("n/ticker/b", f"n/{name}/new")
    for _ in range(5):
        assert stage.beat() == 1


@pytest.mark.parametrize("name", ["gateway.0", "worker.gone.0"])
def test_a_dead_process_loses_its_leases_at_the_second_look(stage: Stage, name: str) -> None:
    stage.family("n/ticker/b")
    stage.lease(f"n/{name}/old")
    assert stage.beat() == 1
    assert stage.beat() == 0


def test_a_clock_that_jumps_takes_no_leases_from_living_nodes(stage: Stage) -> None:
    stage.storage.heartbeat("m")
    stage.lease("m/worker.orders.0/b")
    assert stage.beat() == 1
    stage.clock._wall_ms += 3_600_000
    assert stage.beat() == 1
    stage.storage.heartbeat("m")
    for _ in range(3):
        assert stage.beat() == 1


def test_a_silent_node_loses_its_leases_within_45_seconds(stage: Stage) -> None:
    stage.storage.heartbeat("m")
    stage.lease("m/worker.orders.0/b")
    waited = 0.0
    while stage.beat(5.0):
        waited += 5.0
        assert waited <= 45.0
    assert waited * 1000 > LOST_MS
