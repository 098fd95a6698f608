"""/readyz: does every gateway accept, did every storage answer in time. Floor 5."""

from __future__ import annotations

import ssl
from typing import Any

import gevent
from gevent import socket

from pepperbus.errors import PepperbusError
from pepperbus.operations.office import Office

GATEWAY_S = 2.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def not_ready(office: Office) -> list[str]:
    """What keeps this node from serving, one line each; empty when it is ready. Bounded by the longest `store_timeout`."""
    gateway = office.config.gateway
    used = sorted({topic.storage for topic in office.topics()})
    checks: list[Any] = [gevent.spawn(_gateway, address, bool(gateway.cert)) for address in gateway.listen]
    checks += [gevent.spawn(_storage, office, name) for name in used]
    for check in checks:
        check.join()
    return [check.value for check in checks if check.value]


def _gateway(address: str, tls: bool) -> str:
    """PING it; any answer in the protocol will do, a demand to log in too."""
    try:
        with gevent.Timeout(GATEWAY_S, TimeoutError):
            sock = _connect(address, tls)
            try:
                sock.sendall(b"PING\r\n")
                reply = sock.recv(64)
            finally:
                sock.close()
    except OSError as error:
        reason = f"no answer within {GATEWAY_S:g} s" if isinstance(error, TimeoutError) else error.strerror or error
        return f"gateway {address}: {reason}"
    return "" if reply.startswith((b"+PONG", b"-NOAUTH")) else f"gateway {address}: answered {reply!r} to PING"


def _connect(address: str, tls: bool) -> Any:
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address.removeprefix("unix:"))
        return sock
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    sock = socket.create_connection((_EVERYWHERE.get(host, host), int(port)), GATEWAY_S)
    if not tls:
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # our own listener on this very machine: is it there, not who is it
    return context.wrap_socket(sock)


def _storage(office: Office, name: str) -> str:
    limit = office.config.storages[name].store_timeout
    try:
        with gevent.Timeout(limit, TimeoutError):
            health = office.storage(name).health()
    except TimeoutError:
        return f"storage {name}: no answer within {limit:g} s"
    except PepperbusError as error:
        return f"storage {name}: {error}"
    return "" if health.alive else f"storage {name}: {health.detail or 'does not answer'}"
