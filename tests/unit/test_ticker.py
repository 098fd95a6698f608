"""Whom the ticker takes for dead: never a process it has not heard of yet, never a node because a clock jumped."""

import os
import subprocess
import sys
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from pepperbus.child import Child
from pepperbus.clock import ManualClock
from pepperbus.config.load import load
from pepperbus.config.model import StorageConfig
from pepperbus.job import Job, State
from pepperbus.log import Log
from pepperbus.storage.contract import Push
from pepperbus.storage.memory import MemoryStorage
from pepperbus.ticker import main
from pepperbus.ticker.main import LOST_MS, Ticker
from pepperbus.worker.inflight import InFlight, tables

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


def test_what_a_killed_worker_held_where_its_successor_never_looks_comes_back(stage: Stage) -> None:
    """Its topic moved to another storage: who has its name now opens only that one."""
    for dead in ("n/worker.orders.0/b.9", "n/worker.orders.0/a.99"):
        stage.lease(dead)
    stage.lease("n/worker.orders.0/b.11")  # born a moment ago: the master has not said so yet
    stage.family("n/ticker/b", "n/worker.orders.0/b.10")
    assert stage.beat() == 3
    assert stage.beat() == 1
    for _ in range(5):
        assert stage.beat() == 1


def test_what_a_killed_ticker_held_to_move_it_never_ran(stage: Stage) -> None:
    """The other storage is away, so no drain of its successor gives it back before the beats do."""
    stage.lease("n/ticker/a")
    stage.family("n/ticker/b")
    stage.beat()
    assert stage.beat() == 0
    (job,) = stage.storage.peek(TOPIC, State.READY).jobs
    assert (job.attempts, job.crashes) == (0, 0)


def test_only_the_dead_lose_their_tables(stage: Stage) -> None:
    run_dir = stage.ticker.child.config.bus.run_dir
    old, new, left = (f"n/worker.orders.{i}/b.{i}" for i in range(3))
    for owner in (old, new, left):
        InFlight(run_dir, owner)
    stage.lease(old)
    stage.family("n/ticker/b")
    stage.ticker._seen["worker.orders.0"] = stage.clock.monotonic() + 8.0
    stage.ticker._forget_tables()
    assert set(tables(run_dir)) == {old, new, left}  # `new` was born a moment ago: the master has not said so yet
    stage.family("n/ticker/b", new)
    stage.ticker._forget_tables()
    assert set(tables(run_dir)) == {old, new}
    for _ in range(8):
        stage.beat()
        stage.ticker._forget_tables()
    assert set(tables(run_dir)) == {new}


def test_a_clock_that_jumps_takes_no_leases_from_living_nodes(stage: Stage) -> None:
    stage.storage.heartbeat("m")
    stage.lease("m/worker.orders.0/b")
    assert stage.beat() == 1
    stage.clock._wall_ms += 3_600_000
    assert stage.beat() == 1
    stage.storage.heartbeat("m")
    for _ in range(3):
        assert stage.beat() == 1


def test_a_storage_that_hangs_keeps_no_other_from_hearing_that_the_node_lives(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `store_timeout` may be a minute: long before, other nodes would take this one's leases in all the others."""
    monkeypatch.setattr(main, "_BEAT_S", 0.05)
    hung, heard = Event(), []
    slow = MemoryStorage(StorageConfig("slow", "memory"), stage.clock)
    monkeypatch.setattr(slow, "heartbeat", lambda node: hung.wait(60))
    monkeypatch.setattr(stage.storage, "heartbeat", heard.append)
    stage.ticker._storages = {"slow": slow, "local": stage.storage}
    with gevent.Timeout(20):
        for _ in range(3):
            stage.ticker._beat()
    assert heard == ["n"] * 3
    hung.set()


def test_a_silent_node_loses_its_leases_within_45_seconds(stage: Stage) -> None:
    stage.storage.heartbeat("m")
    stage.lease("m/worker.orders.0/b")
    waited = 0.0
    while stage.beat(5.0):
        waited += 5.0
        assert waited <= 45.0
    assert waited * 1000 > LOST_MS


@pytest.mark.skipif(os.geteuid() != 0 or os.system("unshare -m true") != 0, reason="no mount namespace to be had here")
def test_a_disk_that_became_read_only_is_said_once_and_its_return_too(tmp_path: Path) -> None:
    """In a mount namespace of its own: a small file system under data_dir, mounted read-only, then writable again."""
    code = """
import os, subprocess, sys
from pathlib import Path
from tests.unit.test_ticker import Stage
where = Path(sys.argv[1])
(where / "data").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "none", str(where / "data")], check=True)
stage = Stage(where)
ticker = stage.ticker
ticker._do(ticker._retain)
(where / "data" / "journal.db").unlink(missing_ok=True)
subprocess.run(["mount", "-o", "remount,ro", str(where / "data")], check=True)
for _ in range(100):
    ticker._do(ticker._retain)
    stage.clock.advance(0.5)
subprocess.run(["mount", "-o", "remount,rw", str(where / "data")], check=True)
ticker._do(ticker._retain)
"""
    command = ["unshare", "-m", sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "log").read_text()
    assert log.count("action=chore_failed") == 1, log  # in 50 seconds
    assert f"data_dir={tmp_path}/data" in log
    assert log.count("action=chore_works_again") == 1, log
