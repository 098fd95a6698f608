"""The WSGI server with bounds on its clients: how long a request may take to arrive, an answer to be taken.

Floor 5. Knows gevent's server and the crowd; nothing of what is served. gevent's own server waits for ever for a request
line, a header, a body, a TLS greeting and for a client that does not read, and takes headers of megabytes.
"""

from __future__ import annotations

import errno
import io
import time
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from pepperbus.web import departure
from pepperbus.web.crowd import Crowd, Visitor
from pepperbus.web.departure import Departure

# The stubs of both lack methods that are overridden here, and do not know that arguments are handed through.
_AnyHandler: Any = WSGIHandler
_AnyServer: Any = WSGIServer

MOST_HEAD = 64 << 10  # bytes
_BUFFER = 8192
_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds. A body has `body` and then a second more for every `body_rate` bytes of it that have come."""

    idle: float = 30.0  # before the first byte of a request; TLS is agreed upon within it too
    head: float = 10.0  # from its first byte to the end of its headers
    body: float = 20.0
    body_rate: int = 16 << 10
    body_longest: float = 900.0
    rest: float = 2.0  # what is left of a body once the answer is out
    send: float = 30.0  # a piece of an answer


class _HeadTooLarge(ValueError):
    pass


class _Incoming(io.RawIOBase):
    """What the client sends, as the server reads it; every read ends by the deadline of what is being read."""

    def __init__(self, sock: Any, visitor: Visitor, bounds: Bounds) -> None:
        self._sock = sock
        self._visitor = visitor
        self._bounds = bounds
        self.late = False
        self.expect_request()

    def readable(self) -> bool:
        return True

    def expect_request(self) -> None:
        self._part = "idle"
        self._taken = 0
        self._began = time.monotonic()

    def expect_body(self) -> None:
        self._part = "body"
        self._taken = 0
        self._began = time.monotonic()

    def expect_little(self) -> None:
        """The answer is out: what still comes of the request is read only to be thrown away."""
        self._part = "rest"
        self._began = time.monotonic()

    def readinto(self, buffer: Any) -> int:
        left = self._left()
        if left <= 0:
            self.late = True
            raise TimeoutError(f"the request's {self._part} takes too long")
        self._sock.settimeout(left)
        self._visitor.waits_since = self._began
        try:
            count: int = self._sock.recv_into(buffer)
        except OSError:
            self.late = self._left() <= 0
            raise
        finally:
            self._visitor.waits_since = None
        self._count(count)
        return count

    def _left(self) -> float:
        bounds = self._bounds
        allowed = float(getattr(bounds, self._part))
        if self._part == "body":
            allowed = min(allowed + self._taken / bounds.body_rate, bounds.body_longest)
        return self._began + allowed - time.monotonic()

    def _count(self, count: int) -> None:
        self._taken += count
        if self._part == "idle" and count:
            self._part, self._began = "head", time.monotonic()
        elif self._part == "head":
            if not count:
                raise ConnectionResetError(errno.ECONNRESET, "the client left within a request")  # not a shorter one
            if self._taken > MOST_HEAD + _BUFFER:
                raise _HeadTooLarge(f"headers of more than {MOST_HEAD} bytes")


class _Handler(_AnyHandler):
    """One connection."""

    def __init__(self, sock: Any, address: Any, server: WebServer, visitor: Visitor) -> None:
        self._visitor = visitor
        self._bounds = server.bounds
        self._incoming = _Incoming(sock, visitor, server.bounds)
        self._departure: Departure | None = None
        super().__init__(sock, address, server, io.BufferedReader(self._incoming, _BUFFER))

    def handle_one_request(self) -> Any:
        self._incoming.expect_request()
        return super().handle_one_request()

    def get_environ(self) -> Any:
        environ = super().get_environ()
        environ[departure.KEY] = self._watch
        return environ

    def _watch(self) -> Event:
        if self._departure is None:
            self._departure = Departure(self.socket)
        return self._departure.gone

    def handle_one_response(self) -> None:
        self._incoming.expect_body()
        try:
            super().handle_one_response()
        finally:
            if self._departure is not None:
                self._departure.stop()
                self._departure = None
        if self._incoming.late:  # what comes next is the rest of this request and must not be taken for another
            self.close_connection = True

    def run_application(self) -> None:
        try:
            super().run_application()
        finally:
            self._incoming.expect_little()

    def _sendall(self, data: bytes) -> None:
        self.socket.settimeout(self._bounds.send)
        self._visitor.waits_since = time.monotonic()
        try:
            super()._sendall(data)
        except TimeoutError as error:
            raise BrokenPipeError(errno.EPIPE, "the client does not take its answer") from error
        finally:
            self._visitor.waits_since = None

    def _handle_client_error(self, ex: Exception) -> Any:
        self.socket.settimeout(self._bounds.send)
        if isinstance(ex, TimeoutError | ConnectionError):
            return ("408", _LATE) if self._incoming.late else None
        if isinstance(ex, _HeadTooLarge):
            return "431", _TOO_LARGE
        return super()._handle_client_error(ex)


class WebServer(_AnyServer):
    """Serves `app` on a listening socket to those the crowd has a place for."""

    def __init__(self, listener: Any, app: Any, crowd: Crowd, bounds: Bounds | None = None, **rest: Any) -> None:
        self.crowd = crowd
        self.bounds = bounds or Bounds()
        super().__init__(listener, app, spawn=Pool(), log=None, **rest)

    def do_handle(self, sock: Any, address: Any) -> None:
        """Runs in the hub, for every connection: it must not wait."""
        visitor = self.crowd.admit(sock, address[0] if isinstance(address, tuple) else "local")
        if visitor is not None:
            super().do_handle(sock, address, visitor)
            return
        if not self.ssl_enabled:
            try:
                sock._sock.send(_REFUSAL)
            except OSError:
                pass
        sock.close()

    def handle(self, sock: Any, address: Any, visitor: Visitor) -> None:
        _Handler(sock, address, self, visitor).handle()

    def wrap_socket_and_handle(self, sock: Any, address: Any, visitor: Visitor) -> None:
        wrapped = self.wrap_socket(sock, do_handshake_on_connect=False, **self.ssl_args)
        visitor.sock = wrapped
        try:
            with gevent.Timeout(self.bounds.idle, TimeoutError):
                wrapped.do_handshake()
            self.handle(wrapped, address, visitor)
        except OSError:
            pass  # not TLS, or gone, or too slow
        finally:
            wrapped.close()

    def do_close(self, sock: Any, address: Any, visitor: Visitor) -> None:
        self.crowd.leave(visitor)
        sock.close()
