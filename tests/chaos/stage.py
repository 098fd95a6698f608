"""The stage of a chaos run: a bus, a php-fpm and, for the Redis engines, a redis-server, all real and all its own."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import redis

from pepperbus.errors import NotReachable
from pepperbus.master.control import ask
from tests.chaos.bounds import ATTEMPTS, CONCURRENCY, WORKERS
from tests.chaos.disk import LoopDisk, SmallDisk
from tests.chaos.wire import Wire
from tests.fixtures.fpm import Fpm
from tests.fixtures.ports import free_port

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: `pepperbus serve` with other mains than its own: those of `mains`, which change something in a process and go on.
_WITH_MAINS = (
    "import sys; from pathlib import Path; from pepperbus.master.serve import run; from pepperbus.master.mold import ROLES;"
    "sys.exit(run(Path(sys.argv[1]), {role: f'tests.chaos.mains:{role}' for role in ROLES}))"
)

CONF = """
queue_files = queues.d/*.conf
[bus]
    node = chaos
    data_dir = {data}
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


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


class Stage:
    """Everything that runs, and how to break it. `engine`: embedded, redis or pika.

    `mutant` and `clock` start the bus with the mains of `mains`: with a crime in it, or with a wall clock that
    `clock_ms` moves.
    """

    def __init__(
        self,
        directory: Path,
        engine: str,
        seed: int,
        verbose: bool = False,
        mutant: str = "",
        clock: bool = False,
        disk: SmallDisk | LoopDisk | None = None,
        durability: str = "process",
        fsync: str = "always",
    ) -> None:
        self.directory = directory
        self.engine = engine
        self.verbose = verbose
        self.mutant = mutant
        self.clock = directory / "clock" if clock else None
        self.consumer_ledger = directory / "consumer.ledger"
        self.consumer_ledger.touch()
        self.gateway, self.web, self.redis_port = free_port(), free_port(), free_port()
        self.config = directory / "pepperbus.conf"
        self.log = directory / "bus.log"
        self.slow = directory / "slow"
        self._bus: subprocess.Popen[bytes] | None = None
        self._redis: subprocess.Popen[bytes] | None = None
        self.disk = disk or SmallDisk(directory / "disk")
        self._durability = durability
        self._fsync = fsync
        self.wire = Wire(("127.0.0.1", self.redis_port), seed)
        self.front = Wire(("127.0.0.1", self.gateway), seed)
        (directory / "fpm").mkdir()
        php = {"display_errors": 0, "opcache.enable": 1}
        env = {"env[CHAOS_LEDGER]": self.consumer_ledger, "env[CHAOS_SLOW]": self.slow}
        self.fpm = Fpm(directory / "fpm", children=8, pool=env, php=php)
        self.script = self.fpm.script("chaos.php", (HERE / "consume.php").read_text())
        self._settings = {"attempts": ATTEMPTS, "timeout": 20}
        self._write_config()

    def say(self, text: str) -> None:
        if self.verbose:
            print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    # -- the bus -----------------------------------------------------------------------------------------------------

    def _write_config(self) -> None:
        storage = "type = embedded" if self.engine == "embedded" else self._redis_lines()
        text = CONF.format(
            gateway=self.gateway,
            web=self.web,
            log=self.log,
            storage=storage,
            fpm=self.fpm.address,
            data=self.disk.path / "data",
        )
        self.config.write_text(text)
        (self.directory / "queues.d").mkdir(exist_ok=True)
        self.write_queue()

    def _redis_lines(self) -> str:
        mode = "\n        mode = pika" if self.engine == "pika" else ""
        return f"type = redis\n        url = redis://127.0.0.1:{self.wire.port}/0{mode}"

    def write_queue(self) -> None:
        # A redis-server under `mode = pika` can say nothing about Pika's own durability.
        durability = "memory" if self.engine == "pika" else self._durability
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
        if self.mutant or self.clock:
            command = [sys.executable, "-c", _WITH_MAINS, str(self.config)]

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
        wait_until(up, 60, "the gateway answers")

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        env = {"CHAOS_MUTANT": self.mutant, "CHAOS_CLOCK": str(self.clock or ""), "CHAOS_DIR": str(self.directory)}
        with (self.directory / "serve.log").open("ab") as out:
            return subprocess.Popen(
                command, cwd=ROOT, env=os.environ | env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def stop_bus(self) -> None:
        if self._bus is not None:
            self._bus.terminate()
            status = self._bus.wait(60)
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

    def edit_and_hup(self, chance: random.Random, may_break: bool = True) -> str:
        """A random edit of the queue file, one in three of them broken; a broken one must change nothing."""
        if not self._bus:
            return "no bus"
        path = self.directory / "queues.d" / "chaos.conf"
        if may_break and chance.random() < 0.34:
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
        folder = self.disk.path / "redis"
        folder.mkdir(exist_ok=True)
        command = ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(folder)]
        command += ["--appendonly", "yes", "--appendfsync", self._fsync, "--save", "", "--logfile", str(folder / "log")]
        self._redis = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        client = redis.Redis(port=self.redis_port, retry=None, protocol=2, socket_timeout=2)

        def up() -> bool:
            assert not self.redis_is_dead(), f"redis-server ended: {(folder / 'log').read_text()[-2000:]}"
            with contextlib.suppress(redis.RedisError):
                return bool(client.ping())
            return False

        wait_until(up, 60, "redis answers")
        client.close()

    def redis_kill(self, number: int = signal.SIGKILL) -> None:
        assert self._redis is not None
        self._redis.send_signal(number)
        self._redis.wait(20)

    def redis_lives(self) -> bool:
        """Whether it answers, once that is certain: one that is about to end takes its time on a busy machine."""
        while not self.redis_is_dead():
            with contextlib.suppress(redis.RedisError):
                return self.redis_ask("PING") is True
            time.sleep(0.02)
        return False

    def redis_is_dead(self) -> bool:
        return self._redis is not None and self._redis.poll() is not None

    def redis_signal(self, number: int) -> None:
        assert self._redis is not None
        self._redis.send_signal(number)

    def redis_ask(self, *words: str, password: str = "") -> object:
        """One command past the wire, so that it arrives whatever is wrong with that."""
        login = {"password": password} if password else {}
        client = redis.Redis(port=self.redis_port, retry=None, protocol=2, socket_timeout=30, **login)
        try:
            return client.execute_command(*words)
        finally:
            client.close()

    # -- beginning and end ---------------------------------------------------------------------------------------------

    def clock_ms(self, ahead: int) -> None:
        """Move the wall clock of every process of the bus, if it was started for that."""
        assert self.clock is not None
        with self.clock.open("r+b" if self.clock.exists() else "wb") as file:  # in place: the processes have it mapped
            file.write(struct.pack("<q", ahead))

    def descriptors(self) -> dict[str, int]:
        """Open files of each process by name."""
        found = {}
        with contextlib.suppress(NotReachable, psutil.NoSuchProcess):
            for process in self.status()["processes"]:
                if process["pid"]:
                    found[process["name"]] = psutil.Process(process["pid"]).num_fds()
        return found

    def freeze(self, number: int) -> None:
        """SIGSTOP or SIGCONT for all that writes to the disk."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        if self._redis is not None:
            self._redis.send_signal(number)

    def open(self, consumer: bool = True) -> None:
        """Start everything; without `consumer` nobody listens where php-fpm should, and all jobs wait."""
        if self.clock:
            self.clock_ms(0)
        if self.engine != "embedded":
            self.redis_start()
        if consumer:
            self.fpm.start()
        self.start_bus()

    def revive_fpm(self) -> None:
        """A php-fpm that has not come back from its own reload is started again, as its supervisor would."""
        try:
            wait_until(lambda: self.fpm.children() and self.fpm.is_listening(), 10, "php-fpm is there")
        except AssertionError:
            self.say("php-fpm did not come back by itself: started again")
            self.fpm.stop()
            self.fpm.start()

    def close(self) -> None:
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        self.kill_everything()
        self.fpm.stop()
        if self._redis is not None:
            with contextlib.suppress(ProcessLookupError):
                self._redis.send_signal(signal.SIGCONT)
            self.redis_kill()
        self.wire.close()
        self.front.close()
        self.disk.close()

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
