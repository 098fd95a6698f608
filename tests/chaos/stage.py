"""The stage of a chaos run: a bus, a php-fpm and, for the Redis engines, a redis-server, all real and all its own."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import redis

from pepperbus.errors import NotReachable
from pepperbus.master.control import ask
from tests.fixtures.fpm import Fpm

HERE = Path(__file__).parent
CONCURRENCY = 4
WORKERS = 2
#: What a fault may repeat: what runs on the node (two topics), and what each worker had answered but not yet stored (the
#: worker's own limit, 32). The second part dominates, so this bound is loose: the reported number of duplicates says more.
IN_FLIGHT = 2 * CONCURRENCY + WORKERS * 32

CONF = """
queue_files = queues.d/*.conf
[bus]
    node = chaos
    data_dir = data
    run_dir = run
    grace = 5s
[gateway]
    listen = 127.0.0.1:{gateway}
[web]
    listen = 127.0.0.1:{web}
[log]
    file = {log}
[storages]
    [[store]]
        {storage}
[fastcgi]
    [[php]]
        address = {fpm}
        dedicated = yes
        max_connections = 8
"""
QUEUE = """
password = secret
storage = store
durability = {durability}
workers = {workers}
run = fastcgi
pool = php
script = {script}
concurrency = {concurrency}
attempts = {attempts}
backoff = fixed 500ms
timeout = {timeout}s
zombie_grace = 1s
[topics]
    [[a]]
    [[b]]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


class Stage:
    """Everything that runs, and how to break it. `engine`: embedded, redis or pika."""

    def __init__(self, directory: Path, engine: str, seed: int, verbose: bool = False) -> None:
        self.directory = directory
        self.engine = engine
        self.verbose = verbose
        self.consumer_ledger = directory / "consumer.ledger"
        self.consumer_ledger.touch()
        self.gateway, self.web, self.redis_port = free_port(), free_port(), free_port()
        self.config = directory / "pepperbus.conf"
        self.log = directory / "bus.log"
        self._bus: subprocess.Popen[bytes] | None = None
        self._redis: subprocess.Popen[bytes] | None = None
        (directory / "fpm").mkdir()
        php = {"display_errors": 0, "opcache.enable": 1}
        env = {"env[CHAOS_LEDGER]": self.consumer_ledger}
        self.fpm = Fpm(directory / "fpm", children=8, pool=env, php=php)
        self.script = self.fpm.script("chaos.php", (HERE / "consume.php").read_text())
        self._settings = {"attempts": 4, "timeout": 20}
        self._write_config()

    def say(self, text: str) -> None:
        if self.verbose:
            print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    # -- the bus -----------------------------------------------------------------------------------------------------

    def _write_config(self) -> None:
        storage = "type = embedded" if self.engine == "embedded" else self._redis_lines()
        text = CONF.format(gateway=self.gateway, web=self.web, log=self.log, storage=storage, fpm=self.fpm.address)
        self.config.write_text(text)
        (self.directory / "queues.d").mkdir(exist_ok=True)
        self.write_queue()

    def _redis_lines(self) -> str:
        mode = "\n        mode = pika" if self.engine == "pika" else ""
        return f"type = redis\n        url = redis://127.0.0.1:{self.redis_port}/0{mode}"

    def write_queue(self) -> None:
        durability = "memory" if self.engine == "pika" else "process"
        text = QUEUE.format(
            script=self.script,
            concurrency=CONCURRENCY,
            workers=WORKERS,
            durability=durability,
            **self._settings,
        )
        path = self.directory / "queues.d" / "chaos.conf"
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").replace(path)

    def start_bus(self) -> None:
        """Start and wait until a push would be accepted."""
        command = [sys.executable, "-m", "pepperbus.cli", "-c", str(self.config), "serve"]

        def up() -> bool:
            nonlocal tries
            assert self._bus is not None
            if self._bus.poll() is not None:  # the family of a killed master has 5 s to leave
                assert tries < 60, f"serve ends with {self._bus.returncode}: {self._tail('serve.log')}"
                tries += 1
                time.sleep(0.25)
                self._bus = self._spawn(command)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.gateway), 1) as probe:
                probe.settimeout(1)
                probe.sendall(b"AUTH chaos:secret\r\n")
                return probe.recv(5) == b"+OK\r\n"
            return False

        tries = 0
        self._bus = self._spawn(command)
        wait_until(up, 30, "the gateway answers")

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.directory / "serve.log").open("ab") as out:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def stop_bus(self) -> None:
        if self._bus is not None:
            self._bus.terminate()
            status = self._bus.wait(30)
            assert status == 0, f"serve ended with {status} after TERM"
            self._bus = None

    def status(self) -> dict:  # type: ignore[type-arg]
        return ask(self.directory / "run", {"op": "status"}, timeout=5)

    def pids(self, role: str) -> list[int]:
        if role == "master":
            return [self._bus.pid] if self._bus else []
        try:
            return [p["pid"] for p in self.status()["processes"] if p["role"] == role and p["pid"]]
        except NotReachable:
            return []

    def family(self) -> list[psutil.Process]:
        if self._bus is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            master = psutil.Process(self._bus.pid)
            return [master, *master.children(recursive=True)]
        return []

    def kill_master(self) -> None:
        assert self._bus is not None
        self._bus.kill()
        self._bus.wait()

    def kill_everything(self) -> None:
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._bus is not None:
            self._bus.wait()

    def edit_and_hup(self, chance: random.Random) -> str:
        """A random edit of the queue file, one in three of them broken; a broken one must change nothing."""
        if not self._bus:
            return "no bus"
        path = self.directory / "queues.d" / "chaos.conf"
        if chance.random() < 0.34:
            good = path.read_text()
            path.write_text(good.replace("run = fastcgi", "run = fastkgi"))
            with contextlib.suppress(NotReachable):
                answer = ask(self.directory / "run", {"op": "reload"}, timeout=15)
                assert not answer.get("ok", False), f"a broken file was accepted: {answer}"
            path.write_text(good)
            return "broken file refused"
        self._settings["timeout"] = chance.randrange(20, 40)
        self.write_queue()
        self._bus.send_signal(signal.SIGHUP)
        return f"timeout = {self._settings['timeout']}s"

    # -- redis -------------------------------------------------------------------------------------------------------

    def redis_start(self) -> None:
        folder = self.directory / "redis"
        folder.mkdir(exist_ok=True)
        command = ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(folder)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--logfile", str(folder / "log")]
        self._redis = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        client = redis.Redis(port=self.redis_port, retry=None, protocol=2, socket_timeout=2)

        def up() -> bool:
            with contextlib.suppress(redis.RedisError):
                return bool(client.ping())
            return False

        wait_until(up, 20, "redis answers")
        client.close()

    def redis_kill(self) -> None:
        assert self._redis is not None
        self._redis.kill()
        self._redis.wait()

    def redis_signal(self, number: int) -> None:
        assert self._redis is not None
        self._redis.send_signal(number)

    def redis_config(self, name: str, value: str) -> None:
        client = redis.Redis(port=self.redis_port, retry=None, protocol=2, socket_timeout=5)
        client.config_set(name, value)
        client.close()

    # -- beginning and end ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        if self.engine != "embedded":
            self.redis_start()
        self.fpm.start()
        self.start_bus()

    def close(self) -> None:
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        self.kill_everything()
        self.fpm.stop()
        if self._redis is not None:
            self._redis.send_signal(signal.SIGCONT)
            self.redis_kill()

    def _tail(self, name: str) -> str:
        path = self.directory / name
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
