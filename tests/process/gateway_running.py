"""A gateway process under test: started from a spec, spoken to in raw bytes, stopped for certain."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

#: One queue of each kind of answer, an open one, one with two topics, one limited, logins for several.
QUEUES: dict[str, Any] = {
    "orders": {"password": "pw:1", "topics": {"mail": {"password": "tp"}, "audit": {}}, "keys": ["app:orders"]},
    "old": {"password": "pw", "reply": "json", "topics": {"t": {"password": "tp"}}},
    "new": {"password": "pw", "reply": "redis", "keys": ["mylist"], "topics": {"t": {"password": "tp"}}},
    "small": {"password": "pw", "topics": {"t": {"password": "tp", "max_length": 3}}},
    "empty": {"password": "pw", "topics": {}},
}


def spec(directory: Path, *, queues: dict[str, Any] | None = None, durability: str = "memory", **more: Any) -> dict:
    """A spec for `gateway_alone`, on a free port unless `listen` says otherwise."""
    chosen = {name: {"durability": durability, **q} for name, q in (queues or QUEUES).items()}
    logins = {"web": {"password": "webpw", "push": True, "pop": False, "queues": ["o*", "n*"]}}
    defaults = {"listen": ["127.0.0.1:0"], "logins": logins, "log": str(directory / "gateway.log")}
    return {"dir": str(directory), "queues": chosen, **defaults, **more}


class Running:
    """The process and its addresses."""

    def __init__(self, what: dict) -> None:
        self.spec = what
        path = Path(what["dir"]) / "spec.json"
        path.write_text(json.dumps(what))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.gateway_alone", str(path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        hello = json.loads(self._line(60))
        self.addresses: list[Any] = hello["addresses"]
        self.pid: int = hello["pid"]

    @property
    def port(self) -> int:
        return int(self.addresses[0])

    @property
    def log(self) -> str:
        path = Path(self.spec["log"])
        return path.read_text() if path.is_file() else ""

    def _line(self, seconds: float) -> bytes:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        if not ready:
            self.process.kill()
            raise TimeoutError(f"the gateway said nothing; its log: {self.log}")
        return self.process.stdout.readline()

    def tell(self, request: dict) -> dict:
        """A request on standard input, and its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self._line(20))

    def connect(self, *, source: str = "127.0.0.1") -> Wire:
        return Wire(socket.create_connection(("127.0.0.1", self.port), 20, (source, 0)))

    def stop(self) -> int:
        """End it; its exit status."""
        if self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.process.send_signal(signal.SIGCONT)
            assert self.process.stdin is not None
            with contextlib.suppress(OSError):
                self.process.stdin.close()  # it drains with no grace
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(20)
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


class Wire:
    """One raw connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(20)
        self._file = sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, *args: str | bytes) -> bytes:
        """One command as an array; its reply as raw bytes."""
        self.send(pack(*args))
        return self.reply()

    def reply(self) -> bytes:
        """One whole reply, raw; b"" when the connection is closed."""
        line: bytes = self._file.readline()
        kind, count = line[:1], line[1:-2]
        if kind == b"$" and count != b"-1":
            return line + self._file.read(int(count) + 2)
        if kind in (b"*", b"%") and count != b"-1":
            return line + b"".join(self.reply() for _ in range(int(count) * (2 if kind == b"%" else 1)))
        return line

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        try:
            return self._file.read()
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        self._file.close()
        self.sock.close()


def pack(*args: str | bytes) -> bytes:
    words = [a.encode() if isinstance(a, str) else a for a in args]
    return b"*%d\r\n%b" % (len(words), b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words))


@contextlib.contextmanager
def running(what: dict) -> Iterator[Running]:
    gateway = Running(what)
    try:
        yield gateway
    finally:
        gateway.stop()
