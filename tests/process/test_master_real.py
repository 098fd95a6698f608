"""The family as it is: real gateways, workers, ticker and web under the master."""

from __future__ import annotations

import os
import pwd
import resource
import signal
from pathlib import Path

import psutil
import pytest

from pepperbus.errors import NotReachable
from tests.fixtures.bus import NODE, Buses


def test_pushes_go_on_while_everybody_is_killed(buses: Buses) -> None:
    bus = buses.start(NODE.replace("listen = 127.0.0.1:@PORT@", "listen = 127.0.0.1:@PORT@\n    processes = 2"))
    pushed = 0
    for name in ("gateway.0", "worker.orders.0", "ticker", "web", "gateway.1"):
        pid = bus.kill(name)
        assert bus.client().lpush("orders", f"while {name} is away") >= 1  # the other gateway has the socket too
        pushed += 1
        bus.wait_replaced(name, pid)
    depth = bus.client("orders", "secret").llen("orders")
    assert depth <= pushed
    assert psutil.Process(bus.pid).num_threads() == 1
    assert bus.stop() == 0
    assert "Traceback" not in bus.log


def test_kill_9_of_the_master_loses_no_job(buses: Buses) -> None:
    bus = buses.start()
    assert bus.client().lpush("orders", *[f"job {i}" for i in range(100)]) == 100
    bus.kill_family()
    bus.start()
    bus.wait_for(lambda status: int(bus.client("orders", "secret").llen("orders")) == 100)
    assert bus.stop() == 0


def test_root_is_given_up(buses: Buses) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give it up")
    bus = buses.make(NODE.replace("[bus]", "[bus]\n    user = nobody"))
    bus.directory.chmod(0o755)
    if any(not parent.stat().st_mode & 0o001 for parent in Path(__file__).parents):
        pytest.skip("the tests lie where user nobody cannot read")
    bus.start()
    nobody = pwd.getpwnam("nobody").pw_uid
    for pid in bus.pids().values():
        assert set(psutil.Process(pid).uids()) == {nobody}
    assert bus.run_dir.stat().st_uid == nobody
    assert bus.client().lpush("orders", "a job") == 1
    assert bus.stop() == 0


def test_without_descriptors_the_living_go_on(buses: Buses) -> None:
    bus = buses.start()
    limit = resource.prlimit(bus.pid, resource.RLIMIT_NOFILE)
    pid = bus.pids()["web"]
    resource.prlimit(bus.pid, resource.RLIMIT_NOFILE, (5, limit[1]))
    os.kill(pid, signal.SIGKILL)
    bus.wait_log("action=child_not_started")
    with pytest.raises(NotReachable, match="did not answer"):
        bus.ask("status", timeout=0.5)
    assert bus.client().lpush("orders", "a job") == 1
    resource.prlimit(bus.pid, resource.RLIMIT_NOFILE, limit)
    bus.wait_replaced("web", pid)
    assert bus.stop() == 0
