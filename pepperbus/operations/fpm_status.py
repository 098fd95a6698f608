"""php-fpm's status page, asked over FastCGI: the pool's own counters.

Floor 4. One request on one connection; php-fpm answers it itself, no script runs.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from pepperbus.errors import ProtocolError
from pepperbus.wire import fastcgi

_MOST = 1 << 20


def ask(status: str, timeout: float) -> dict[str, Any]:
    """`address/path` (pm.status_listen and pm.status_path) -> its JSON. Raises OSError."""
    address, _, page = status.rpartition("/")
    params = {
        "SCRIPT_NAME": f"/{page}",
        "SCRIPT_FILENAME": f"/{page}",
        "REQUEST_URI": f"/{page}?json",
        "QUERY_STRING": "json",
        "REQUEST_METHOD": "GET",
    }
    try:
        return _facts(_asked(address, params, timeout))
    except ProtocolError as error:
        raise OSError(str(error)) from None


def _asked(address: str, params: dict[str, str], timeout: float) -> fastcgi.Reply:
    reader, reply = fastcgi.Reader(), fastcgi.Reply()
    with _connect(address, timeout) as sock:
        sock.sendall(fastcgi.opening(fastcgi.pairs(params.items()), keep=False) + fastcgi.closing(b""))
        taken = 0
        while True:
            data = sock.recv(1 << 16)
            taken += len(data)
            if not data or taken > _MOST:
                raise OSError("no complete answer; is this php-fpm's pm.status_listen?")
            reader.receive_data(data)
            while (event := reader.next_event()) is not None:
                if isinstance(event, fastcgi.End):
                    return reply
                reply.take(event)


def number(facts: dict[str, Any], key: str) -> int:
    value = facts.get(key)
    return value if isinstance(value, int) else 0


def _facts(reply: fastcgi.Reply) -> dict[str, Any]:
    status, _, body = reply.parse()
    if status != 200:
        raise OSError(f"answered {status}; is pm.status_path right?")
    try:
        facts = json.loads(body)
    except ValueError:
        raise OSError("what it answers is no status page") from None
    return facts if isinstance(facts, dict) else {}


def _connect(address: str, timeout: float) -> socket.socket:
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(address.removeprefix("unix:"))
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout)
