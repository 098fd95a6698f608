"""One connection to an HTTP consumer: connect, one exchange at a time under a total deadline, fit to be kept or not.

Floor 3: h11 over a gevent socket. It raises `Failed` with the transport row; what that means is not known here.
"""

from __future__ import annotations

import errno
import select
from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import Any

import gevent
import h11
from gevent import monkey, socket
from gevent import ssl as tls

from pepperbus.config.model import Http
from pepperbus.config.reach import refusal
from pepperbus.delivery.contract import Answer, Transport
from pepperbus.delivery.http_request import Url

CONNECT_S = 3.0  # name, TCP and TLS together
KEEP_BODY = 1 << 20
MOST_BODY = 64 << 20
_MOST_HEAD = 64 << 10
_MOST_HEADERS = 128
_MOST_INFORMATIONAL = 10
_ONE_FLIGHT = 64 << 10  # a larger body is sent beside the reading: the answer may come before its end
_NOBODY = (errno.ECONNREFUSED, errno.ENOENT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_poll = monkey.get_original("select", "poll")


class Failed(Exception):
    """The exchange came only as far as `transport` says."""

    def __init__(self, transport: Transport, detail: str) -> None:
        super().__init__(detail)
        self.transport = transport
        self.detail = detail


@dataclass(slots=True)
class _Reading:
    """What has been read of an answer."""

    head: h11.Response | None = None
    body: bytearray | None = None
    length: int = 0
    raw: int = 0  # bytes off the wire
    ended: bool = False  # the peer closed
    informational: int = 0


class Connection:
    """A connected socket. After an exchange `reusable` says whether it may be kept, `idle_s` for how long."""

    def __init__(self, url: Url, sock: Any) -> None:
        self.url = url
        self.reusable = True
        self.idle_s = 4.0  # below the five seconds after which common servers close
        self.idle_since = 0.0
        self._sock = sock

    def too_old(self) -> bool:
        """Idle for so long that the peer may be about to close it."""
        return monotonic() - self.idle_since > self.idle_s

    def quiet(self) -> bool:
        """Whether a kept connection may be used: not closed by the peer, and nothing unasked for has come."""
        poll = _poll()
        poll.register(self._sock.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return not poll.poll(0)

    def cut(self) -> None:
        """End whatever the connection does; the greenlet inside `exchange` sees the end of the stream."""
        self.reusable = False
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone already

    def close(self) -> None:
        self.reusable = False
        self._sock.close()

    def exchange(self, request: h11.Request, body: bytes, end: float) -> Answer:
        """Send and read the whole answer by `end` (monotonic). Raises Failed: CUT or TIMEOUT, nothing else."""
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD)
        out = b"".join(
            protocol.send(event) or b"" for event in (request, h11.Data(data=body), h11.EndOfMessage()) if event
        )
        writer = None
        try:
            if len(out) <= _ONE_FLIGHT or self.url.tls:  # a TLS socket of gevent goes one way at a time
                self._write(out, end)
            else:
                writer = gevent.spawn(self._write_beside, out, end)
            answer = self._read(protocol, end)
        except BaseException:
            self.reusable = False
            raise
        finally:
            if writer is not None and not writer.dead:
                self.reusable = False  # answered before the whole body was taken
                writer.kill()
        self._keep_or_not(protocol, answer)
        return answer

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

    def _read(self, protocol: h11.Connection, end: float) -> Answer:
        so_far = _Reading(body=bytearray())
        try:
            while not self._step(protocol, so_far, end):
                pass
        except h11.RemoteProtocolError as error:
            why = f"the answer ended early ({error})" if so_far.ended else f"malformed answer: {error}"
            raise Failed(Transport.CUT, f"{self.url.shown}: {why}") from None
        assert so_far.head is not None
        headers: dict[str, str] = {}
        for name, value in so_far.head.headers:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return Answer(Transport.ANSWERED, so_far.head.status_code, headers, bytes(so_far.body or b""))

    def _step(self, protocol: h11.Connection, so_far: _Reading, end: float) -> bool:
        """Take one event; True at the end of the answer."""
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            data = self._receive(so_far, end)
            so_far.raw += len(data)
            so_far.ended = not data
            if so_far.ended and not so_far.raw:
                raise Failed(Transport.CUT, f"{self.url.shown}: closed without an answer")
            protocol.receive_data(data)
        elif isinstance(event, h11.InformationalResponse):
            so_far.informational += 1
            if so_far.informational > _MOST_INFORMATIONAL:
                raise Failed(Transport.CUT, f"{self.url.shown}: malformed answer: a flood of 1xx answers")
        elif isinstance(event, h11.Response):
            so_far.head = event
            self._check_framing(event)
        elif isinstance(event, h11.Data):
            self._add_body(so_far, event.data)
        return isinstance(event, h11.EndOfMessage)

    def _receive(self, so_far: _Reading, end: float) -> bytes:
        left = end - monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            return bytes(self._sock.recv(65536))
        except TimeoutError:
            what = "no answer in time" if not so_far.raw else "the answer was not complete in time"
            raise Failed(Transport.TIMEOUT, f"{self.url.shown}: {what}") from None
        except (OSError, tls.SSLError) as error:
            raise Failed(Transport.CUT, f"{self.url.shown}: {_words(error)} after the request was sent") from None

    def _check_framing(self, head: h11.Response) -> None:
        """What h11 lets pass and another reader might read differently."""
        names = [name for name, _ in head.headers]
        if b"content-length" in names and b"transfer-encoding" in names:
            raise Failed(Transport.CUT, f"{self.url.shown}: malformed answer: Content-Length and Transfer-Encoding")
        if len(names) > _MOST_HEADERS or sum(len(name) + len(value) for name, value in head.headers) > _MOST_HEAD:
            raise Failed(Transport.CUT, f"{self.url.shown}: malformed answer: too many or too long headers")

    def _add_body(self, so_far: _Reading, data: bytes) -> None:
        assert so_far.body is not None
        so_far.length += len(data)
        if so_far.length > MOST_BODY:
            raise Failed(Transport.CUT, f"{self.url.shown}: the answer is longer than {MOST_BODY >> 20} MiB")
        room = KEEP_BODY - len(so_far.body)
        if room > 0:
            so_far.body += data[:room]

    def _keep_or_not(self, protocol: h11.Connection, answer: Answer) -> None:
        finished = protocol.our_state is h11.DONE and protocol.their_state is h11.DONE
        if not finished or protocol.trailing_data != (b"", False):
            self.reusable = False
        for word in answer.headers.get("keep-alive", "").split(","):
            name, _, value = word.strip().partition("=")
            if name.lower() == "timeout" and value.isdecimal():
                self.idle_s = min(self.idle_s, max(int(value[:6]) - 1.0, 0.0))
        self.idle_since = monotonic()


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
