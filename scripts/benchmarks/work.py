"""Rows about feeding consumers: jobs a second through the whole bus into php-fpm, and what one costs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from scripts.benchmarks import bare, processes
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.load import fill
from scripts.benchmarks.servers import wait_until
from scripts.benchmarks.stage import CHILDREN, Stage
from scripts.benchmarks.table import Side

#: How often the counters are looked at, seconds: a look reads a file of every process, CPU taken from those who are measured.
_EVERY_S = 0.1


@dataclass(frozen=True)
class Work:
    """Jobs a second, and µs on a core of the whole bus for each."""

    rate: float
    cpu_us: float


def through(stage: Stage, queue: str, jobs: int, depth: int = 0) -> Work:
    """`jobs` jobs of a topic that has `depth` more waiting: pushed while it is paused, then let go, timed in the middle."""
    topic = f"{queue}/t"
    _pause(stage, topic)
    fill(stage.gateway, queue, jobs + depth)
    before = stage.count(topic, "done")
    stage.pepperbus("resume", topic)
    wait_until(lambda: stage.count(topic, "done") >= before + jobs // 5, 60, f"{topic} gets going", _EVERY_S)
    pids = stage.pids
    began, cpu, first = time.perf_counter(), processes.cpu_s(pids), stage.count(topic, "done")
    while (done := stage.count(topic, "done")) < before + jobs * 9 // 10:
        time.sleep(_EVERY_S)
        if time.perf_counter() - began > 120:
            raise SystemExit(f"bench: {topic} does not end: {done - first} done")
    took, used = time.perf_counter() - began, processes.cpu_s(pids) - cpu
    if done == first:
        raise SystemExit(f"bench: {jobs} jobs of {topic} are too few to be timed: give a larger --size")
    if not depth:
        wait_until(lambda: stage.count(topic, "done") >= before + jobs, 60, f"{topic} ends", _EVERY_S)
    return Work((done - first) / took, used / (done - first) * 1e6)


def _pause(stage: Stage, topic: str) -> None:
    stage.pepperbus("pause", topic)
    wait_until(lambda: stage.state(topic) == 2, 10, f"{topic} pauses")
    wait_until(lambda: stage.count(topic, "in_flight") == 0, 10, f"{topic} rests")


def bus_rate(queue: str, full: int) -> Side:
    return lambda bench: through(bench.usual, queue, bench.n(full, 1000)).rate


def bus_cpu_us(queue: str, full: int) -> Side:
    return lambda bench: through(bench.usual, queue, bench.n(full, 1000)).cpu_us


def bare_rate(full: int, keep: bool, script: str = "work.php") -> Side:
    """The same php-fpm and script without a bus."""

    def rate(bench: Bench) -> float:
        return bare.loop(str(bench.fpm.socket), bench.fpm.script(script), CHILDREN, bench.n(full, 1000), keep)

    return rate


def deep_rate(engine: str, depth: int) -> Side:
    """Jobs a second with `depth` jobs waiting. What waits stays for the next round."""

    def rate(bench: Bench) -> float:
        queue = f"deep-{engine}"
        have = max(0, bench.filled.get(queue, 0))
        jobs = bench.n(10_000, 1000)
        found = through(bench.usual, queue, jobs, max(0, depth - have)).rate
        bench.filled[queue] = depth
        return found

    return rate
