"""Own client for Redis: a connection that sends a whole pipeline at once and knows what a failure means.

Floor 3. Knows sockets and RESP2, nothing of jobs. Every trip ends in one of three ways: all its answers, or
`StorageUnavailable` (nothing of it happened), or `StorageUnknown` (it may have). A connection whose answers did not
all arrive is thrown away, never reused: a late answer must not be taken for the next command's.
"""

from __future__ import annotations

import socket as plain
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

import gevent
import hiredis
from gevent import socket, ssl
from gevent.hub import Waiter, get_hub
from gevent.monkey import get_original

from pepperbus.errors import StorageError, StorageUnavailable, StorageUnknown
from pepperbus.storage.redis_pack import Command, Packed, Part, pack, pack_one
from pepperbus.storage.redis_url import Address

_MORE = object()
_CHUNK = 65536
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_READ, _WRITE = 1, 2  # of an io watcher
_native_socket = get_original("socket", "socket")
_MULTI, _EXEC = pack_one((b"MULTI",)), pack_one((b"EXEC",))
_QUIET_S = 30.0  # a subscription silent for so long is asked whether it still stands


class ReplyError(Exception):
    """An error Redis answered; its text starts with the code (`OOM`, `NOPERM` …). What a terminal would obey is left out."""

    def __init__(self, text: str) -> None:
        super().__init__("".join(char if char.isprintable() else " " for char in text))


class Interrupted(Exception):
    """EXEC was refused because a watched key changed: nothing happened, look again and repeat."""


class InPart(StorageUnknown):
    """A transaction ran and some of its commands failed; `results` are those of all."""

    def __init__(self, text: str, results: Sequence[Any]) -> None:
        super().__init__(text)
        self.results = results


