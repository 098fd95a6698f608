"""A bus of the bench's own: the real product with everything on, its configuration, its php-fpm, ended with it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import redis

from pepperbus import stats
from scripts.benchmarks import processes
from scripts.benchmarks.servers import PASSWORD, Redis, claim, free_port, stop, wait_until
from tests.fixtures.fpm import Fpm

ENGINES = ("embedded", "redis")
#: php-fpm's children, and so the most jobs at once.
CHILDREN = 4

CONF = """
queue_files = queues.d/*.conf
[bus]
    node = bench
    data_dir = data
    run_dir = run
[gateway]
    listen = 127.0.0.1:{gateway}
    max_clients = 12000
[web]
    listen = 127.0.0.1:{web}
[log]
    file = bus.log
[storages]
    [[embedded]]
        type = embedded
    [[redis]]
        type = redis
        url = {redis}
[logins]
    pusher = {password}, push, *
[fastcgi]
    [[kept]]
        address = {fpm}
        dedicated = yes
        keepalive = on
        max_connections = {children}
    [[each]]
        address = {fpm}
        dedicated = yes
        max_connections = {children}
"""
#: Does nothing: what is measured is the way to it and back.
WORK = """<?php
if (($_POST['type'] ?? '') === 'ping') { header('Consume-Topics: ' . file_get_contents(__DIR__ . '/topics.txt')); }
header('Code: 200');
"""
#: Works for about a millisecond, always the same.
REAL = WORK + "for ($i = 0; $i < 4000; $i++) { $x = md5($x ?? 'x'); }\n"
#: Writes down how long ago each job was pushed; the content is the time of the push.
LAG = """<?php
$now = microtime(true);
if (($_POST['type'] ?? '') === 'ping') { header('Consume-Topics: ' . file_get_contents(__DIR__ . '/topics.txt')); }
else {
    $sent = json_decode($_POST['jobs'], true)[0]['content'];
    file_put_contents(__DIR__ . '/lag.txt', sprintf("%.6f\\n", $now - (float) $sent), FILE_APPEND);
}
header('Code: 200');
"""


class Stage:
    """One bus with its queues. `queues` maps a queue's name to its file; `directory` must be empty."""

    def __init__(self, directory: Path, storage: Redis, fpm: Fpm, queues: dict[str, str], more: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.config = directory / "pepperbus.conf"
        self.queues = queues
        self.gateway, self.web = free_port(), free_port()
        self.fpm = fpm
        text = CONF.format(
            gateway=self.gateway,
            web=self.web,
            redis=storage.url,
            fpm=fpm.address,
            children=CHILDREN,
            password=PASSWORD,
        )
        self.config.write_text(text + more)
        folder = directory / "queues.d"
        folder.mkdir()
        for name, body in queues.items():
            (folder / f"{name}.conf").write_text(body)
        self.process: subprocess.Popen[bytes] | None = None
        self._stats = directory / "run" / "stats"

    def open(self) -> float:
        """Start it; returns the seconds until the first push was accepted, in every storage that is used."""
        log = (self.directory / "serve.log").open("ab")
        began = time.perf_counter()
        command = [sys.executable, "-m", "pepperbus.cli", "-c", str(self.config), "serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        first = next(iter(self.queues))
        wait_until(lambda: self._accepts(first), 60, f"the bus accepts a push; see {self.directory}/serve.log")
        took = time.perf_counter() - began
        claim(self.process.pid, self.gateway, "bus")
        return took

    def _accepts(self, queue: str) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise SystemExit(f"bench: serve ended: {(self.directory / 'serve.log').read_text()[-2000:]}")
        with contextlib.suppress(redis.RedisError):
            return b'"error":""' in self.client().execute_command("LPUSH", f"{queue}/x", b"%f" % time.time())
        return False

    def close(self) -> None:
        if self.process is not None:
            stop(self.process)
            self.process = None

    @property
    def pids(self) -> list[int]:
        assert self.process is not None
        return processes.family(self.process.pid)

    def client(self) -> redis.Redis:
        """A Redis client that may push to every queue."""
        return redis.Redis(port=self.gateway, username="pusher", password=PASSWORD, retry=None)

    def pepperbus(self, *words: str) -> None:
        command = [sys.executable, "-m", "pepperbus.cli", "-c", str(self.config), *words]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise SystemExit(f"bench: pepperbus {' '.join(words)}: {ran.stderr or ran.stdout}")

    # -- counting --------------------------------------------------------------------------------------------------

    def count(self, topic: str, counter: str) -> int:
        """A counter of one topic, summed over all processes. Reads only what it needs: it is asked while we measure."""
        at, total = stats.COUNTERS.index(counter), 0
        for path in self._stats.glob("*.stats"):
            for name, words in stats.read_slot(path):
                if name == topic or (not topic and "/" in name):
                    total += words[at]
        return total

    def state(self, topic: str) -> int:
        return max((words[stats.COUNTERS.index("state")] for words in self._records(topic)), default=0)

    def _records(self, topic: str) -> list[memoryview]:
        slots = [slot for path in self._stats.glob("worker.*.stats") for slot in stats.read_slot(path)]
        return [words for name, words in slots if name == topic]


def queue_file(engine: str, topics: str = "[[t]]", **keys: object) -> str:
    """The text of a queue's file; `keys` are the queue's and its topics'."""
    lines = [f"password = {PASSWORD}", f"storage = {engine}"]
    lines += [f"{name} = {value}" for name, value in keys.items()]
    return "\n".join([*lines, "[topics]", topics, ""])


def new_fpm(directory: Path) -> Fpm:
    """A php-fpm with CHILDREN static children and opcache, as a dedicated pool would be set."""
    directory.mkdir(parents=True)
    fpm = Fpm(directory, children=CHILDREN, php={"opcache.enable": 1})
    fpm.script("work.php", WORK)
    fpm.script("real.php", REAL)
    fpm.script("lag.php", LAG)
    return fpm
