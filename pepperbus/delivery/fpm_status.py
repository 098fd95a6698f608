"""php-fpm's own status page, asked over FastCGI: how many children are idle, how long its queue is, how often it was full.

Floor 3. Uses `pm.status_listen`, which answers also while every child is busy. Blocks its greenlet, bounded.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from pepperbus.config.model import FastcgiPool
from pepperbus.delivery import unix_line
from pepperbus.errors import NotReachable, ProtocolError
from pepperbus.wire import fastcgi

_LIMIT_S = 2.0
_READ = 65536


def of(pool: FastcgiPool) -> dict[str, Any]:
    """`ask` of the pool's `status`; the line of a unix socket, which php-fpm calls 0, as the kernel knows it."""
    page = ask(pool.status)
    if pool.address.startswith("unix:") and not page.get("listen queue len"):
        line = unix_line.waiting(pool.address.removeprefix("unix:"))
        if line is not None:
            page["listen queue"] = line
    return page


def ask(status: str) -> dict[str, Any]:
    """The page as php-fpm's JSON. `status` is address/path, such as 127.0.0.1:9001/status or unix:/run/fpm.sock/status.

    Raises NotReachable when nobody answers, or something that is no php-fpm.
    """
    address, _, path = status.rpartition("/")
    params = {
        "SCRIPT_NAME": f"/{path}",
        "SCRIPT_FILENAME": f"/{path}",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "json&full",
    }
    try:
        with _connected(address) as sock:
            sock.sendall(fastcgi.opening(fastcgi.pairs(params.items()), False) + fastcgi.closing(b""))
            code, _headers, body = _reply(sock)
        if code != 200:
            raise NotReachable(f"{status} answered {code}: is pm.status_path = /{path} set?")
        found: dict[str, Any] = json.loads(body)
    except (OSError, ProtocolError, ValueError) as error:
        raise NotReachable(f"{status}: {error}") from error
    return _counted(found)


def _counted(page: dict[str, Any]) -> dict[str, Any]:
    """With sums that are true: php-fpm adds each request of a kept connection to them until it counts anew, once a second."""
    if children := len(page.pop("processes", ())):
        page["total processes"] = children
        page["active processes"] = min(page["active processes"], children)
        if page["process manager"] == "static":
            page["max active processes"] = min(page["max active processes"], children)
    return page


def _connected(address: str) -> socket.socket:
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(_LIMIT_S)
        sock.connect(address.removeprefix("unix:"))
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), _LIMIT_S)


def _reply(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    reader, reply = fastcgi.Reader(), fastcgi.Reply()
    while reply.end is None:
        data = sock.recv(_READ)
        if not data:
            raise ProtocolError("closed before the answer was whole")
        reader.receive_data(data)
        while (event := reader.next_event()) is not None:
            reply.take(event)
    return reply.parse()
