"""Each step of a job's life, broken at exactly that line, on a small bus; the judge of the chaos runs reads the ledgers.

A few of them by default. PEPPERBUS_FAILPOINT_TESTS=all runs every step x {kill, hang, raise} x {embedded, redis}, some words
select: PEPPERBUS_FAILPOINT_TESTS="worker redis, reclaim hang" those that have all words of a part in their names.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pepperbus.errors import NotReachable
from pepperbus.failpoints import ACTIONS, STEPS, VARIABLE
from pepperbus.master.control import ask
from tests.chaos import producer
from tests.chaos.bounds import TOPICS
from tests.chaos.checker import Report, check
from tests.chaos.run import at_rest, listing
from tests.chaos.stage import Stage, wait_until

JOBS, SECONDS = 160, 2.0
#: Without anything else said. Between them every action, both engines and most ways of being wrapped.
SHORT = {
    "gateway.storing kill redis",
    "gateway.stored hang embedded",
    "worker.claimed raise embedded",
    "worker.failed kill redis",
    "reclaim.storing kill embedded",
}
#: At which passing it strikes, where the first one is before there is load: a bus is five births.
PASSING = {"master.forked": 6, "gateway.read": 20, "gateway.numbered": 5, "gateway.storing": 5, "gateway.stored": 5}
#: What the judge may explain with it: what it knows to follow from the end of such a process.
BLAMED = {"gateway": "gateway", "worker": "worker", "reclaim": "worker", "master": "master", "upgrade": "master"}


def chosen() -> list[str]:
    steps = [
        step for step in STEPS if not step.startswith(("intake.", "schedule."))
    ]  # those are test_intakes' and test_schedule_bus', which have what is struck
    every = [f"{step} {action} {engine}" for step in steps for action in ACTIONS for engine in ("embedded", "redis")]
    wanted = os.environ.get("PEPPERBUS_FAILPOINT_TESTS", "")
    if wanted in ("", "all"):
        return [name for name in every if wanted or name in SHORT]
    parts = [set(part.split()) for part in wanted.split(",")]
    return [name for name in every if any(part <= {*name.split(), *name.replace(".", " ").split()} for part in parts)]


class Chaos(Stage):
    """The stage with `serve --chaos`, and a supervisor that starts the bus again."""

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        return super()._spawn([*command, "--chaos"])

    @property
    def has_ended(self) -> bool:
        return self._bus is not None and self._bus.poll() is not None

    def process(self) -> psutil.Process:
        assert self._bus is not None
        return psutil.Process(self._bus.pid)


@contextmanager
def load(stage: Stage, ledgers: list[Path], seed: int) -> Iterator[None]:
    """Two producers; at the end they have pushed everything."""
    share = JOBS // len(ledgers)
    threads = []
    for i, ledger in enumerate(ledgers):
        given = (("127.0.0.1", stage.gateway), i * share, share, share / SECONDS, ledger, seed + i, 0.05)
        threads.append(threading.Thread(target=producer.run, args=given, daemon=True))
        threads[-1].start()
    yield
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a producer is stuck"


def provoke(stage: Chaos, step: str) -> None:
    """What does not come by itself with load: births, leavings, upgrades."""
    role = step.partition(".")[0]
    if role in ("reclaim", "master"):
        pids = stage.pids("worker")
        os.kill(pids[0], signal.SIGKILL)
    elif role == "upgrade":
        stage.process().send_signal(signal.SIGUSR2)


def supervise(stage: Chaos, action: str) -> None:
    """As systemd does: a master that hangs is killed, one that ended is started again."""
    if action == "hang":
        wait_until(lambda: stage.process().status() == psutil.STATUS_STOPPED, 40, "the master stopped")
        stage.kill_master()
    wait_until(lambda: stage.has_ended, 40, "the master ended")
    stage.start_bus()


def run(directory: Path, name: str, seed: int = 7) -> Report:
    """A bus, load, the failpoint, recovery, rest; what the judge says."""
    step, action, engine = name.split()
    role = step.partition(".")[0]
    mark = directory / "run" / "failpoints" / step
    ledgers = [directory / "p0", directory / "p1"]
    nemesis = directory / "nemesis"
    for path in (*ledgers, nemesis):
        path.touch()
    stage = Chaos(directory, engine, seed)
    try:
        stage.open()
        with load(stage, ledgers, seed):
            wait_until(lambda: stage.consumer_ledger.stat().st_size > 2000 or mark.exists(), 40, "jobs run")
            wait_until(lambda: mark.exists() or _is_whole(stage), 40, "the start is over")
            provoked = time.time()
            provoke(stage, step)
            wait_until(lambda: mark.exists() and mark.read_text(), 40, f"{step} is passed")
            at = float(mark.read_text().split()[0])
            if BLAMED[role] == "master":
                supervise(stage, action)
        wait_until(lambda: _is_whole(stage), 60, "the family is whole again")
        waiting: dict[str, set[str]] = {topic: set() for topic in TOPICS}
        try:
            wait_until(lambda: at_rest(stage), 50, "all jobs are settled")
        except AssertionError:  # what waits for ever is the judge's to name
            waiting = {
                t: {id for state in ("ready", "delayed", "leased") for id in listing(stage, t, state)} for t in TOPICS
            }
        kind = f"{'hang' if action == 'hang' else 'kill'}_{BLAMED[role]}".replace("hang_master", "kill_master")
        began = min(at, provoked) if role in ("reclaim", "master") else at
        nemesis.write_text(f"fault {began:.6f} {kind}\nover {time.time():.6f} {kind}\n")
        dead = {topic: listing(stage, topic, "dead") for topic in TOPICS}
        waiting = {
            t: {id for state in ("ready", "delayed", "leased") for id in listing(stage, t, state)} for t in TOPICS
        }
        return check(ledgers, stage.consumer_ledger, nemesis, dead, waiting)
    finally:
        stage.close()


def _is_whole(stage: Chaos) -> bool:
    with contextlib.suppress(NotReachable):
        status = ask(stage.directory / "run", {"op": "status"}, timeout=5)
        return bool(status["ready"]) and all(place["state"] == "ready" for place in status["processes"])
    return False


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", chosen())
def test_at_exactly_that_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, action, _ = name.split()
    monkeypatch.setenv(VARIABLE, f"{step}={action}@{PASSING.get(step, 3 if step.startswith('worker') else 1)}")
    report = run(tmp_path, name)
    assert not report.verdict, f"{report}\nledgers and logs: {tmp_path}"
    assert report.accepted > JOBS // 2
