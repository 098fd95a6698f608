"""Whole bus: a push on an idle topic reaches PHP by an event, also with very many idle queues beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.fixtures.bus import Bus, Buses
from tests.fixtures.fpm import Fpm
from tests.fixtures.redis import ALWAYS, Redis, running
from tests.process.bus_rig import begun, node, push, queue, until, until_count

WIRE = "wire.php"


@pytest.fixture(params=["embedded", "redis"])
def engine(request: pytest.FixtureRequest) -> Iterator[Redis | None]:
    if request.param == "embedded":
        yield None
        return
    with running(ALWAYS) as server:
        yield server


def idle_latencies(bus: Bus, php: Fpm, base: int, n: int) -> list[float]:
    """Seconds from the push to the script's first line, each on a topic that had nothing to do; `base` jobs ran before."""
    found = []
    with bus.client() as client:
        for i in range(base, base + n):
            at = time.time()
            client.lpush("orders", f"job {i}")
            lines = until(lambda: begun(php), lambda lines, i=i: len(lines) == i + 1, bus)
            found.append(lines[-1].at - at)
            until_count(bus, done=i + 1)
    return sorted(found)


def test_a_push_on_an_idle_topic_starts_at_once(buses: Buses, fpm: Callable[..., Fpm], engine: Redis | None) -> None:
    """Three workers in the group of 100 idle queues. The sweep would take 250 ms and more in the middle."""
    php = fpm()
    script = php.script(WIRE)
    queues = {f"idle{n}": queue(script, "ping = off", "process_group = quiet") for n in range(100)}
    queues["orders"] = queue(script, head="process_group = quiet\nworkers = 3")
    bus = buses.start(node(php, engine), queues)
    assert len(bus.pids("worker")) == 3
    push(bus, "first, with the ping")
    until_count(bus, done=1)
    rounds: list[list[float]] = []
    while not rounds or rounds[-1][5] >= 0.15 or rounds[-1][-2] >= 0.4:
        assert len(rounds) < 8, rounds  # a machine under load is slow at times, a sweep always
        rounds.append(idle_latencies(bus, php, 1 + 10 * len(rounds), 10))


def cpu(process: psutil.Process, seconds: float) -> float:
    """Share of one core that the process uses."""
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)  # the length of the measurement
    return (sum(process.cpu_times()[:2]) - before) / seconds


def test_a_thousand_queues_in_one_group(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm()
    script = php.script(WIRE)
    queues = {f"q{n}": queue(script, "ping = off", "process_group = quiet") for n in range(1000)}
    bus = buses.make(node(php), queues)
    bus.start()
    assert len(bus.pids("worker")) == 1
    with bus.client() as client:
        for n in range(0, 1000, 10):
            client.lpush(f"q{n}", "x")
    until(lambda: len(begun(php)), lambda n: n == 100, bus)
    bus.write_queue("q7", queue(script, "ping = off\ntimeout = 30s", "process_group = quiet"))
    bus.write_queue("new", queue(script, "ping = off", "process_group = quiet"))
    bus.write_queue("q8", None)
    answer = bus.ask("reload", timeout=40)
    assert (answer["ok"], answer["added"], answer["changed"], answer["removed"]) == (True, ["new"], ["q7"], ["q8"])
    with bus.client() as client:
        for n in (*range(1, 1000, 20), 999):
            client.lpush(f"q{n}", "x")
        client.lpush("new", "x")
    until(lambda: len(begun(php)), lambda n: n == 152, bus)
    bus.wait_for(lambda status: sum(p["role"] == "worker" for p in status["processes"]) == 1)
    (pid,) = bus.pids("worker").values()
    worker = psutil.Process(pid)
    used, memory = cpu(worker, 3.0), worker.memory_info().rss >> 20
    print(f"worker of 1,000 idle queues: {used:.1%} of a core, {memory} MiB")
    assert used < 0.10 or cpu(worker, 3.0) < 0.10
    before, n = sum(worker.cpu_times()[:2]), 200
    with bus.client() as client:
        for _ in range(n):
            client.lpush("new", "x")
            time.sleep(0.005)  # one push after the other, so that each wakes the worker
    until(lambda: len(begun(php)), lambda seen: seen == 152 + n, bus)
    per_push = (sum(worker.cpu_times()[:2]) - before) / n
    assert per_push < 0.01, f"{per_push * 1000:.1f} ms of a core a push: does it look into every queue?"
