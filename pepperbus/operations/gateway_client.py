"""A small client of this node's gateway, on a plain socket: what the bus itself pushes goes in by the same door as all else.

Floor 4. Knows where the gateway listens and how a queue logs in; what is said is the caller's.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any

import hiredis

from pepperbus.config.model import Queue
from pepperbus.config.values import HASH
from pepperbus.errors import NotReachable, PepperbusError, ProtocolError
from pepperbus.operations.office import Office

TIMEOUT_S = 15.0


class GatewayClient:
    """One connection to this node's gateway."""

    def __init__(self, office: Office) -> None:
        gateway = office.config.gateway
        self._reader = hiredis.Reader()
        problems: list[str] = []
        for address in sorted(gateway.listen, key=lambda text: not text.startswith("unix:")):
            try:
                self._socket = _connect(address, bool(gateway.cert))
                return
            except OSError as error:
                problems.append(f"{address}: {error.strerror or error}")
        raise NotReachable(f"no gateway answers ({'; '.join(problems)}): does the bus run? `pepperbus status`")

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def login(self, queue: Queue) -> None:
        """Say the queue's password. Raises PepperbusError when the running bus has another one."""
        password = queue.password.reveal()
        if not password:
            return
        if password.startswith(HASH):
            password = os.environ.get("PEPPERBUS_PASSWORD", "")
            if not password and not queue.open:
                raise PepperbusError(
                    f"the file of queue {queue.name!r} holds only a hash of its password; say it in $PEPPERBUS_PASSWORD"
                )
        self.send(b"AUTH", f"{queue.name}:{password}".encode())
        reply = self.reply()
        if isinstance(reply, hiredis.ReplyError):
            raise PepperbusError(
                f"the gateway refuses the password of queue {queue.name!r} ({reply}); was its file changed since `reload`?"
            )

    def send(self, *words: bytes) -> None:
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
        try:
            self._socket.sendall(b"".join(parts))
        except OSError as error:
            raise NotReachable(f"the gateway closed the connection: {error.strerror or error}") from error

    def reply(self) -> Any:
        try:
            while (answer := self._reader.gets()) is False:
                data = self._socket.recv(1 << 16)
                if not data:
                    raise NotReachable("the gateway closed the connection")
                self._reader.feed(data)
        except hiredis.ProtocolError as error:
            raise ProtocolError(f"this is no Redis protocol: {error}") from error
        except OSError as error:
            raise NotReachable(f"no answer from the gateway: {error.strerror or error}") from error
        return answer


def _connect(address: str, tls: bool) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_S)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
    connection = socket.create_connection((everywhere.get(host, host), int(port)), TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _unverified(connection) if tls else connection


def _unverified(connection: socket.socket) -> ssl.SSLSocket:
    """TLS without checking the certificate: the address is our own configuration's, on this very machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)
