"""What gevent alone gives on this machine: the least a bus made of it can cost. Rows to read P1, P4 and P10 by.

A process of its own that does nothing but receive, parse and answer; and one that sends prebuilt requests to php-fpm from
callbacks. No queue, no storage, no books.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import gevent.event
import hiredis

from scripts.benchmarks import bare, processes
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.load import VALUE, redis_benchmark
from scripts.benchmarks.stage import CHILDREN
from scripts.benchmarks.table import Side

_ROOT = Path(__file__).parent.parent.parent
_END_REQUEST = b"\1\3\0\1\0\10\0\0"  # FastCGI 1.0, 5.5: the header of the record that ends an answer


def push_rate(full: int) -> Side:
    """LPUSHes a second that are parsed and answered with a number, and otherwise forgotten."""

    def rate(bench: Bench) -> float:
        with _answering() as (port, _):
            return redis_benchmark(port, "", bench.n(full), ["lpush", "x", VALUE], "-P", "1").rate

    return rate


def push_cpu_us(full: int) -> Side:
    """µs on a core for one of them."""

    def cost(bench: Bench) -> float:
        with _answering() as (port, pid):
            n, before = bench.n(full), processes.cpu_s([pid])
            redis_benchmark(port, "", n, ["lpush", "x", VALUE], "-P", "1")
            return (processes.cpu_s([pid]) - before) / n * 1e6

    return cost


def fastcgi_rate(full: int) -> Side:
    """Requests a second to php-fpm over kept connections, sent and received by callbacks of gevent's loop."""

    def rate(bench: Bench) -> float:
        words = [str(bench.fpm.socket), bench.fpm.script("work.php"), str(bench.n(full))]
        done = subprocess.run(_command("fastcgi", *words), cwd=_ROOT, check=True, capture_output=True, text=True)
        return float(done.stdout)

    return rate


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "scripts.benchmarks.floor", *words]


@contextmanager
def _answering() -> Iterator[tuple[int, int]]:
    """Such a server's port and pid."""
    with subprocess.Popen(_command("answer"), cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.kill()


def _answer() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.setblocking(False)
    loop = gevent.get_hub().loop
    watchers = {}

    def accept() -> None:
        sock = listener.accept()[0]
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = hiredis.Reader()
        watcher = watchers[sock] = loop.io(sock.fileno(), 1)

        def receive() -> None:
            data = sock.recv(65536)
            if not data:
                watcher.stop()
                del watchers[sock]
                sock.close()
                return
            reader.feed(data)
            sock.send(b":1\r\n" * sum(1 for _ in iter(reader.gets, False)))

        watcher.start(receive)

    gate = loop.io(listener.fileno(), 1)
    gate.start(accept)
    print(listener.getsockname()[1], flush=True)
    gevent.sleep(1800)  # it cannot outlive a bench that was killed


def _fastcgi(path: str, script: str, requests: int) -> float:
    """As `bare.loop`, from gevent's callbacks."""
    loop, over = gevent.get_hub().loop, gevent.event.Event()
    data = bare.request(script, keep=True)
    warm = CHILDREN * 5
    state = {"done": -warm, "sent": 0, "started": 0.0}
    kept = []

    def connect() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sock.setblocking(False)
        watcher = loop.io(sock.fileno(), 1)
        held = [b""]

        def receive() -> None:
            held[0] += sock.recv(65536)
            if not _is_over(held[0]):
                return
            held[0] = b""
            state["done"] += 1
            if state["done"] == 0:
                state["started"] = time.perf_counter()
            if state["done"] >= requests:
                over.set()
            else:
                sock.send(data)

        watcher.start(receive)
        sock.send(data)
        kept.append((sock, watcher))

    for _ in range(CHILDREN):
        connect()
    over.wait()
    return requests / (time.perf_counter() - state["started"])


def _is_over(answer: bytes) -> bool:
    """It ends with the record that ends a request."""
    return answer[-16:-8] == _END_REQUEST


if __name__ == "__main__":
    if sys.argv[1] == "answer":
        _answer()
    else:
        print(_fastcgi(sys.argv[2], sys.argv[3], int(sys.argv[4])))
