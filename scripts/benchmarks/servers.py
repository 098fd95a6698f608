"""The servers of a measurement that are not ours, each started and stopped by the bench on a free port of loopback.

`owns` is asked before anything is measured: a figure of somebody else's server would be worse than none.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import redis

from scripts.benchmarks.processes import family

PASSWORD = "bench"


def wait_until(condition: Callable[[], object], seconds: float, what: str, every: float = 0.005) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"bench: not within {seconds:g} s: {what}")
        time.sleep(every)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def owns(pid: int, port: int) -> bool:
    """Whether the listener on `port` belongs to `pid` or a process below it."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
            inodes.add(words[9])
    for member in family(pid):
        with contextlib.suppress(OSError):
            for fd in Path(f"/proc/{member}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if any(os.readlink(fd) == f"socket:[{inode}]" for inode in inodes):
                        return True
    return False


def claim(pid: int, port: int, what: str) -> None:
    if not owns(pid, port):
        raise SystemExit(f"bench: port {port} is answered by another process than our {what}; start again")


def stop(process: subprocess.Popen[bytes], seconds: float = 40) -> None:
    """End one process that we started, and what it left behind."""
    below = family(process.pid)
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in below:
        with contextlib.suppress(psutil.Error):
            left = psutil.Process(pid)
            if left.ppid() == 1:
                left.kill()


class Redis:
    """A redis-server with a password, an append-only file and `fsync` everysec or always."""

    def __init__(self, directory: Path, fsync: str) -> None:
        self.port = free_port()
        self.fsync = fsync
        directory.mkdir(parents=True)
        self.directory = directory
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", fsync, "--requirepass", PASSWORD]
        command += ["--maxclients", "20000", "--logfile", str(directory / "log")]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.client = redis.Redis(port=self.port, password=PASSWORD, retry=None)
        wait_until(self._up, 20, "redis-server answers")
        claim(self.process.pid, self.port, "redis-server")

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    @property
    def version(self) -> str:
        return str(self.client.info("server")["redis_version"])

    def _up(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def close(self) -> None:
        self.client.close()
        stop(self.process)
