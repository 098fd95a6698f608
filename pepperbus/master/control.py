"""The control socket `run_dir/control.sock`: one JSON object a line each way, for the owner of the bus and root only.

The server half only moves lines in and out of the loop; what they mean is the loop's business. The client half is
`ask`. Floor 5, plain sockets: the command line and the web sidecar use `ask` as it is.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pepperbus.errors import BootError, NotReachable

_MAX_LINE = 1 << 20
_CREDENTIALS = struct.Struct("3i")


def socket_path(run_dir: Path) -> Path:
    return run_dir / "control.sock"


def is_served(run_dir: Path) -> bool:
    """Whether a process listens there, even one that is stopped."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(socket_path(run_dir)))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def ask(run_dir: Path, request: dict[str, Any], timeout: float = 5.0) -> dict[str, Any]:
    """One request, one answer. Raises NotReachable when no bus runs there or it stays silent for `timeout` seconds."""
    path = socket_path(run_dir)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(str(path))
            sock.sendall(json.dumps(request).encode() + b"\n")
            line = _read_line(sock)
        except TimeoutError:
            raise NotReachable(f"the bus at {path} did not answer within {timeout:g} s") from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotReachable(f"no bus answers at {path}: start its service, or `pepperbus serve`") from None
        except OSError as error:
            raise NotReachable(f"no bus answers at {path}: {error.strerror or error}") from None
    if not line:
        raise NotReachable(f"the bus at {path} closed the connection: it ended, or you may not ask it")
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise NotReachable(f"what answers at {path} is no bus of this version: {line[:60]!r}")
    return answer


def _read_line(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        piece = sock.recv(1 << 16)
        if not piece:
            return b""
        data += piece
    return data


def listen(run_dir: Path) -> socket.socket:
    """The control socket, 0600. Call only with the lock held: whatever lies there is stale."""
    path = socket_path(run_dir)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        sock.bind(str(path))
    except OSError as error:
        raise BootError(f"[bus] run_dir: cannot make {path}: {error.strerror or error}") from None
    finally:
        os.umask(old)
    sock.listen(64)
    sock.setblocking(False)
    return sock


class Client:
    """One connection to the control socket, seen from the master."""

    def __init__(self, sock: socket.socket, read: bytes = b"", unsent: bytes = b"") -> None:
        sock.setblocking(False)
        self.sock = sock
        self._in = bytearray(read)
        self._out = bytearray(unsent)

    @property
    def is_allowed(self) -> bool:
        packed = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        uid: int = _CREDENTIALS.unpack(packed)[1]
        return uid in (0, os.geteuid())

    @property
    def has_unsent(self) -> bool:
        return bool(self._out)

    @property
    def unread(self) -> bytes:
        return bytes(self._in)

    @property
    def unsent(self) -> bytes:
        return bytes(self._out)

    def read(self) -> bool:
        """False when the other side is gone or talks nonsense without end."""
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._in += data
        return bool(data) and len(self._in) <= _MAX_LINE

    def requests(self) -> Iterator[dict[str, Any] | None]:
        """The whole lines that came; None for one that is no JSON object with an `op`."""
        while (end := self._in.find(b"\n")) >= 0:
            line = bytes(self._in[:end])
            del self._in[: end + 1]
            try:
                request = json.loads(line)
            except (ValueError, RecursionError):
                request = None
            yield request if isinstance(request, dict) and isinstance(request.get("op"), str) else None

    def answer(self, answer: dict[str, Any]) -> None:
        self._out += json.dumps(answer, default=str).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what the other side takes; one that is gone is noticed by `read`."""
        try:
            while self._out:
                del self._out[: self.sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()
