"""What a measurement runs on: a bus, a redis-server and a php-fpm of its own on free ports, ended with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.chaos.stage import free_port
from tests.fixtures.fpm import Fpm

CHILDREN = 4

CONF = """
queue_files = queues.d/*.conf
[bus]
    node = bench
    data_dir = data
    run_dir = run
[gateway]
    listen = 127.0.0.1:{gateway}
[web]
    listen = 127.0.0.1:{web}
[log]
    file = bus.log
[storages]
    [[embedded]]
        type = embedded
    [[redis]]
        type = redis
        url = redis://127.0.0.1:{redis}/0
[fastcgi]
    [[php]]
        address = {fpm}
        dedicated = yes
        keepalive = {keepalive}
        max_connections = {children}
"""
QUEUES = """
password = bench
storage = {engine}
reply = redis
durability = process
run = fastcgi
pool = php
concurrency = {children}
[topics]
    [[t]]
        script = {script}
        consumer = {consumer}
"""
#: Does nothing, as a job of no work at all: what is measured is the way to it and back.
WORK = """<?php
if (($_POST['type'] ?? '') === 'ping') { header('Consume-Topics: work-embedded/t,work-redis/t,lag-embedded/t,lag-redis/t'); }
header('Code: 200');
"""
#: Writes down how long ago the job was pushed; the content is the time of the push.
LAG = """<?php
$now = microtime(true);
if (($_POST['type'] ?? '') === 'ping') { header('Consume-Topics: lag-embedded/t,lag-redis/t'); }
else {
    $sent = json_decode($_POST['jobs'], true)[0]['content'];
    file_put_contents(__DIR__ . '/lag.txt', sprintf("%.6f\\n", $now - (float) $sent), FILE_APPEND);
}
header('Code: 200');
"""


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"bench: not within {seconds:g} s: {what}")
        time.sleep(0.002)


class Stage:
    """The servers of one measurement. Queues: push-E (nobody consumes), work-E and lag-E, for both engines E."""

    def __init__(self, directory: Path, keepalive: bool = True) -> None:
        self.directory = directory
        self.gateway, self.web, self.redis_port, self.redis_always = (free_port() for _ in range(4))
        (directory / "fpm").mkdir()
        self.fpm = Fpm(directory / "fpm", children=CHILDREN, php={"opcache.enable": 1})
        self.work = self.fpm.script("work.php", WORK)
        self.lag = self.fpm.script("lag.php", LAG)
        self.lag_file = Path(self.lag).parent / "lag.txt"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._write(keepalive)

    def _write(self, keepalive: bool) -> None:
        text = CONF.format(
            gateway=self.gateway,
            web=self.web,
            redis=self.redis_port,
            fpm=self.fpm.address,
            keepalive="on" if keepalive else "off",
            children=CHILDREN,
        )
        (self.directory / "pepperbus.conf").write_text(text)
        folder = self.directory / "queues.d"
        folder.mkdir()
        for engine in ("embedded", "redis"):
            for name, script, consumer in (("push", "work", "off"), ("work", "work", "on"), ("lag", "lag", "on")):
                path = getattr(self, script)
                text = QUEUES.format(engine=engine, children=CHILDREN, script=path, consumer=consumer)
                alias = f"keys = mylist-{engine}\n" if name == "push" else ""
                (folder / f"{name}-{engine}.conf").write_text(alias + text)

    def open(self) -> None:
        self._redis(self.redis_port, "everysec")
        self._redis(self.redis_always, "always")
        self.fpm.start()
        log = (self.directory / "serve.log").open("wb")
        command = [sys.executable, "-m", "pepperbus.cli", "-c", str(self.directory / "pepperbus.conf"), "serve"]
        self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

        def up() -> bool:
            with contextlib.suppress(redis.RedisError):
                return self.client("push-embedded").lpush("push-embedded", b"x") >= 1
            return False

        wait_until(up, 30, "the bus accepts a push")

    def _redis(self, port: int, fsync: str) -> None:
        folder = self.directory / f"redis-{fsync}"
        folder.mkdir()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", fsync, "--logfile", str(folder / "log")]
        self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        client = redis.Redis(port=port, retry=None)

        def up() -> bool:
            with contextlib.suppress(redis.RedisError):
                return bool(client.ping())
            return False

        wait_until(up, 20, "redis-server answers")

    def client(self, queue: str) -> redis.Redis:
        """A Redis client logged in as `queue`."""
        return redis.Redis(port=self.gateway, username=queue, password="bench", retry=None)

    def pepperbus(self, *words: str) -> None:
        command = [sys.executable, "-m", "pepperbus.cli", "-c", str(self.directory / "pepperbus.conf"), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.fpm.stop()


@contextmanager
def stage(keepalive: bool = True) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="pepperbus-bench-", ignore_cleanup_errors=True) as name:
        made = Stage(Path(name), keepalive)
        try:
            made.open()
            yield made
        finally:
            made.close()


def cores() -> int:
    return len(os.sched_getaffinity(0))
