"""The listening sockets: opened once, by the master, inherited by every process of their role.

One socket for all gateways, so that clients waiting in the backlog survive the death of any of them.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from pepperbus.errors import BootError

_BACKLOG = 4096
_UNIX_MODE = 0o660
_CURES = {
    errno.EADDRINUSE: "; another program has it (`ss -ltnp` names it): end that, or take another port",
    errno.EADDRNOTAVAIL: "; this machine has no such address",
    errno.EACCES: "; ports below 1024 are root's",
}


def open_listener(address: str, key: str) -> socket.socket:
    """Listen on `host:port`, `[v6]:port` or `unix:/path`. `key` names the setting in errors. Raises BootError."""
    try:
        sock = _open_unix(Path(address[5:])) if address.startswith("unix:") else _open_tcp(address)
    except OSError as error:
        why = (error.strerror or str(error)) + _CURES.get(error.errno or 0, "")
        raise BootError(f"{key}: cannot listen on {address}: {why}") from None
    sock.setblocking(False)
    return sock


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`; `*` and an empty host mean all IPv4 addresses."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    return ("0.0.0.0" if host in ("", "*") else host), int(port)


def _open_tcp(address: str) -> socket.socket:
    host, port = split_address(address)
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(path: Path) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o777 & ~_UNIX_MODE)
    try:
        sock.bind(str(path))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(old)
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a socket file that nobody answers on. Anything else there stays, and the bind then says so."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            pass
