"""The table: each row is ours, theirs and the ratio, measured in turn so that a drifting machine drifts for both."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pepperbus import stats
from scripts.benchmarks import bare
from scripts.benchmarks.stage import CHILDREN, Stage, cores, stage, wait_until


@dataclass
class Row:
    name: str
    command: str
    unit: str
    must: float
    at_least: bool = True  # the figure must be at least `must`, else at most
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def figures(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)] if self.theirs else self.ours

    @property
    def holds(self) -> bool:
        median = statistics.median(self.figures)
        return median >= self.must if self.at_least else median <= self.must


def benchmark(port: int, key: str, login: str, pipeline: int, requests: int) -> float:
    """LPUSH a second by redis-benchmark -c 50."""
    command = ["redis-benchmark", "-p", str(port), "-c", "50", "-P", str(pipeline), "-n", str(requests), "--csv", "-q"]
    command += ["-a", login] if login else []
    command += ["lpush", key, "x" * 100]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    rates = [line.split('","')[1] for line in result.stdout.splitlines() if line.startswith('"lpush')]
    if not rates:
        raise SystemExit(f"bench: {' '.join(command)}: {result.stdout[-300:]}{result.stderr[-300:]}")
    return float(rates[-1].strip('"'))


def count(at: Stage, topic: str, counter: str) -> int:
    found = stats.read_all(at.directory / "run" / "stats", [topic]).get(topic)
    return found[counter] if found else 0


def work_rate(at: Stage, queue: str, jobs: int) -> float:
    """Jobs a second through the whole bus into php-fpm: pushed while paused, then let go."""
    topic = f"{queue}/t"
    before = count(at, topic, "done")
    at.pepperbus("pause", topic)
    wait_until(lambda: count(at, topic, "state") == 2, 10, f"{topic} pauses")
    client = at.client(queue)
    for _ in range(jobs // 100):
        client.lpush(queue, *["x" * 100] * 100)
    at.pepperbus("resume", topic)
    first = before + jobs // 10  # past the first lease and the waking up
    wait_until(lambda: count(at, topic, "done") >= first, 60, f"{topic} begins")
    started, first = time.perf_counter(), count(at, topic, "done")
    last = before + jobs
    wait_until(lambda: count(at, topic, "done") >= last, 120, f"{topic} ends")
    return (last - first) / (time.perf_counter() - started)


def lag_p99(at: Stage, queue: str, jobs: int) -> float:
    """p99 in ms from the push to the first line of PHP, an idle topic, 100 pushes a second."""
    at.lag_file.unlink(missing_ok=True)
    client = at.client(queue)
    for _ in range(jobs):
        client.lpush(queue, f"{time.time():.6f}")
        time.sleep(0.01)  # the topic shall be idle again before the next
    wait_until(lambda: at.lag_file.exists() and len(at.lag_file.read_text().splitlines()) >= jobs, 30, "all lags")
    lags = sorted(float(line) for line in at.lag_file.read_text().splitlines())
    return lags[int(len(lags) * 0.99) - 1] * 1000


def measure(rounds: int, size: int) -> list[Row]:
    rows: list[Row] = []

    def add(name: str, command: str, unit: str, must: float, at_least: bool = True) -> Row:
        rows.append(Row(name, command, unit, must, at_least))
        return rows[-1]

    p1 = add("push one by one, redis (process)", "redis-benchmark -c 50 -P 1 lpush, ours / that Redis", "/s", 0.4)
    p3 = add("push one by one, embedded (power)", "the same / Redis appendfsync always", "/s", 0.4)
    p4 = {
        engine: add(f"one job a FastCGI request, {engine}", f"bus / bare loop, {CHILDREN} children, kept", "/s", 0.5)
        for engine in ("embedded", "redis")
    }
    p8 = {
        engine: add(f"idle push to PHP, {engine}", "p99, 100 pushes a second", "ms", 10.0, at_least=False)
        for engine in ("embedded", "redis")
    }
    with stage() as at:
        for _ in range(rounds):
            p1.ours.append(benchmark(at.gateway, "mylist-redis", "push-redis:bench", 1, 50 * size))
            p1.theirs.append(benchmark(at.redis_port, "mylist", "", 1, 50 * size))
            p3.ours.append(benchmark(at.gateway, "mylist-embedded", "push-embedded:bench", 1, 50 * size))
            p3.theirs.append(benchmark(at.redis_always, "mylist", "", 1, 50 * size))
            for engine, row in p4.items():
                row.ours.append(work_rate(at, f"work-{engine}", 10 * size))
                row.theirs.append(bare.loop(str(at.fpm.socket), at.work, CHILDREN, 10 * size, keep=True))
            for engine, row in p8.items():
                row.ours.append(lag_p99(at, f"lag-{engine}", 200))
    return rows


def show(rows: list[Row], write: Callable[[str], object] = print) -> None:
    write(f"{platform.python_implementation()} {platform.python_version()}, {cores()} cores, {platform.release()}")
    write(f"{'':36} {'ours':>10} {'theirs':>10} {'figure':>8} {'min-max':>14}  must")
    for row in rows:
        figures = sorted(row.figures)
        theirs = f"{statistics.median(row.theirs):,.0f}" if row.theirs else "-"
        write(
            f"{row.name:36} {statistics.median(row.ours):>10,.1f} {theirs:>10} {statistics.median(figures):>8.2f}"
            f" {figures[0]:>6.2f}-{figures[-1]:<6.2f}  {'>=' if row.at_least else '<='} {row.must:g}"
            f"{'' if row.holds else '   MISSED'}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=1000, help="scale of a round: 50 x this many pushes")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args()
    rows = measure(given.rounds, given.size)
    show(rows)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
