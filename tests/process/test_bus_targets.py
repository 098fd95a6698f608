"""Whole bus: php-fpm that is not there, full, locked away or shared; limits that hold over processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import psutil

from tests.fixtures.bus import Buses
from tests.fixtures.fpm import Fpm
from tests.process.bus_rig import ask, begun, counts, ended, ledger, node, push, queue, until, until_count

WIRE = "wire.php"


def test_jobs_wait_for_a_php_fpm_that_comes_up_later(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    """Under `sdk` and under `status`: no attempt is spent, and the first job runs within 3 s."""
    php = fpm()
    script = php.script(WIRE)
    php.stop()
    queues = {"orders": queue(script, "attempts = 1"), "bills": queue(script, "contract = status\nattempts = 1")}
    bus = buses.start(node(php), queues)
    for _ in range(20):
        push(bus, "x")
        push(bus, "x", key="bills/x")
    until(lambda: {one["topics"][0]["state"] for one in ask(bus, "status")["queues"]}, {"down"}.__eq__, bus)
    time.sleep(1.5)  # the length of the outage
    php.start()
    up = time.time()
    until_count(bus, done=20)
    until_count(bus, "bills/mail", done=20)
    for name in ("orders/mail", "bills/mail"):
        lines = [line for line in begun(php) if line.topic == name]
        # It looks again every few seconds at most, however long the target is away; jobs would wait for their backoff.
        assert min(line.at for line in lines) - up < 9.0
        assert {line.attempt for line in lines} == {1}
        assert counts(bus, name)["failed"] == 0


@contextlib.contextmanager
def occupied(php: Fpm, children: int) -> Iterator[None]:
    """Others hold every child of the pool and fill its backlog: connections that say nothing."""
    held = []
    for _ in range(children + 64):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        held.append(client)
        try:
            client.connect(str(php.socket))
        except BlockingIOError:
            break
    try:
        yield
    finally:
        for client in held:
            client.close()


def test_a_full_pool_costs_no_attempt_and_no_cpu(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm(children=2, pool={"listen.backlog": 1})
    bus = buses.start(node(php), {"orders": queue(php.script(WIRE), "attempts = 1")})
    push(bus, "x")
    until_count(bus, done=1)
    worker = psutil.Process(bus.pids("worker")["worker.orders.0"])
    with occupied(php, 2):
        push(bus, *["x"] * 50)
        before, began = sum(worker.cpu_times()[:2]), time.monotonic()
        time.sleep(2.0)  # the length of the jam
        used = (sum(worker.cpu_times()[:2]) - before) / (time.monotonic() - began)
        assert counts(bus)["done"] == 1
        assert used < 0.25, f"{used:.0%} of a core while nothing can be sent"
    until_count(bus, done=51)
    assert counts(bus)["failed"] == 0
    assert {line.attempt for line in begun(php)} == {1}


def test_a_socket_that_may_not_be_used_is_named_with_its_mode(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    """Root may use any socket, so the bus runs as somebody else."""
    php = fpm()
    php.socket.chmod(0o600)
    php.let_others_in()
    text = (
        node(php).replace("[bus]", "[bus]\n    user = nobody\n    group = nogroup") if os.geteuid() == 0 else node(php)
    )
    bus = buses.make(text, {"orders": queue(php.script(WIRE), "contract = status")})
    if os.geteuid() != 0:
        php.socket.chmod(0o000)
    for path in (bus.directory, bus.directory / "queues.d"):
        path.chmod(0o755)
    (bus.directory / "data").mkdir()
    (bus.directory / "run").mkdir()
    if os.geteuid() == 0:
        for name in ("data", "run"):
            os.chown(bus.directory / name, 65534, 65534)
    bus.start()
    push(bus, "x")
    (topic,) = until(
        lambda: ask(bus, "status", "--seconds", "0")["queues"][0]["topics"], lambda t: t[0]["state"] == "stopped", bus
    )
    assert str(php.socket) in topic["why"]
    assert " srw-------" in topic["why"] or " s---------" in topic["why"], topic["why"]
    php.socket.chmod(0o666)
    for directory in php.scripts.rglob("*"):
        directory.chmod(0o666)
    php.scripts.chmod(0o777)
    until_count(bus, done=1)


def most_at_once(lines: list[tuple[float, int]]) -> int:
    now = most = 0
    for _, step in sorted(lines):
        now += step
        most = max(most, now)
    return most


def test_limits_hold_over_processes_and_topics(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    """Two workers, two topics, one pool: concurrency 2 each, max_connections 3. Counted in the consumer's own ledger."""
    php = fpm(children=8)
    text = queue(php.script(WIRE), "concurrency = 2", "workers = 2", ("mail", "audit"))
    bus = buses.start(node(php).replace("max_connections = 4", "max_connections = 3"), {"orders": text})
    push(bus, *["sleep 0.02"] * 100)
    for name in ("mail", "audit"):
        until_count(bus, f"orders/{name}", done=100)
    lines = ledger(php)
    for name in ("mail", "audit"):
        mine = [(line.at, 1 if line.kind == "B" else -1) for line in lines if line.topic == f"orders/{name}"]
        assert most_at_once(mine) == 2
    assert most_at_once([(line.at, 1 if line.kind == "B" else -1) for line in lines]) == 3
    assert {line.attempt for line in lines} == {1}


def test_php_fpm_restarted_under_load_costs_only_what_ran(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm()
    bus = buses.start(node(php), {"orders": queue(php.script(WIRE), "backoff = fixed 100ms")})
    push(bus, *["sleep 0.01"] * 400)
    until(lambda: len(ended(php)), lambda n: n > 50, bus)
    php.stop(signal.SIGKILL)
    php.start()
    until_count(bus, done=400)
    spent = sum(1 for line in begun(php) if line.attempt > 1)
    # Four ran. Six were seen once: probably a place freed by the first dead child met one not yet dead. Not proven, so the
    # bound of twice four is a guard against re-sending, not a measured limit.
    assert counts(bus)["failed"] <= 8, "what ran at the moment of the kill"
    assert spent <= 8
