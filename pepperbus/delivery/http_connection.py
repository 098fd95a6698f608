"""One connection to an HTTP consumer: connect, one exchange at a time under a total deadline, fit to be kept or not.

Floor 3. A greenlet waits for a whole exchange (`exchange`), or `http_exchange` uses the socket from callbacks. It raises
`Failed` with the transport row; what that means is not known here.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent import monkey, socket
from gevent import ssl as tls

from pepperbus.config.model import Http
from pepperbus.config.reach import refusal
from pepperbus.delivery.contract import Answer, Transport
from pepperbus.delivery.http_answer import Failed, Reader
from pepperbus.delivery.http_request import Url

if TYPE_CHECKING:
    from gevent._types import _IoWatcher

CONNECT_S = 3.0  # name, TCP and TLS together
_ONE_FLIGHT = 64 << 10  # a larger body is sent beside the reading: the answer may come before its end
_NOBODY = (errno.ECONNREFUSED, errno.ENOENT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_READ, _WRITE = 1, 2  # libev's
_poll = monkey.get_original("select", "poll")


class Connection:
    """A connected socket. After an exchange `reusable` says whether it may be kept, `idle_s` for how long."""

    def __init__(self, url: Url, sock: Any) -> None:
        self.url = url
        self.reusable = True
        self.idle_s = 4.0  # below the five seconds after which common servers close
        self.idle_since = 0.0
        self._sock = sock
        self._watcher: _IoWatcher | None = None
        self._watching = False
        self._reader: Callable[[], None] | None = None
        self._poll = _poll()
        self._poll.register(sock.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)

    def too_old(self) -> bool:
        """Idle for so long that the peer may be about to close it."""
        return monotonic() - self.idle_since > self.idle_s

    def quiet(self) -> bool:
        """Whether a kept connection may be used: not closed by the peer, and nothing unasked for has come."""
        return not self._poll.poll(0)

    def cut(self) -> None:
        """End whatever the connection does; the greenlet inside `exchange` sees the end of the stream."""
        self.reusable = False
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone already

    def close(self) -> None:
        self.reusable = False
        if self._watcher is not None:
            self._stop_watching()
            self._watcher.close()
            self._watcher = None
        self._sock.close()

    # -- for an exchange by callbacks, on a connection without TLS ---------------------------------------------------

    def read_for(self, reader: Callable[[], None]) -> None:
        """From now on call `reader` in the hub whenever there is something to read."""
        self._sock.settimeout(0.0)
        self._reader = reader
        if self._watcher is None:
            self._watcher = gevent.get_hub().loop.io(self._sock.fileno(), _READ)
        if not self._watching:
            self._watching = True
            self._watcher.start(self._readable)

    def read_no_more(self) -> None:
        """The watcher stays started for the next exchange; what comes between the two is found by `quiet`."""
        self._reader = None

    def send(self, out: bytes | memoryview) -> int:
        """How many bytes of it were taken at once. Raises OSError when the peer has closed."""
        try:
            return int(self._sock.send(out))
        except BlockingIOError:
            return 0

    def when_writable(self, again: Callable[[], None]) -> Callable[[], None]:
        """Call `again` whenever more can be sent. Returns what ends that."""
        watcher = gevent.get_hub().loop.io(self._sock.fileno(), _WRITE)
        watcher.start(again)

        def end() -> None:
            watcher.stop()
            watcher.close()

        return end

    def receive(self) -> bytes | None:
        """What has come, b"" when the peer closed, None when there is nothing. Raises Failed (CUT)."""
        try:
            return bytes(self._sock.recv(65536))
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._broken(error) from None

    def _readable(self) -> None:
        if self._reader is not None:
            self._reader()
        else:
            self._stop_watching()

    def _stop_watching(self) -> None:
        if self._watching and self._watcher is not None:
            self._watching = False
            self._watcher.stop()

    # -- waiting in a greenlet ---------------------------------------------------------------------------------------

    def exchange(self, out: bytes, end: float) -> Answer:
        """Send and read the whole answer by `end` (monotonic). Raises Failed: CUT or TIMEOUT, nothing else."""
        writer = None
        try:
            if len(out) <= _ONE_FLIGHT or self.url.tls:  # a TLS socket of gevent goes one way at a time
                self._write(out, end)
            else:
                writer = gevent.spawn(self._write_beside, out, end)
            answer = self._read(end)
        except BaseException:
            self.reusable = False
            raise
        finally:
            if writer is not None and not writer.dead:
                self.reusable = False  # answered before the whole body was taken
                writer.kill()
        self.rest(answer)
        return answer

    def rest(self, answer: Answer) -> None:
        """The exchange ended with this answer: until when may the connection be kept?"""
        for word in answer.headers.get("keep-alive", "").split(","):
            name, _, value = word.strip().partition("=")
            if name.lower() == "timeout" and value.isdecimal():
                self.idle_s = min(self.idle_s, max(int(value[:6]) - 1.0, 0.0))
        self.idle_since = monotonic()

    def _write(self, out: bytes, end: float) -> None:
        """A peer that closes while we send may have answered before: reading finds out."""
        try:
            self._sock.settimeout(max(end - monotonic(), 0.001))
            self._sock.sendall(out)
        except TimeoutError:
            raise Failed(Transport.TIMEOUT, f"{self.url.shown}: the request was not taken in time") from None
        except (OSError, tls.SSLError):
            self.reusable = False

    def _write_beside(self, out: bytes, end: float) -> None:
        try:
            self._write(out, end)
        except Failed:
            self.reusable = False  # the reader's deadline is the same

    def _read(self, end: float) -> Answer:
        reader = Reader(self.url.shown)
        while (answer := reader.feed(self._receive(reader.raw, end))) is None:
            pass
        self.reusable = self.reusable and reader.clean
        return answer

    def _receive(self, before: int, end: float) -> bytes:
        """The next bytes after `before` of them. Raises Failed."""
        left = end - monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            return bytes(self._sock.recv(65536))
        except TimeoutError:
            raise self.late(before) from None
        except (OSError, tls.SSLError) as error:
            raise self._broken(error) from None

    def late(self, before: int) -> Failed:
        """The deadline came after so many bytes of an answer."""
        what = "no answer in time" if not before else "the answer was not complete in time"
        return Failed(Transport.TIMEOUT, f"{self.url.shown}: {what}")

    def _broken(self, error: OSError) -> Failed:
        return Failed(Transport.CUT, f"{self.url.shown}: {_words(error)} after the request was sent")


def connect(url: Url, end: float, http: Http) -> Connection:
    """Connect by `end` or within CONNECT_S. Raises Failed; nothing was sent then.

    The name is asked for once, and only an address that `http` lets through is connected to: what the name says a
    moment later does not matter.
    """
    seconds = max(min(CONNECT_S, end - monotonic()), 0.001)
    sock: Any = None
    try:
        with gevent.Timeout(seconds, TimeoutError):
            sock = _open(url, http, seconds)
            _tune(sock)
            if url.tls:
                sock = _secure(sock, url.host)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, OSError):
            raise Failed(_row(error), f"{url.shown}: {_words(error)}") from None
        raise
    return Connection(url, sock)


def _open(url: Url, http: Http, seconds: float) -> Any:
    """A socket connected to the first permitted address that takes it. Raises Failed (none is permitted), OSError."""
    found = [str(where[0]) for *_, where in socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)]
    permitted = [address for address in found if not refusal(http, url.host, address, url.port)]
    if found and not permitted:
        raise Failed(Transport.FORBIDDEN, f"{url.shown}: {refusal(http, url.host, found[0], url.port)}")
    failure = OSError(errno.EHOSTUNREACH, "the name has no address")
    for address in permitted:
        try:
            return socket.create_connection((address, url.port), seconds)  # numeric: nobody is asked again
        except OSError as error:
            failure = error
    raise failure


def _tune(sock: Any) -> None:
    """A peer that vanished without a word is noticed within half a minute, long before a job's own timeout."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)


def _secure(sock: Any, host: str) -> Any:
    """TLS, verified by the system's authorities. An end without close_notify is an error, not an end."""
    return trust().wrap_socket(sock, server_hostname=host, suppress_ragged_eofs=False)


@cache
def trust() -> Any:
    """The system's authorities; read once a process, because that takes milliseconds."""
    return tls.create_default_context()


def _row(error: OSError) -> Transport:
    if isinstance(error, tls.SSLEOFError):
        return Transport.BUSY
    if isinstance(error, tls.SSLError):
        return Transport.FORBIDDEN
    if isinstance(error, socket.gaierror) or error.errno in _NOBODY:
        return Transport.NO_LISTENER
    if error.errno in _FORBIDDEN:
        return Transport.FORBIDDEN
    return Transport.BUSY


def _words(error: OSError) -> str:
    if isinstance(error, tls.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, tls.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, TimeoutError):
        return "connect timed out"
    return error.strerror or str(error)
