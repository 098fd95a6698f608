"""Rows about many: workers, queues, waiting jobs, and how long a start and a reload take with them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from scripts.benchmarks import processes, push, work
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.load import VALUE, redis_benchmark
from scripts.benchmarks.servers import wait_until
from scripts.benchmarks.stage import CHILDREN, Stage, queue_file
from scripts.benchmarks.table import Measure, Side

MANY = 1000


def name(number: int) -> str:
    """Queue names as redis-benchmark fills in its __rand_int__."""
    return f"q{number:012d}"


def many_queues(bench: Bench, engine: str, count: int = MANY, **keys: object) -> dict[str, str]:
    """`count` queues that share one worker process."""
    usual = {"run": "fastcgi", "pool": "kept", "script": bench.fpm.script("work.php"), "concurrency": CHILDREN}
    text = queue_file(engine, process_group="all", **{**usual, **keys})
    return {name(number): text for number in range(count)}


def idle_worker_mb(count: int = 20) -> Measure:
    """USS in MB of one further idle worker: `count` queues with a worker each, seen once they are quiet."""

    def measure(bench: Bench, rounds: int) -> Iterator[tuple[float, float | None]]:
        queues = {
            queue: text.replace("process_group = all\n", "")
            for queue, text in many_queues(bench, "embedded", count).items()
        }
        with bench.another(queues) as stage:
            wait_until(lambda: len(processes.named(stage.pids, "worker.")) == count, 30, "all workers run")
            time.sleep(5)
            for _ in range(rounds):
                yield processes.memory(processes.named(stage.pids, "worker.")).uss / count / 1e6, None

    return measure


def idle_queues(figure: str, engine: str) -> Measure:
    """MANY idle queues in one worker: summed PSS in MB of the whole bus (`pss`), or its CPU in % of a core (`cpu`)."""

    def measure(bench: Bench, rounds: int) -> Iterator[tuple[float, float | None]]:
        with bench.another(many_queues(bench, engine)) as stage:
            time.sleep(8)  # the registrations are done
            for _ in range(rounds):
                if figure == "pss":
                    yield processes.memory(stage.pids).pss / 1e6, None
                else:
                    pids, seconds = stage.pids, max(2.0, 10 * bench.size)
                    before = processes.cpu_s(pids)
                    time.sleep(seconds)
                    yield (processes.cpu_s(pids) - before) / seconds * 100, None

    return measure


def deep(engine: str, most: int, least: int = 1000) -> tuple[Side, Side]:
    """Jobs a second with `most` waiting, and with `least`."""
    return work.deep_rate(engine, most), work.deep_rate(engine, least)


def push_to_many(engine: str, requests: int) -> Measure:
    """LPUSHes a second spread over MANY queues / into one, on the same bus."""

    def measure(bench: Bench, rounds: int) -> Iterator[tuple[float, float | None]]:
        with bench.another(many_queues(bench, engine, consumer="off")) as stage:
            for number in range(rounds):
                n = bench.n(requests)
                if number % 2:
                    one = _lpush(stage, f"{name(7)}/x", n)
                    yield _lpush(stage, "q__rand_int__/x", n), one
                else:
                    spread = _lpush(stage, "q__rand_int__/x", n)
                    yield spread, _lpush(stage, f"{name(7)}/x", n)

    return measure


def _lpush(stage: Stage, key: str, requests: int) -> float:
    return redis_benchmark(stage.gateway, "pusher", requests, ["lpush", key, VALUE], "-r", str(MANY)).rate


def start_s(engine: str) -> Measure:
    """Seconds from the start of `serve` to the first accepted push, with MANY queues."""

    def measure(bench: Bench, rounds: int) -> Iterator[tuple[float, float | None]]:
        for _ in range(rounds):
            stage = bench.stage(many_queues(bench, engine, consumer="off"))
            try:
                yield stage.open(), None
            finally:
                stage.close()

    return measure


def reload_s(engine: str) -> Measure:
    """Seconds of `pepperbus reload` with MANY queues of which one changed: read, checked, told to all, confirmed."""

    def measure(bench: Bench, rounds: int) -> Iterator[tuple[float, float | None]]:
        with bench.another(many_queues(bench, engine, consumer="off")) as stage:
            for number in range(rounds):
                file = stage.directory / "queues.d" / f"{name(3)}.conf"
                file.write_text(queue_file(engine, run="http", url="http://127.0.0.1:1/", attempts=number + 2))
                began = time.perf_counter()
                stage.pepperbus("reload")
                yield time.perf_counter() - began, None

    return measure


CONNECTIONS = 10_000
connections_kb, connections_p99 = push.idle_connections(CONNECTIONS)
