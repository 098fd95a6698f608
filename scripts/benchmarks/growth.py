"""How figures move when something grows: queues, waiting jobs, payloads, connections, topics, jobs done. One plot each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.benchmarks import processes, scale, work
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.load import connect, fill, latencies, percentile, redis_benchmark
from scripts.benchmarks.plot import Series, nice, svg
from scripts.benchmarks.stage import ENGINES, Stage, queue_file


@dataclass(frozen=True)
class Plot:
    """What is drawn, and kept as JSON."""

    name: str
    title: str
    x_title: str
    y_title: str
    series: Sequence[Series]

    def draw(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{self.name}.svg").write_text(svg(self.title, self.x_title, self.y_title, self.series))


def _points(say: str, xs: Sequence[int], measure: Callable[[int], float]) -> list[tuple[float, float]]:
    points = []
    for x in xs:
        points.append((float(x), measure(x)))
        print(f"  growth: {say} {x:,}: {nice(points[-1][1])}", file=sys.stderr)
    return points


def _push(stage: Stage, key: str, requests: int, value: str = "x" * 100, clients: int = 50) -> float:
    return redis_benchmark(
        stage.gateway, "pusher", requests, ["lpush", key, value], "-r", str(scale.MANY), clients=clients
    ).rate


def queues(bench: Bench) -> Plot:
    """Pushes a second spread over 1, 100 and 1,000 queues."""
    series = []
    for engine in ENGINES:

        def rate(count: int, engine: str = engine) -> float:
            made = scale.many_queues(bench, engine, count, consumer="off")
            with bench.another(made) as stage:
                words = ["lpush", "q__rand_int__/x", "x" * 100]
                return redis_benchmark(stage.gateway, "pusher", bench.n(40_000), words, "-r", str(count)).rate

        series.append(Series(engine, _points(f"queues, {engine}", (1, 100, 1000), rate)))
    return Plot("queues", "LPUSH a second, spread over so many queues", "queues", "/s", series)


def waiting(bench: Bench) -> Plot:
    """Jobs a second into php-fpm while so many more wait."""
    depths = [depth for depth in (1000, 10_000, 100_000, 1_000_000) if depth <= max(10_000, 1_000_000 * bench.size)]
    series = []
    for engine in ENGINES:

        def rate(depth: int, engine: str = engine) -> float:
            return work.deep_rate(engine, depth)(bench)

        series.append(Series(engine, _points(f"waiting, {engine}", depths, rate)))
    return Plot("waiting", "Jobs a second into php-fpm, so many waiting", "waiting jobs", "/s", series)


def payloads(bench: Bench) -> Plot:
    """MB a second of pushes as the payload grows."""
    series = []
    for engine in ENGINES:

        def megabytes(size: int, engine: str = engine) -> float:
            n = max(50, min(bench.n(20_000), (256 << 20) // size))
            return _push(bench.usual, f"push-{engine}/x", n, "x" * size) * size / 1e6

        # redis-benchmark takes the value as an argument: 128 KiB is the most the kernel allows for one.
        series.append(Series(engine, _points(f"payload, {engine}", (100, 1024, 10_240, 102_400), megabytes)))
        point = _filled(bench, engine, 1 << 20)
        series[-1] = Series(engine, [*series[-1].points, (float(1 << 20), point)])
    return Plot("payloads", "Accepted MB a second, by payload", "bytes of a job", "MB/s", series)


def _filled(bench: Bench, engine: str, size: int) -> float:
    """MB a second of one producer with payloads too big for redis-benchmark."""
    n, began = bench.n(100, 20), time.perf_counter()
    fill(bench.usual.gateway, f"push-{engine}", n, b"x" * size)
    return n * size / (time.perf_counter() - began) / 1e6


def connections(bench: Bench) -> Plot:
    """p50 and p99 of one producer's push beside so many silent ones."""
    found: dict[str, list[tuple[float, float]]] = {"p50": [], "p99": []}
    for count in (1, 10, 100, 1000, 10_000):
        socks = []
        try:
            for _ in range(count - 1):
                socks.append(connect(bench.usual.gateway))
            times = latencies(bench.usual.gateway, "push-embedded/x", bench.n(2000, 300))
        finally:
            for sock in socks:
                sock.close()
        found["p50"].append((float(count), percentile(times, 0.5) * 1000))
        found["p99"].append((float(count), percentile(times, 0.99) * 1000))
    series = [Series(name, points) for name, points in found.items()]
    return Plot("connections", "A push beside so many idle connections (embedded)", "connections", "ms", series)


def fan_out(bench: Bench) -> Plot:
    """Pushes a second to a queue with so many topics, each of which gets a copy."""
    series = []
    for engine in ENGINES:

        def rate(topics: int, engine: str = engine) -> float:
            names = "\n".join(f"[[t{number}]]" for number in range(topics))
            keys = {"run": "fastcgi", "pool": "kept", "script": bench.fpm.script("work.php"), "consumer": "off"}
            with bench.another({"fan": queue_file(engine, topics=names, **keys)}) as stage:
                return _push(stage, "fan/x", bench.n(30_000))

        series.append(Series(engine, _points(f"fan-out, {engine}", (1, 2, 4, 8), rate)))
    return Plot("fanout", "LPUSH a second, by topics of the queue", "topics", "/s", series)


def churn(bench: Bench) -> Plot:
    """Memory of gateway and worker, and size of the embedded store, while jobs come and go (chunk = 16)."""
    total, steps = bench.n(5_000_000, 40_000), 8
    found: dict[str, list[tuple[float, float]]] = {"gateway USS": [], "worker USS": [], "store": []}
    store = bench.usual.directory / "data"
    done = 0
    for _ in range(steps):
        work.through(bench.usual, "chunk-embedded", total // steps)
        done += total // steps
        pids = bench.usual.pids
        found["gateway USS"].append((float(done), processes.memory(processes.named(pids, "gateway")).uss / 1e6))
        found["worker USS"].append((float(done), processes.memory(processes.named(pids, "worker.embedded")).uss / 1e6))
        size = sum(file.stat().st_blocks * 512 for file in store.rglob("data.mdb"))
        found["store"].append((float(done), size / 1e6))
    series = [Series(name, points) for name, points in found.items()]
    return Plot("churn", "After so many jobs pushed and done (embedded)", "jobs", "MB", series)


PLOTS: dict[str, Callable[[Bench], Plot]] = {
    "queues": queues,
    "waiting": waiting,
    "payloads": payloads,
    "connections": connections,
    "fanout": fan_out,
    "churn": churn,
}


def grow(bench: Bench, names: Sequence[str], directory: Path) -> dict[str, object]:
    """Measure and draw the plots of `names`; their figures for the JSON file. One that fails is said and left out."""
    figures: dict[str, object] = {}
    for name in names:
        try:
            plot = PLOTS[name](bench)
        except (SystemExit, OSError) as trouble:
            print(f"bench: growth {name}: not run: {trouble}", file=sys.stderr)
            figures[name] = {"not_run": str(trouble)}
            continue
        plot.draw(directory)
        figures[name] = asdict(plot)
    return figures
