"""Clients of the sidecar that come slowly, or not at all: each loses its connection by a deadline, or its place to others."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.lock
import gevent.ssl
import pytest
from flask import Flask
from jinja2 import DictLoader

from pepperbus.web import api, live
from pepperbus.web.crowd import Crowd
from pepperbus.web.server import Bounds, WebServer
from tests.process.test_web_reach import cert

#: Long enough for what is sent at once to be there, whoever else wants the core.
SHORT = Bounds(idle=1.5, head=1.5, body=1.5, body_rate=1 << 30, rest=1.5, send=1.5)
LARGE = b"x" * (32 << 20)


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/large":
        start_response("200 OK", [("Content-Length", str(len(LARGE)))])
        return [LARGE]
    if environ["PATH_INFO"] == "/long":
        environ["pepperbus.gate"].wait()
    body = environ["wsgi.input"].read() if environ["PATH_INFO"] == "/read" else b""
    start_response("200 OK", [("Content-Length", str(len(body) + 3))])
    return [b"ok ", body]


class Served:
    """A server in a thread with a hub of its own."""

    def __init__(self, crowd: Crowd, bounds: Bounds, context: ssl.SSLContext | None = None, app: Any = None) -> None:
        self._ready = threading.Event()
        self._app = app or application
        self._crowd, self._bounds = crowd, bounds
        self._tls = {"ssl_context": context} if context else {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(20)

    def _run(self) -> None:
        from gevent.event import Event

        stop, self.gate = Event(), Event()
        hub = gevent.get_hub()
        self._stop, self._open = hub.loop.async_(), hub.loop.async_()
        self._stop.start(stop.set)
        self._open.start(self.gate.set)
        environ = {"pepperbus.gate": self.gate}
        server = WebServer(
            ("127.0.0.1", 0), self._app, self._crowd, self._bounds, environ=environ, error_log=None, **self._tls
        )
        server.start()
        self.port: int = server.address[1]
        self._ready.set()
        stop.wait()
        server.stop(0.1)

    def connect(self, *sent: bytes) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        for piece in sent:
            sock.sendall(piece)
        return sock

    def ask(self, path: str = "/") -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            return bytes(answer.read())

    def open_gate(self) -> None:
        self._open.send()

    def close(self) -> None:
        self._open.send()
        self._stop.send()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Any]:
    made: list[Served] = []

    def start(
        crowd: Crowd | None = None, bounds: Bounds = SHORT, context: ssl.SSLContext | None = None, app: Any = None
    ) -> Served:
        made.append(Served(crowd or Crowd(lambda _: None), bounds, context, app))
        return made[-1]

    yield start
    for one in made:
        one.close()


def all_of(sock: socket.socket) -> bytes:
    """What comes until the server closes; socket.timeout after 20 s."""
    told = b""
    try:
        while piece := sock.recv(1 << 16):
            told += piece
    except ConnectionResetError:
        pass
    return told


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def working(crowd: Crowd) -> int:
    return sum(visitor.waits_since is None for visitor in list(crowd._here))


def test_who_is_slow_with_a_request_is_sent_home(serve: Any) -> None:
    served = serve()
    silent = served.connect()
    head = served.connect(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow")
    body = served.connect(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
    unread = served.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nGET / HT")
    kept = served.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert all_of(silent) == b""
    assert all_of(head).startswith(b"HTTP/1.1 408 ")
    assert all_of(body).startswith(b"HTTP/1.1 500 "), "the application's own answer to the error it is given"
    assert all_of(unread).count(b"HTTP/1.1") == 1, "the rest of a body is no request"
    assert all_of(kept).count(b"HTTP/1.1 200 ") == 1
    assert served.ask() == b"ok "


def test_half_a_request_is_none(serve: Any) -> None:
    served = serve(bounds=Bounds())
    half = served.connect(b"GET / HTTP/1.1\r\nHost: x\r\n")
    half.shutdown(socket.SHUT_WR)
    assert all_of(half) == b""


def test_a_head_has_a_size(serve: Any) -> None:
    served = serve(bounds=Bounds())
    large = served.connect(b"GET / HTTP/1.1\r\nHost: x\r\n")
    line = b"X-%d: " + b"y" * 8000 + b"\r\n"
    told = b""
    try:
        for number in range(20):
            large.sendall(line % number)
        told = all_of(large)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the answer may be lost with what was still on its way
    assert told == b"" or told.startswith(b"HTTP/1.1 431 ")


def test_who_takes_no_answer_is_sent_home(serve: Any) -> None:
    crowd = Crowd(lambda _: None)
    served = serve(crowd)
    stuck = served.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    assert stuck.recv(100).startswith(b"HTTP/1.1 200 OK")
    until(lambda: not crowd._here)


def test_the_patient_make_place_and_work_does_not(serve: Any) -> None:
    told: list[str] = []
    crowd = Crowd(told.append, most=8, of_one=6)
    served = serve(crowd, Bounds())
    busy = [served.connect(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(4)]
    until(lambda: working(crowd) == 4)
    idle = [served.connect() for _ in range(20)]
    half = [served.connect(b"POST /read HTTP/1.1\r\nContent-Length: 9\r\n\r\nx") for _ in range(20)]
    assert served.ask() == b"ok "
    more = [served.connect(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(2)]
    until(lambda: working(crowd) == 6)
    assert all_of(served.connect(b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 503 "), "all places are at work"
    served.open_gate()
    for one in busy + more:
        assert b" 200 OK" in one.recv(100)
    for one in idle + half:
        assert b"200 OK" not in all_of(one)
    assert len(told) == 1, "not a line for each of them"
    assert "no place for everybody" in told[0]


def test_one_address_takes_the_places_of_its_own() -> None:
    class Sock:
        closed = False

        def __init__(self) -> None:
            self._sock = self

        def shutdown(self, _how: int) -> None:
            self.closed = True

    crowd = Crowd(lambda _: None, most=10, of_one=8)
    friend = crowd.admit(Sock(), "192.0.2.1")
    flood = [crowd.admit(Sock(), "192.0.2.66") for _ in range(30)]
    assert friend is not None
    assert not friend.sock.closed
    assert sum(not one.sock.closed for one in flood if one) == 8
    other = [crowd.admit(Sock(), f"192.0.2.{n}") for n in range(2, 9)]
    assert all(one is not None and not one.sock.closed for one in (friend, *other))


def test_tls_is_agreed_upon_in_time(serve: Any, tmp_path: Path) -> None:
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert(tmp_path), tmp_path / "key.pem")
    served = serve(context=context)
    assert all_of(served.connect(b"\x16\x03\x01")) == b""
    assert all_of(served.connect()) == b""
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    with trusting.wrap_socket(served.connect(), server_hostname="localhost") as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(99).startswith(b"HTTP/1.1 200 OK")


def quiet_pages() -> Flask:
    """Whose live part never changes, and is looked at once a minute: nothing is written that could show who has gone."""
    app = Flask(__name__)
    app.jinja_loader = DictLoader({"page": "{% block live %}still{% endblock %}"})
    app.add_url_rule("/", "page", lambda: live.stream("page", dict, 60.0, "one for all"))
    return app


FOLLOW = b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"


def begins(sock: socket.socket) -> bool:
    told = b""
    while b"data: still" not in told:
        piece = sock.recv(4096)
        told += piece
        if not piece or told.startswith(b"HTTP/1.1 503 "):
            return False
    return True


def test_who_closes_a_live_page_frees_its_place_at_once(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Crowd(lambda _: None)
    served = serve(crowd, Bounds(), app=quiet_pages())
    for how, most in (("close", live.MOST), ("reset", 20), ("say more first", 20)):
        monkeypatch.setattr(live, "_places", gevent.lock.BoundedSemaphore(most))
        pages = [served.connect(FOLLOW) for _ in range(most)]
        assert all(begins(page) for page in pages)
        with served.connect(FOLLOW) as one_too_many:
            assert not begins(one_too_many)
        for page in pages:
            if how == "reset":
                page.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if how == "say more first":
                page.sendall(b"GET /next HTTP/1.1\r\n")
            page.close()
        until(lambda most=most: not crowd._here and live._places.counter == most)


def test_who_ends_a_stream_of_the_api_frees_its_place_at_once(serve: Any) -> None:
    def nothing_happens() -> Iterator[Any]:
        gevent.sleep(3600)
        yield

    streams, app = gevent.lock.BoundedSemaphore(3), Flask(__name__)
    app.add_url_rule("/", "tail", lambda: api._streamed(nothing_happens(), streams, lambda: True))
    served = serve(bounds=Bounds(), app=app)
    for _again in range(2):
        followers = [served.connect(FOLLOW) for _ in range(3)]
        for one in followers:
            assert b"200 OK" in one.recv(4096)
        until(lambda: streams.counter == 0)
        for one in followers:
            one.close()
        until(lambda: streams.counter == 3)


def test_who_leaves_by_tls_frees_the_place_too(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_places", gevent.lock.BoundedSemaphore(1))
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert(tmp_path), tmp_path / "key.pem")
    served = serve(bounds=Bounds(), context=context, app=quiet_pages())
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    for _again in range(2):
        with trusting.wrap_socket(served.connect(), server_hostname="localhost") as client:
            client.sendall(FOLLOW)
            assert begins(client)  # type: ignore[arg-type]
        until(lambda: live._places.counter == 1)


def test_a_watched_connection_serves_the_next_request_as_well(serve: Any) -> None:
    served = serve(bounds=Bounds(), app=quiet_pages())
    with served.connect(b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n") as sock:
        assert sock.recv(4096).startswith(b"HTTP/1.1 404 ")
        sock.sendall(FOLLOW)
        assert begins(sock)
