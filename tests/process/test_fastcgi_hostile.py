"""Our FastCGI client against a server that breaks every rule: an answer, never an exception, never a hang."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import gevent.server
import gevent.socket
import pytest

from pepperbus.delivery import make_consumer
from pepperbus.delivery.contract import Answer, Delivered, Request, Transport
from pepperbus.job import Job
from tests.fixtures.fpm import fastcgi_config


def record(kind: int, content: bytes = b"", padding: int = 0, request_id: int = 1, version: int = 1) -> bytes:
    return struct.pack(">BBHHBx", version, kind, request_id, len(content), padding) + content + bytes(padding)


def end(status: int = 0) -> bytes:
    return record(3, struct.pack(">IB3x", 0, status))


OK = record(6, b"Code: 200\r\n\r\nfine")
Ask = Callable[..., Answer]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """`ask(bytes)`: start a server that answers so to whatever it reads, put one job to it, give the client's answer."""
    servers = []

    def run(answer: bytes, *, split: int = 0, early: bool = False, reset: bool = False, hold: bool = False,
            **topic: object) -> Answer:  # fmt: skip
        def serve(sock: gevent.socket.socket, _: object) -> None:
            if not early:
                sock.recv(65536)
            for at in range(0, len(answer), split or len(answer) or 1):
                sock.sendall(answer[at : at + (split or len(answer))])
                gevent.sleep(0)
            if hold:
                gevent.sleep(60)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        server = gevent.server.StreamServer(("127.0.0.1", 0), serve)
        server.start()
        servers.append(server)
        made, config = fastcgi_config(f"127.0.0.1:{server.server_port}", "/x.php", tmp_path, **topic)
        job = Delivered(Job(1 << 63, "1", b"x"), 1)
        patience_s = 1.0 if hold else 30.0
        return make_consumer(made, config).call(Request("orders", "mail", "1", (job,), deadline_s=patience_s))

    yield run
    for server in servers:
        server.stop(timeout=0)


ANSWERED, CUT, BUSY, FORBIDDEN, TIMEOUT = (
    Transport.ANSWERED,
    Transport.CUT,
    Transport.BUSY,
    Transport.FORBIDDEN,
    Transport.TIMEOUT,
)
CASES = {
    "good": (OK + end(), ANSWERED),
    "header only": (record(6, b"Code: 200\r\n\r\n") + end(), ANSWERED),
    "LF only": (record(6, b"Code: 200\n\nfine") + end(), ANSWERED),
    "header over many records": (b"".join(record(6, bytes([c])) for c in b"Code: 200\r\n\r\nx") + end(), ANSWERED),
    "padding 255": (record(6, b"Code: 200\r\n\r\n", 255) + end(), ANSWERED),
    "content of 65535": (record(6, b"Code: 200\r\n\r\n" + b"x" * 65522) + end(), ANSWERED),
    "end twice": (OK + end() + end(), ANSWERED),
    "bytes after the end": (OK + end() + b"garbage" * 1000, ANSWERED),
    "management record": (record(10, b"", request_id=0) + OK + end(), ANSWERED),
    "no header block": (record(6, b"hello") + end(), CUT),
    "nothing but the end": (end(), CUT),
    "header of 70 KB": (record(6, b"X: " + b"y" * 65000) + record(6, b"y" * 5000 + b"\r\n\r\n") + end(), CUT),
    "other request id": (record(6, b"Code: 200\r\n\r\n", request_id=2) + end(), CUT),
    "unknown record type": (record(77, b"x") + end(), CUT),
    "version 2": (record(6, b"Code: 200\r\n\r\n", version=2) + end(), CUT),
    "short END": (OK + record(3, b"x"), CUT),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", CUT),
    "nothing": (b"", CUT),
    "half a record": (OK[:-3], CUT),
    "no END": (OK, CUT),
    "protocol status 1": (end(1), BUSY),
    "protocol status 2": (end(2), BUSY),
    "protocol status 3": (end(3), FORBIDDEN),
    "protocol status 9": (end(9), CUT),
    "overloaded after output": (OK + end(2), CUT),
    "silly Status": (record(6, b"Status: -1\r\n\r\n") + end(), CUT),
}


@pytest.mark.parametrize("split", [0, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize("name", CASES)
def test_hostile_answers(ask: Ask, name: str, split: int) -> None:
    data, expected = CASES[name]
    if split and len(data) > 3000:
        split = 997
    answer = ask(data, split=split)
    assert answer.transport is expected, answer
    assert (answer.headers.get("code") == "200") is (expected is ANSWERED)
    assert bool(answer.detail) is (expected is not ANSWERED)


def test_reset_and_silence(ask: Ask) -> None:
    assert ask(OK, reset=True).transport is CUT
    assert ask(b"", hold=True).transport is TIMEOUT
    assert ask(OK, hold=True).transport is TIMEOUT


def test_a_connection_with_bytes_after_the_end_is_not_kept(ask: Ask) -> None:
    answer = ask(OK + end() + b"x", pool_dedicated=True, pool_keepalive=True)
    assert answer.transport is ANSWERED


def test_a_server_that_closes_at_once_is_cut_or_busy_and_never_answered(ask: Ask) -> None:
    assert ask(b"", early=True, reset=True).transport in (CUT, BUSY)


def test_an_answer_before_the_request_was_sent_is_not_ours(tmp_path: Path) -> None:
    """php-fpm answers 200 with nothing to a request without params; under guard the job has not been sent yet."""
    path = str(tmp_path / "early.sock")
    listener = gevent.socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(4)

    def serve() -> None:
        while True:
            sock, _ = listener.accept()
            sock.sendall(OK + end())

    server = gevent.spawn(serve)
    made, config = fastcgi_config(f"unix:{path}", "/x.php", tmp_path, pool_guard="always")
    job = Delivered(Job(1 << 63, "1", b"x"), 1)
    answer = make_consumer(made, config).call(Request("orders", "mail", "1", (job,), deadline_s=30.0))
    server.kill()
    listener.close()
    assert answer.transport is BUSY
