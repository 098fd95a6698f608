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

from pepperbus.errors import StorageError, StorageUnavailable, StorageUnknown
from pepperbus.storage.redis_pack import Command, Part, pack, pack_one
from pepperbus.storage.redis_url import Address

_MORE = object()
_CHUNK = 65536
_MULTI, _EXEC = pack_one((b"MULTI",)), pack_one((b"EXEC",))
_QUIET_S = 30.0  # a subscription silent for so long is asked whether it still stands


class ReplyError(Exception):
    """An error Redis answered; its text starts with the code (`OOM`, `NOPERM` …)."""


class Interrupted(Exception):
    """EXEC was refused because a watched key changed: nothing happened, look again and repeat."""


class Connection:
    """One connection, used by one greenlet at a time. `deadline` (monotonic s) bounds every wait on it.

    `changed`: this greenlet's operation has changed something already, so whatever fails now is no longer definite.
    """

    def __init__(self, address: Address, deadline: float) -> None:
        self.deadline = deadline
        self.usable = False
        self.changed = False
        self._address = address
        self._reader = hiredis.Reader(replyError=ReplyError, notEnoughData=_MORE)
        try:
            self._socket = _connect(address, deadline)
        except (OSError, ValueError) as error:
            raise StorageUnavailable(f"cannot connect to {address}: {_reason(error)}") from error
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
        try:
            self._socket.setsockopt(plain.SOL_SOCKET, plain.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        self._socket.close()

    def fresh(self) -> bool:
        """Whether the idle connection still stands: no end of file, no bytes nobody asked for."""
        try:
            self._socket.settimeout(0)
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def ask(self, *parts: Part) -> list[Any]:
        """Commands that change nothing that matters. Any failure is definite, unless something was changed before."""
        try:
            replies = self.exchange(*pack(parts))
        except StorageUnknown as error:
            raise self._definite(error) from error
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise self._definite(reply)
        return replies

    def tell(self, *parts: Part) -> list[Any]:
        """Commands that change something and may be done in part. Repeat them whole after StorageUnknown."""
        replies = self.exchange(*pack(parts))
        errors = [reply for reply in replies if isinstance(reply, ReplyError)]
        if errors and len(errors) == len(replies):
            raise self._definite(errors[0])
        if errors:
            raise StorageUnknown(f"{self._address}: done in part: {errors[0]}")
        self.changed = True
        return replies

    def together(self, parts: Sequence[Part]) -> list[Any]:
        """All of `parts`, or nothing, as one MULTI … EXEC.

        Redis checks memory, rights and role when a command is queued and then drops the whole transaction, so such
        refusals are definite. Raises Interrupted when a watched key changed.
        """
        data, count = pack(parts)
        replies = self.exchange(_MULTI + data + _EXEC, count + 2, whole=True)
        if isinstance(replies[0], ReplyError) and not all(isinstance(reply, ReplyError) for reply in replies):
            raise StorageUnknown(f"{self._address}: no transaction, the commands ran one by one: {replies[0]}")
        results = replies[-1]
        if results is None:
            raise Interrupted
        if isinstance(results, ReplyError):
            raise self._definite(next(reply for reply in replies if isinstance(reply, ReplyError)))
        for reply in results:
            if isinstance(reply, ReplyError):
                raise StorageUnknown(f"{self._address}: done in part: {reply}")
        self.changed = True
        return results

    def _definite(self, error: BaseException) -> StorageError:
        text = str(error) if isinstance(error, StorageError) else f"{self._address}: {_reason(error)}"
        return StorageUnknown(text) if self.changed else StorageUnavailable(text)

    def exchange(self, data: bytes, count: int, whole: bool = False) -> list[Any]:
        """Send `data`, return its `count` answers. `whole`: it counts only once its last byte has arrived."""
        if not count:
            return []
        view, sent, done = memoryview(data), 0, False
        try:
            while sent < len(view):
                self._socket.settimeout(self._left())
                sent += self._socket.send(view[sent:])
            replies = self._receive(count)
            done = True
            return replies
        except (OSError, hiredis.ProtocolError) as error:
            if sent == 0 or (whole and sent < len(view)):
                raise self._definite(error) from error
            raise StorageUnknown(f"{self._address}: {_reason(error)}") from error
        finally:
            if not done:
                self.drop()

    def subscribe(self, channels: Sequence[bytes]) -> Iterator[bytes]:
        """The channel of each message from now on; b"" once when the subscription stands. Ends with StorageUnavailable.

        A `SUBSCRIBE` of the same channel every 30 s finds a connection that broke without a word.
        """
        self._socket.settimeout(self._left())
        try:
            self._socket.sendall(pack_one((b"SUBSCRIBE", *channels)))
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
                    self._socket.sendall(pack_one((b"SUBSCRIBE", channels[-1])))
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
        self._socket.settimeout(self._left())
        data = self._socket.recv(_CHUNK)
        if not data:
            raise ConnectionError("connection closed by Redis")
        self._reader.feed(data)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _connect(address: Address, deadline: float) -> Any:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    if address.path:
        return _connect_unix(address.path, deadline)
    sock = socket.create_connection((address.host, address.port), timeout=left)
    sock.setsockopt(plain.IPPROTO_TCP, plain.TCP_NODELAY, 1)
    sock.setsockopt(plain.SOL_SOCKET, plain.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 2), ("TCP_USER_TIMEOUT", 10_000)):
        if number := getattr(plain, option, None):
            sock.setsockopt(plain.IPPROTO_TCP, number, value)
    if address.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(address.ca) if address.ca else context.load_default_certs()
        sock = context.wrap_socket(sock, server_hostname=address.host)
    return sock


def _connect_unix(path: str, deadline: float) -> Any:
    """gevent takes EAGAIN (backlog full) for "in progress" and spins; so connect without waiting and sleep instead."""
    sock = socket.socket(plain.AF_UNIX, plain.SOCK_STREAM)
    sock.settimeout(0)
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
