"""The row about HTTP delivery: the bus and a bare h11 loop against the same keep-alive echo."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import h11

from scripts.benchmarks import work
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.stage import CHILDREN, Stage, queue_file
from scripts.benchmarks.table import Measure

_ANSWER = b"HTTP/1.1 200 OK\r\nCode: 200\r\nConsume-Topics: %b\r\nContent-Length: 2\r\n\r\nok"
_BODY = b"type=data&queue=http&topic=t&jobs=%5B%7B%22content%22:%22" + b"x" * 300 + b"%22%7D%5D"


@contextmanager
def echo(topics: bytes) -> Iterator[int]:
    """A server in a process of its own that answers every whole request at once and keeps the connection; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    pid = os.fork()
    if pid == 0:
        signal.alarm(1800)  # it cannot outlive a bench that was killed
        try:
            _serve(listener, _ANSWER % topics)
        finally:
            os._exit(0)
    listener.close()
    try:
        yield port
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _serve(listener: socket.socket, answer: bytes) -> None:
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
                sock.sendall(answer)
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

    def send(sock: socket.socket, http: h11.Connection) -> None:
        headers = [("Host", "bench"), ("Content-Type", "text/plain"), ("Content-Length", str(len(_BODY)))]
        data = http.send(h11.Request(method="POST", target="/", headers=headers)) or b""
        sock.sendall(data + (http.send(h11.Data(data=_BODY)) or b"") + (http.send(h11.EndOfMessage()) or b""))

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


def delivered(engine: str, jobs: int) -> Measure:
    """Rounds of the bus and of the bare loop against one echo."""

    def measure(bench: Bench, rounds: int) -> Iterator[tuple[float, float | None]]:
        queue = f"http-{engine}"
        with echo(f"{queue}/t".encode()) as port:
            text = queue_file(engine, run="http", url=f"http://127.0.0.1:{port}/", concurrency=CHILDREN)
            with bench.another({queue: text}) as stage:
                for _ in range(rounds):
                    yield _rate(bench, stage, queue, jobs), bare(port, CHILDREN, bench.n(jobs, 1000))

    return measure


def _rate(bench: Bench, stage: Stage, queue: str, jobs: int) -> float:
    return work.through(stage, queue, bench.n(jobs, 1000)).rate
