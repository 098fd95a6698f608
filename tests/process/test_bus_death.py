"""Whole bus: workers that are killed, drained, replaced. What had begun counts one attempt, what had not counts none."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.fixtures.bus import Buses
from tests.fixtures.fpm import Fpm
from tests.fixtures.redis import ALWAYS, Redis, running
from tests.process.bus_rig import ask, begun, ended, let_go, life, node, push, queue, until, until_count

WIRE = "wire.php"
QUICK = "backoff = fixed 50ms\nzombie_grace = 100ms"


@pytest.fixture(params=["embedded", "redis"])
def engine(request: pytest.FixtureRequest) -> Iterator[Redis | None]:
    if request.param == "embedded":
        yield None
        return
    with running(ALWAYS) as server:
        yield server


def test_a_killed_worker_costs_only_what_ran_one_attempt(
    buses: Buses, fpm: Callable[..., Fpm], engine: Redis | None
) -> None:
    """Four slow scripts run and quick ones are leased behind them when the worker dies."""
    php = fpm(children=8)
    bus = buses.start(node(php, engine).replace("max_connections = 4", "max_connections = 8"), {
        "orders": queue(php.script(WIRE), QUICK)
    })  # fmt: skip
    push(bus, *["quick"] * 100)
    until_count(bus, done=100)  # from here on the worker leases ahead
    slow = push(bus, *["hold"] * 4, *["x"] * 40)[:4]
    until(lambda: len(begun(php)), lambda n: n >= 104, bus)
    bus.kill("worker.orders.0")
    let_go(php)
    until_count(bus, done=144)
    attempts = {job_id: [line.attempt for line in begun(php) if line.id == job_id] for job_id in slow}
    assert attempts == {job_id: [1, 2] for job_id in slow}
    assert {line.attempt for line in begun(php) if line.id not in slow} == {1}
    events = life(bus, slow[0], events=2)["events"]
    assert [(event["event"], event["attempt"], event["outcome"]) for event in events] == [
        ("released", 1, "back"), ("attempt", 2, "done"),
    ]  # fmt: skip


def test_three_deaths_are_enough(buses: Buses, fpm: Callable[..., Fpm], engine: Redis | None) -> None:
    php = fpm(children=8)
    bus = buses.start(node(php, engine), {"orders": queue(php.script(WIRE), QUICK)})
    (job_id,) = push(bus, "hold")
    for n in (1, 2, 3):
        until(lambda n=n: len(begun(php)), lambda seen, n=n: seen == n, bus)
        pid = bus.kill("worker.orders.0")
        bus.wait_replaced("worker.orders.0", pid)
    told = until(lambda: life(bus, job_id), lambda told: told["state"] == "dead", bus)
    assert told["job"]["reason"] == "its worker died 3 times while it ran"
    assert [line.attempt for line in begun(php)] == [1, 2, 3]
    let_go(php)
    push(bus, "the next one")
    until_count(bus, done=1)


def test_term_lets_running_jobs_end_and_gives_the_rest_back(
    buses: Buses, fpm: Callable[..., Fpm], engine: Redis | None
) -> None:
    php = fpm()
    patient = node(php, engine).replace("grace = 5s", "grace = 40s")
    bus = buses.start(patient, {"orders": queue(php.script(WIRE), QUICK)})
    push(bus, *["quick"] * 100)
    until_count(bus, done=100)
    slow = push(bus, *["hold"] * 4, *["x"] * 40)[:4]
    until(lambda: len(begun(php)), lambda n: n >= 104, bus)
    bus.send(signal.SIGTERM)
    bus.wait_log("action=stopping")
    let_go(php)
    assert bus.wait() == 0
    assert {line.id for line in ended(php)[100:]} >= set(slow), "inside the grace they end"
    bus.start()
    until(lambda: ended(php), lambda lines: len(lines) == 144, bus)
    assert {line.attempt for line in begun(php)} == {1}


def test_int_returns_running_work_at_once(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    """Grace 0: what still runs counts as cut after sending, so an attempt is spent; the rest is untouched."""
    php = fpm()
    patient = node(php).replace("grace = 5s", "grace = 300s")  # TERM would have given them so much, the test would not
    bus = buses.start(patient, {"orders": queue(php.script(WIRE), QUICK + "\nconcurrency = 2\ntimeout = 300s")})
    slow = push(bus, *["hold"] * 2, *["x"] * 5)[:2]
    until(lambda: len(begun(php)), lambda n: n == 2, bus)
    assert bus.stop(signal.SIGINT) == 0
    assert not ended(php)
    php.stop(signal.SIGKILL)
    let_go(php)
    php.start()
    bus.start()
    until_count(bus, done=7)
    assert [line.attempt for line in begun(php) if line.id in slow] == [1, 1, 2, 2]
    assert {line.attempt for line in begun(php) if line.id not in slow} == {1}


def test_everything_killed_at_once(buses: Buses, fpm: Callable[..., Fpm], engine: Redis | None) -> None:
    """kill -9 of master and family: the next bus knows that nobody lives and takes everything back at once."""
    php = fpm()
    bus = buses.start(node(php, engine), {"orders": queue(php.script(WIRE), QUICK, "workers = 2")})
    ids = push(bus, *["sleep 0.01"] * 200)
    until(lambda: len(ended(php)), lambda n: n > 40, bus)
    bus.kill_family()
    bus.start()
    until(lambda: len({line.id for line in ended(php)}), lambda n: n == len(ids), bus)
    until(lambda: ask(bus, "status", "--seconds", "0")["queues"][0]["topics"][0],
          lambda topic: topic["ready"] + topic["leased"] + topic["delayed"] + topic["dead"] == 0, bus)  # fmt: skip
    assert len(begun(php)) - len(ids) <= 4 + 2 * 32, "only what ran, or was answered and not yet settled, ran again"
    numbers = [(line.id, line.attempt) for line in begun(php)]
    assert len(set(numbers)) == len(numbers), "an attempt number is never used twice"


def test_a_worker_that_is_replaced_finishes_what_it_runs(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    """HUP with a changed queue: the old worker ends its job, its successor serves meanwhile; nothing runs twice."""
    php = fpm(children=8)
    text = queue(php.script(WIRE), "concurrency = 8\ntimeout = 30s")
    bus = buses.start(node(php).replace("max_connections = 4", "max_connections = 8"), {"orders": text})
    (slow,) = push(bus, "hold")
    until(lambda: begun(php), bool, bus)
    old = bus.pids("worker")
    bus.write_queue("orders", text.replace("timeout = 30s", "timeout = 40s"))
    answer = bus.ask("reload")
    assert answer["ok"], answer
    push(bus, *["x"] * 20)
    until_count(bus, done=20)
    assert not [line for line in ended(php) if line.id == slow], "served while the old one still runs"
    assert os.path.exists(f"/proc/{old['worker.orders.0']}")
    let_go(php)
    until_count(bus, done=21)
    assert [line.attempt for line in begun(php) if line.id == slow] == [1]
    bus.wait_for(lambda status: old["worker.orders.0"] not in [p["pid"] for p in status["processes"]])
