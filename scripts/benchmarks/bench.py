"""What the rows share: the servers, and the sizes of this run. Made once a run; rows ask it for everything."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import hiredis
import lmdb

from pepperbus import __version__
from scripts.benchmarks.servers import Redis
from scripts.benchmarks.stage import CHILDREN, ENGINES, Stage, new_fpm, queue_file
from tests.fixtures.fpm import BINARY

#: What an answered push survives, as each side is set up here.
DURABILITY = {
    "embedded": "power (LMDB, fsync before the reply)",
    "redis": "process (appendonly, appendfsync everysec)",
    "Redis always": "power (appendonly, appendfsync always)",
}


class Bench:
    """One run. `size` scales every load: 1 is --full."""

    def __init__(self, directory: Path, size: float) -> None:
        self.directory = directory
        self.size = size
        self.closing = contextlib.ExitStack()
        self.redis = self._redis("everysec")
        self.always = self._redis("always")
        self.fpm = new_fpm(directory / "fpm")
        self._made = 0
        self.filled: dict[str, int] = {}
        self.usual = self.stage(_usual_queues(*map(self.fpm.script, ("work.php", "real.php", "lag.php"))))
        self.fpm.start()
        self.closing.callback(self.fpm.stop)
        self.start_s = self.usual.open()
        self.closing.callback(self.usual.close)

    def n(self, full: int, least: int = 100) -> int:
        """How many of something that --full does `full` times."""
        return max(least, int(full * self.size))

    def _redis(self, fsync: str) -> Redis:
        server = Redis(self.directory / f"redis-{fsync}", fsync)
        self.closing.callback(server.close)
        return server

    def stage(self, queues: dict[str, str], more: str = "") -> Stage:
        """Another bus, not yet open, on the same Redis and php-fpm."""
        self._made += 1
        names = ", ".join(f"{queue}/t" for queue in queues)
        (Path(self.fpm.script("topics.txt"))).write_text(names)
        return Stage(self.directory / f"bus{self._made}", self.redis, self.fpm, queues, more)

    @contextmanager
    def another(self, queues: dict[str, str], more: str = "") -> Iterator[Stage]:
        """The same as `stage`, open for the length of a `with`. The usual bus goes on, idle."""
        listed = Path(self.fpm.script("topics.txt"))
        before = listed.read_text()
        stage = self.stage(queues, more)
        try:
            stage.open()
            yield stage
        finally:
            stage.close()
            listed.write_text(before)

    def close(self) -> None:
        self.closing.close()

    def about(self) -> dict[str, object]:
        """What the figures were made on and with."""
        return {
            "pepperbus": __version__,
            "commit": _said("git", "rev-parse", "--short", "HEAD"),
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "gevent": gevent.__version__,
            "hiredis": hiredis.__version__,
            "lmdb": ".".join(map(str, lmdb.version())),
            "redis": self.redis.version,
            "php": _said("php", "-r", "echo PHP_VERSION;"),
            "php-fpm": f"{BINARY}, {CHILDREN} static children, opcache, unix socket",
            "cores": len(os.sched_getaffinity(0)),
            "processor": _processor(),
            "kernel": platform.release(),
            "load before": round(os.getloadavg()[0], 2),
            "durability": DURABILITY,
            "bus": "one gateway, one worker a queue group, statistics and journal on",
        }


def _usual_queues(work: str, real: str, lag: str) -> dict[str, str]:
    """Every queue has one topic `t`. One worker process serves all queues of an engine."""
    queues: dict[str, str] = {}
    for engine in ENGINES:

        def fed(engine: str = engine, **keys: object) -> str:
            usual = {"run": "fastcgi", "pool": "kept", "script": work, "concurrency": CHILDREN}
            return queue_file(engine, process_group=engine, **{**usual, **keys})

        queues[f"push-{engine}"] = fed(consumer="off")
        queues[f"work-{engine}"] = fed()
        queues[f"real-{engine}"] = fed(script=real)
        queues[f"each-{engine}"] = fed(pool="each")
        queues[f"chunk-{engine}"] = fed(chunk=16)
        queues[f"lag-{engine}"] = fed(pool="each", script=lag)
        queues[f"deep-{engine}"] = fed()
    return queues


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "?"
    except OSError:
        return "?"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
