"""Accepting clients, and what concerns all of them: how many, how long, how they are sent home.

Knows listening sockets and connections; of the bus only the `Front` it hands on. Listeners are opened by the master
and shared with the other gateways, so a gateway that dies loses no client that waits in the queue.
"""

from __future__ import annotations

import errno
import socket
import ssl
import struct
from _socket import socket as PlainSocket
from dataclasses import dataclass
from typing import Any

import gevent

from pepperbus.gateway.connection import Connection
from pepperbus.gateway.session import Front
from pepperbus.gateway.stream import READ
from pepperbus.gateway.tls import TlsFilter
from pepperbus.wire.resp import Limits

ACCEPTS = 32  # clients taken in one turn of the hub
TICK = 0.5  # how often deadlines are looked at, seconds
ACCEPT_PAUSE = 0.5  # seconds without accepting after the process ran out of descriptors
GOODBYE = 1.0  # seconds idle clients keep their connection when the gateway leaves
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_LOCAL_V6 = {"::1"}


@dataclass(frozen=True)
class Listener:
    """One listening socket: what its clients look like and whether they speak TLS."""

    sock: PlainSocket
    address: str
    trace_tail: bytes  # `-<ipv4 as a number>-<port>` of every trace id made for its clients
    tls: ssl.SSLContext | None


def listener(sock: socket.socket, address: str, node_ip: str, tls: ssl.SSLContext | None) -> Listener:
    """Wrap an inherited listening socket. The original object must be kept open by the caller."""
    plain = PlainSocket(fileno=socket.dup(sock.fileno()))
    plain.setblocking(False)
    ip, port = node_ip, 0
    if plain.family != socket.AF_UNIX:
        _tune(plain)
        host, port = plain.getsockname()[:2]
        if plain.family == socket.AF_INET and host != "0.0.0.0":
            ip = host
    number = struct.unpack("!I", socket.inet_aton(ip))[0]
    return Listener(plain, address, b"-%d-%d" % (number, port), tls if plain.family != socket.AF_UNIX else None)


def _tune(sock: PlainSocket) -> None:
    """Replies go out at once; a client whose machine vanished is noticed after about two minutes.

    Set on the listener: Linux gives it to every socket accepted there, which spares five calls a client.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


class Server:
    """All clients of this process."""

    def __init__(self, front: Front, listeners: list[Listener], limits: Limits, max_clients: int, max_unread: int):
        self.front = front
        self.max_unread = max_unread
        self.limits = limits
        self.max_clients = max_clients
        self.connections: dict[Connection, None] = {}
        self._listeners = listeners
        self._deadlines: dict[Connection, float] = {}
        self._loop = gevent.get_hub().loop
        self._acceptors: list[tuple[Any, Listener]] = []
        self._ticker = self._loop.timer(TICK, TICK)
        self._turn: Any = self._loop.check(ref=False, priority=2)
        self._resume: Any = None
        front.clients = lambda: len(self.connections)

    def start(self) -> None:
        for one in self._listeners:
            watcher = self._loop.io(one.sock.fileno(), READ)
            watcher.start(self._accept, one)
            self._acceptors.append((watcher, one))
        self._ticker.start(self._tick)
        self._turn.start(self._begin_turn)
        self._begin_turn()

    # -- clients come ----------------------------------------------------------------------------------------

    def _accept(self, one: Listener) -> None:
        for _ in range(ACCEPTS):
            try:
                fd, peer = one.sock._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._accept_failed(error)
                return
            self._welcome(PlainSocket(one.sock.family, one.sock.type, 0, fileno=fd), peer, one)

    def _accept_failed(self, error: OSError) -> None:
        """Out of descriptors or memory: clients wait in the kernel's queue until some are back."""
        if error.errno not in _EXHAUSTED:
            return
        self.front.process.log.error("accept_paused", error.strerror or str(error), clients=len(self.connections))
        for watcher, _ in self._acceptors:
            watcher.stop()
        if self._resume is None:
            self._resume = self._loop.timer(ACCEPT_PAUSE)
        self._resume.start(self._accept_again)

    def _accept_again(self) -> None:
        for watcher, one in self._acceptors:
            watcher.start(self._accept, one)

    def _welcome(self, sock: PlainSocket, peer: Any, one: Listener) -> None:
        sock.setblocking(False)
        if len(self.connections) >= self.max_clients:
            self._turn_away(sock)
            return
        if sock.family == socket.AF_UNIX:
            client, local = "unix", True
        else:
            host, port = peer[0].removeprefix("::ffff:"), peer[1]
            client, local = f"{host}:{port}", host.startswith("127.") or host in _LOCAL_V6
        tls = TlsFilter(one.tls) if one.tls is not None else None
        connection = Connection(self, sock, client, local, one.trace_tail, self.limits, tls)
        self.connections[connection] = None

    def _turn_away(self, sock: PlainSocket) -> None:
        try:
            sock.send(b"-ERR max number of clients reached\r\n")
        except OSError:
            pass
        sock.close()

    # -- and go ----------------------------------------------------------------------------------------------

    def leave(self, connection: Connection) -> None:
        self.connections.pop(connection, None)
        self._deadlines.pop(connection, None)

    def deadline(self, connection: Connection, seconds: float | None) -> None:
        """Close `connection` in `seconds` unless this is called again; None: it may stay."""
        if seconds is not None:
            self._deadlines[connection] = self.front.process.turn + seconds
        elif connection in self._deadlines:
            del self._deadlines[connection]

    def _begin_turn(self) -> None:
        """One look at the clock for everything that this turn of the hub brings."""
        process = self.front.process
        process.turn = process.clock.monotonic()
        process.turn_ms = process.clock.now_ms()

    def _tick(self) -> None:
        now = self.front.process.clock.monotonic()
        for connection in [c for c, at in self._deadlines.items() if at <= now]:
            connection.close()

    def drain(self, grace: float) -> None:
        """A greenlet's work: accept nobody, answer what was read, close everyone, within `grace` seconds."""
        for watcher, one in self._acceptors:
            watcher.stop()
            watcher.close()
            one.sock.close()
        self._acceptors = []
        if self._resume is not None:
            self._resume.stop()
        until = self.front.process.clock.monotonic() + grace
        quiet = self.front.process.clock.monotonic() + min(grace, GOODBYE)
        while self.connections and (now := self.front.process.clock.monotonic()) < until:
            for connection in list(self.connections):
                if not connection.idle or now >= quiet:
                    connection.drain()
            gevent.sleep(0.02)
        for connection in list(self.connections):
            connection.close()
        self._ticker.stop()
        self._turn.stop()