class Connection:
    """One connection, used by one greenlet at a time. `deadline` (monotonic s) bounds every wait on it.

    `changed`: this greenlet's operation has changed something already, so whatever fails now is no longer definite.
    The socket never waits itself: gevent's own needs 5 us more a trip for its timeouts.
    """

    def __init__(self, address: Address, deadline: float) -> None:
        self.deadline = deadline
        self.usable = False
        self.changed = False
        self._address = address
        self._sent = b""  # the commands sent last
        self._reader = hiredis.Reader(replyError=ReplyError, notEnoughData=_MORE)
        try:
            self._socket = _connect(address, deadline)
        except (OSError, ValueError) as error:
            raise StorageUnavailable(f"cannot connect to {address}: {_reason(error)}") from error
        loop = get_hub().loop
        self._loop: Any = loop
        self._watchers: dict[int, Any] = {event: loop.io(self._socket.fileno(), event) for event in (_READ, _WRITE)}
        self.usable = True
        self._greet()

    def _greet(self) -> None:
        """Log in and see that Redis answers, before anything that matters is sent: what fails here is definite."""
        commands: list[Command] = []
        if self._address.password:
            user = (self._address.user,) if self._address.user else ()
            commands.append((b"AUTH", *user, self._address.password))
        if self._address.database:
            commands.append((b"SELECT", self._address.database))
        commands.append((b"PING",))
        try:
            self.ask(*commands)
        except StorageUnavailable:
            self.drop()
            raise

    def drop(self) -> None:
        """Close hard: what the kernel has not sent yet is never sent."""
        self.usable = False
        while self._watchers:
            watcher = self._watchers.popitem()[1]
            watcher.stop()
            watcher.close()
        try:
            self._socket.setsockopt(plain.SOL_SOCKET, plain.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        self._socket.close()

    def fresh(self) -> bool:
        """Whether the idle connection still stands: no end of file, no bytes nobody asked for."""
        if self._reader.has_data():
            return False  # an answer too many came with the last ones
        try:
            self._socket.recv(1)
        except _NOT_YET:
            return True
        except OSError:
            pass
        return False

    def ask(self, *parts: Part) -> list[Any]:
        """Commands that change nothing that matters. Any failure is definite, unless something was changed before."""
        replies = self.look(*parts)
        if ReplyError in map(type, replies):
            raise self._definite(self._first_error(replies, 0))
        return replies

    def look(self, *parts: Part) -> list[Any]:
        """The same; what Redis refused stands among the answers as a ReplyError."""
        try:
            return self.exchange(*pack(parts))
        except StorageUnknown as error:
            raise self._definite(error) from error

    def tell(self, *parts: Part) -> list[Any]:
        """Commands that change something and may be done in part. Repeat them whole after StorageUnknown."""
        replies = self.exchange(*pack(parts))
        self.check_told(replies)
        return replies

    def check_told(self, replies: Sequence[Any]) -> None:
        """Raise what the answers to commands that change something mean."""
        if ReplyError in map(type, replies):
            error = self._first_error(replies, 0)
            if all(type(reply) is ReplyError for reply in replies):
                raise self._definite(error)
            raise StorageUnknown(f"{self._address}: done in part: {error}")
        self.changed = True

    def together(self, parts: Sequence[Part]) -> list[Any]:
        """All of `parts`, or nothing, as one MULTI … EXEC.

        Redis checks memory, rights and role when a command is queued and then drops the whole transaction, so such
        refusals are definite. Raises Interrupted when a watched key changed.
        """
        data, count = transaction(parts)
        return self.check_together(self.exchange(data, count, whole=True))

    def check_together(self, replies: Sequence[Any]) -> list[Any]:
        """The results among the answers to a `transaction`; raises what they mean."""
        if isinstance(replies[0], ReplyError) and not all(isinstance(reply, ReplyError) for reply in replies):
            raise StorageUnknown(f"{self._address}: no transaction, the commands ran one by one: {replies[0]}")
        results = replies[-1]
        if results is None:
            raise Interrupted
        if isinstance(results, ReplyError):
            raise self._definite(next(reply for reply in replies if isinstance(reply, ReplyError)))
        if ReplyError in map(type, results):
            error = self._first_error(results, -1 - len(results))
            raise InPart(f"{self._address}: done in part: {error}", results)
        self.changed = True
        return list(results)

    def _first_error(self, replies: Sequence[Any], start: int) -> ReplyError:
        """The first error among the answers to the commands sent last, from the one at `start` on. It names the key that
        somebody else has written, for nothing of ours works before that is gone.
        """
        at, error = next((i, reply) for i, reply in enumerate(replies) if type(reply) is ReplyError)
        if not str(error).startswith("WRONGTYPE"):
            return error
        reader = hiredis.Reader()
        reader.feed(self._sent)
        key = list(iter(reader.gets, False))[start + at][1].decode(errors="replace")
        return ReplyError(f"the key {key} is somebody else's, of another type: rename or delete it ({error})")

    def _definite(self, error: BaseException) -> StorageError:
        text = str(error) if isinstance(error, StorageError) else f"{self._address}: {_reason(error)}"
        return StorageUnknown(text) if self.changed else StorageUnavailable(text)

    def exchange(self, data: bytes, count: int, whole: bool = False) -> list[Any]:
        """Send `data`, return its `count` answers. `whole`: it counts only once its last byte has arrived."""
        if not count:
            return []
        self._sent = data
        sent, done = 0, False
        try:
            self._left()
            while sent < len(data):
                sent += self._send(data, sent)
            replies = self._receive(count)
            done = True
            return replies
        except (OSError, hiredis.ProtocolError) as error:
            if sent == 0 or (whole and sent < len(data)):
                raise self._definite(error) from error
            raise StorageUnknown(f"{self._address}: {_reason(error)}") from error
        finally:
            if not done:
                self.drop()

    def subscribe(self, channels: Sequence[bytes]) -> Iterator[bytes]:
        """The channel of each message from now on; b"" once when the subscription stands. Ends with StorageUnavailable.

        A `SUBSCRIBE` of the same channel every 30 s finds a connection that broke without a word.
        """
        try:
            self._send_all(pack_one((b"SUBSCRIBE", *channels)))
            asked = False
            while True:
                while (reply := self._reader.gets()) is not _MORE:
                    asked = False
                    if isinstance(reply, ReplyError):
                        raise StorageUnavailable(f"{self._address}: {reply}")
                    if reply[0] == b"message":
                        yield reply[1]
                    elif reply[1] == channels[-1]:
                        yield b""
                self.deadline = time.monotonic() + _QUIET_S
                try:
                    self.feed()
                except TimeoutError:
                    if asked:
                        raise
                    asked = True
                    self.deadline = time.monotonic() + _QUIET_S
                    self._send_all(pack_one((b"SUBSCRIBE", channels[-1])))
        except (OSError, hiredis.ProtocolError) as error:
            raise StorageUnavailable(f"{self._address}: {_reason(error)}") from error

    def _receive(self, count: int) -> list[Any]:
        replies: list[Any] = []
        gets = self._reader.gets
        while True:
            while (reply := gets()) is not _MORE:
                replies.append(reply)
                if len(replies) == count:
                    return replies
            self.feed()

    def feed(self) -> None:
        """Wait for bytes until the deadline and hand them to the reader."""
        while True:
            try:
                data = self._socket.recv(_CHUNK)
                break
            except _NOT_YET:
                self._wait(_READ)
        if not data:
            raise ConnectionError("connection closed by Redis")
        self._reader.feed(data)

    def _send_all(self, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            sent += self._send(data, sent)

    def _send(self, data: bytes, start: int) -> int:
        """Send what goes of `data[start:]`, or wait until some would go."""
        try:
            if sent := self._socket.send(memoryview(data)[start:] if start else data):
                return int(sent)
        except _NOT_YET:
            pass
        self._wait(_WRITE)
        return 0

    def _wait(self, event: int) -> None:
        """Until the socket can be read from or written to. Raises TimeoutError at the deadline."""
        waiter: Any = Waiter()
        timer = self._loop.timer(self._left())
        watcher = self._watchers[event]
        watcher.start(waiter.switch, None)
        timer.start(
            waiter.throw, TimeoutError("timed out"), update=True
        )  # the hub may not have looked at the clock for long
        try:
            waiter.get()
        finally:
            watcher.stop()
            timer.stop()
            timer.close()

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


def transaction(parts: Sequence[Part]) -> Packed:
    """`parts` as one MULTI … EXEC."""
    data, count = pack(parts)
    return Packed(_MULTI + data + _EXEC, count + 2)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _connect(address: Address, deadline: float) -> Any:
    """A socket that never waits: a native one, or gevent's for TLS."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    if address.path:
        return _connect_unix(address.path, deadline)
    sock: Any = socket.create_connection((address.host, address.port), timeout=left)
    sock.setsockopt(plain.IPPROTO_TCP, plain.TCP_NODELAY, 1)
    sock.setsockopt(plain.SOL_SOCKET, plain.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 2), ("TCP_USER_TIMEOUT", 10_000)):
        if number := getattr(plain, option, None):
            sock.setsockopt(plain.IPPROTO_TCP, number, value)
    if address.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(address.ca) if address.ca else context.load_default_certs()
        sock = context.wrap_socket(sock, server_hostname=address.host)
    else:
        sock = _native_socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
    sock.setblocking(False)
    return sock


def _connect_unix(path: str, deadline: float) -> Any:
    """gevent takes EAGAIN (backlog full) for "in progress" and spins; so connect without waiting and sleep instead."""
    sock = _native_socket(plain.AF_UNIX, plain.SOCK_STREAM)
    sock.setblocking(False)
    while True:
        try:
            sock.connect(path)
            return sock
        except BlockingIOError:
            if time.monotonic() > deadline:
                sock.close()
                raise TimeoutError("timed out") from None
            gevent.sleep(0.02)
        except BaseException:
            sock.close()
            raise
