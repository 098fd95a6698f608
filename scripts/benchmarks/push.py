"""Rows about pushing: how fast the front door is, and what one push costs."""

from __future__ import annotations

from collections.abc import Callable

from scripts.benchmarks import processes
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.load import VALUE, connect, latencies, percentile, redis_benchmark
from scripts.benchmarks.servers import Redis
from scripts.benchmarks.table import Side

_PLAIN = "bench:plain"  # the list that plain Redis gets


def ours(engine: str, full: int, *options: str) -> Side:
    """LPUSHes a second through our gateway, answered with the JSON reply when stored."""

    def rate(bench: Bench) -> float:
        words = ["lpush", f"push-{engine}/x", VALUE]
        return redis_benchmark(bench.usual.gateway, "pusher", bench.n(full), words, *options).rate

    return rate


def theirs(server: Callable[[Bench], Redis], full: int, *options: str) -> Side:
    """The same into a list of Redis itself."""

    def rate(bench: Bench) -> float:
        port = server(bench).port
        found = redis_benchmark(port, "", bench.n(full), ["lpush", _PLAIN, VALUE], *options).rate
        server(bench).client.delete(_PLAIN)
        return found

    return rate


def cpu_us(engine: str, full: int, *options: str) -> Side:
    """µs on a core of the whole family of the bus for one LPUSH."""

    def cost(bench: Bench) -> float:
        pids = bench.usual.pids
        before, n = processes.cpu_s(pids), bench.n(full)
        words = ["lpush", f"push-{engine}/x", VALUE]
        redis_benchmark(bench.usual.gateway, "pusher", n, words, *options)
        return (processes.cpu_s(pids) - before) / n * 1e6

    return cost


def lone_p50_us(engine: str) -> Side:
    """The middle latency of one client that waits for each answer, µs."""

    def latency(bench: Bench) -> float:
        return percentile(latencies(bench.usual.gateway, f"push-{engine}/x", bench.n(3000)), 0.5) * 1e6

    return latency


def idle_connections(count: int) -> tuple[Side, Side]:
    """KB of a gateway for each of `count` silent logged-in producers; and what they do to the p99 of another client."""

    def opened(bench: Bench) -> tuple[float, float]:
        gateway = processes.named(bench.usual.pids, "gateway")
        key, pushes = "push-embedded/x", bench.n(4000)
        quiet = percentile(latencies(bench.usual.gateway, key, pushes), 0.99)
        before = processes.memory(gateway).uss
        socks = []
        try:
            for _ in range(count):
                socks.append(connect(bench.usual.gateway))
            each = (processes.memory(gateway).uss - before) / count
            busy = percentile(latencies(bench.usual.gateway, key, pushes), 0.99)
        finally:
            for sock in socks:
                sock.close()
        return each / 1024, busy / quiet

    return (lambda bench: opened(bench)[0]), (lambda bench: opened(bench)[1])
