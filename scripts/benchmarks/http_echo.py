"""The rows about HTTP delivery: the bus and a bare h11 loop against the same keep-alive echo.

Both send the same: the bare loop has h11 make, for every request, what the bus would send. The echo says the time in its
answers, as servers do; in the second row it numbers them too, so that the bus has read none of them before.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate

import h11

from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Delivered, Request
from pepperbus.delivery.http_request import Requests, Url
from pepperbus.job import Job
from scripts.benchmarks import work
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.load import VALUE
from scripts.benchmarks.stage import CHILDREN, Stage, queue_file
from scripts.benchmarks.table import Measure

_ANSWER = b"HTTP/1.1 200 OK\r\nDate: %b\r\nCode: 200\r\nConsume-Topics: %b\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def echo(topics: bytes, numbered: bool = False) -> Iterator[int]:
    """A server in a process of its own that answers every whole request at once and keeps the connection; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    pid = os.fork()
    if pid == 0:
        signal.alarm(1800)  # it cannot outlive a bench that was killed
        try:
            _serve(listener, _answers(topics, numbered))
        finally:
            os._exit(0)
    listener.close()
    try:
        yield port
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _answers(topics: bytes, numbered: bool) -> Callable[[], bytes]:
    number, made_at, made = 0, 0, b""

    def plain() -> bytes:
        nonlocal made_at, made
        now = int(time.time())
        if now != made_at:
            made_at, made = now, _ANSWER % (formatdate(now, usegmt=True).encode(), topics)
        return made

    def with_number() -> bytes:
        nonlocal number
        number += 1
        return plain().replace(b"Code:", b"X-Request-Id: %d\r\nCode:" % number, 1)

    return with_number if numbered else plain


def _serve(listener: socket.socket, answer: Callable[[], bytes]) -> None:
    selector = selectors.EpollSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    held: dict[int, bytes] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                sock, _address = listener.accept()
                selector.register(sock, selectors.EVENT_READ, sock)
                continue
            sock = key.data
            data = held.pop(sock.fileno(), b"")
            try:
                more = sock.recv(1 << 16)
            except ConnectionResetError:  # the bare loop leaves with an answer unread
                more = b""
            data += more
            if not more:
                selector.unregister(sock)
                sock.close()
            elif _is_whole(data):
                sock.sendall(answer())
            else:
                held[sock.fileno()] = data


def _is_whole(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    at = head.lower().find(b"content-length:")
    return bool(found) and (at < 0 or len(body) >= int(head[at + 15 :].split(b"\r\n", 1)[0]))


def bare(port: int, connections: int, requests: int) -> float:
    """Requests a second of a plain h11 client, one epoll, `connections` kept connections."""
    selector = selectors.EpollSelector()
    clients: dict[int, tuple[socket.socket, h11.Connection]] = {}

    headers, body = _what_the_bus_sends(port)

    def send(sock: socket.socket, http: h11.Connection) -> None:
        data = http.send(h11.Request(method="POST", target="/", headers=headers)) or b""
        sock.sendall(data + (http.send(h11.Data(data=body)) or b"") + (http.send(h11.EndOfMessage()) or b""))

    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clients[sock.fileno()] = sock, h11.Connection(h11.CLIENT)
        selector.register(sock, selectors.EVENT_READ)
        send(*clients[sock.fileno()])
    done, began = 0, time.perf_counter()
    while done < requests:
        for key, _ in selector.select():
            sock, http = clients[key.fd]
            http.receive_data(sock.recv(1 << 16))
            while (event := http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.EndOfMessage):
                    done += 1
                    http.start_next_cycle()
                    send(sock, http)
                    break
    took = time.perf_counter() - began
    for sock, _ in clients.values():
        sock.close()
    return done / took


def _what_the_bus_sends(port: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers and the body of one job of these rows."""
    now_ms = time.time_ns() // 1_000_000
    url = f"http://127.0.0.1:{port}/"
    requests = Requests(Topic("http-embedded", "t", "embedded", "http", urls=(url,)))
    job = Job(2**62, str(2**62), VALUE.encode(), now_ms)
    made, body = requests.make(
        Request("http-embedded", "t", f"{2**62}-bench/w1", (Delivered(job, 1),), False, 60.0, now_ms), Url.parse(url)
    )
    return list(made.headers.raw_items()), body


def delivered(engine: str, jobs: int, numbered: bool = False) -> Measure:
    """Rounds of the bus and of the bare loop against one echo."""

    def measure(bench: Bench, rounds: int) -> Iterator[tuple[float, float | None]]:
        queue = f"http-{engine}"
        with echo(f"{queue}/t".encode(), numbered) as port:
            text = queue_file(engine, run="http", url=f"http://127.0.0.1:{port}/", concurrency=CHILDREN)
            with bench.another({queue: text}) as stage:
                for _ in range(rounds):
                    yield _rate(bench, stage, queue, jobs), bare(port, CHILDREN, bench.n(jobs, 1000))

    return measure


def _rate(bench: Bench, stage: Stage, queue: str, jobs: int) -> float:
    return work.through(stage, queue, bench.n(jobs, 1000)).rate
