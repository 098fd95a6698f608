"""One client's socket: chunks of bytes in, bytes out as the kernel takes them. Callbacks in the hub, no greenlet.

Knows sockets, TLS and the hub; nothing of commands or replies. What the kernel does not take is kept here and sent when it
does.
"""

from __future__ import annotations

import socket
from _socket import socket as PlainSocket  # gevent's own would switch greenlets, and there is none here
from typing import Any, Protocol

import gevent

from pepperbus.gateway.tls import TlsFilter
from pepperbus.wire.resp import MAX_CHUNK

READ, WRITE = 1, 2
_AT_ONCE = 1 << 18  # bytes offered to the kernel at once of what it did not take before


class Owner(Protocol):
    """Whoever reads and writes here. All are called in the hub."""

    def received(self, data: bytes) -> None:
        """A chunk came, MAX_CHUNK bytes at most (TLS: what one of those held)."""

    def ended(self) -> None:
        """The client sends no more."""

    def overdue(self) -> None:
        """The kernel did not take all; `unsent` says how much."""

    def moved(self) -> None:
        """The kernel took some of what it had not taken."""

    def broken(self, reason: str) -> None:
        """The connection is no good any more. `reason` is "" unless it is worth telling."""


class Stream:
    """Reads and writes one accepted, non-blocking socket for its owner."""

    __slots__ = ("_closed", "_loop", "_out", "_owner", "_reader", "_reading", "_sock", "_tls", "_writer")

    def __init__(self, sock: PlainSocket, owner: Owner, tls: TlsFilter | None = None) -> None:
        self._sock = sock
        self._owner = owner
        self._tls = tls
        self._out = bytearray()  # what the kernel did not take
        self._closed = False
        self._reading = True
        self._loop = gevent.get_hub().loop
        self._writer: Any = None
        self._reader: Any = self._loop.io(sock.fileno(), READ)
        self._reader.start(self._readable)

    # -- in ------------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._sock.recv(MAX_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._owner.broken("")
            return
        try:
            if not data:
                self._owner.ended()
            elif self._tls is None:
                self._owner.received(data)
            else:
                self._decrypt(self._tls, data)
        except Exception:  # a bug of ours: its client must not wait for an answer that will never come
            self._owner.broken("")
            raise  # told by the hub

    def _decrypt(self, tls: TlsFilter, data: bytes) -> None:
        try:
            plain = tls.receive(data)
        except OSError as error:
            self._owner.broken(str(error))
            return
        if answer := tls.outgoing():
            self._send(answer)
        if plain:
            self._owner.received(plain)
        if tls.ended and not self._closed:
            self._owner.ended()

    @property
    def reading(self) -> bool:
        return self._reading

    def read(self, wanted: bool) -> None:
        """Read on, or leave what the client sends in the kernel."""
        if wanted != self._reading and not self._closed:
            self._reading = wanted
            if wanted:
                self._reader.start(self._readable)
            else:
                self._reader.stop()

    # -- out -----------------------------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        return len(self._out)

    def send(self, data: bytes) -> None:
        """Send now what the kernel takes, the rest when it can."""
        self._send(data if self._tls is None else self._tls.encrypt(data))

    def _send(self, data: bytes) -> None:
        if self._closed:
            return
        if not self._out:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._owner.broken("")
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._out += data
        if self._writer is None:
            self._writer = self._loop.io(self._sock.fileno(), WRITE)
        self._writer.start(self._writable)
        self._owner.overdue()

    def _writable(self) -> None:
        try:
            sent = self._sock.send(memoryview(self._out)[:_AT_ONCE])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._owner.broken("")
            return
        del self._out[:sent]
        if not self._out:
            self._writer.stop()
        self._owner.moved()

    # -- the end -------------------------------------------------------------------------------------------------

    def finish(self) -> bool:
        """Say that nothing more will be sent, and read on. False: it is gone already."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        self.read(True)
        return True

    def close(self) -> None:
        """Close at once, whatever is unsent. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._sock.close()
