"""The gateway processes of this node asking one another: one question and one answer over a unix socket in `run_dir/kin`.

Floor 4. Knows sockets and the hub; nothing of what is asked. A process that has gone has nothing to tell and is not missed; one
that lives and does not answer is an error, because without it the answer would be wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import gevent
from gevent import socket
from gevent.server import StreamServer

from pepperbus.errors import PepperbusError

PATIENCE_S = 2.0  # for one answer: below the time that client libraries wait for theirs
_PIECE = 1 << 18
_MOST = 4 << 20  # bytes of a question


class Unheard(PepperbusError):
    """A gateway of this node lives and does not answer."""

    reply = "TRYAGAIN"


class Kin:
    """One gateway's ear and mouth."""

    def __init__(self, run_dir: Path, index: int, answer: Callable[[bytes], bytes]) -> None:
        """`answer(question)` is called in a greenlet for what the others ask."""
        self._directory = run_dir / "kin"
        self._answer = answer
        self._path = self._directory / f"{index}.{os.getpid()}"
        self._server: StreamServer | None = None

    def listen(self) -> None:
        """From now on the others reach this one. Raises OSError."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        for path in self._others():
            if not _lives(path):
                path.unlink(missing_ok=True)  # it was killed
        self._path.unlink(missing_ok=True)
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        ear.bind(str(self._path))
        ear.listen(64)
        self._server = StreamServer(ear, self._hear)
        self._server.start()

    def _hear(self, sock: socket.socket, _address: object) -> None:
        with sock, suppress(OSError):
            sock.settimeout(PATIENCE_S)
            question = _all_of(sock, _MOST)
            sock.sendall(self._answer(question))

    def _others(self) -> list[Path]:
        with suppress(FileNotFoundError):
            return [path for path in self._directory.iterdir() if path.name != self._path.name]
        return []

    def ask(self, question: bytes) -> list[bytes]:
        """What all others say. Blocks. Raises Unheard."""
        asked = [gevent.spawn(_ask, path, question) for path in self._others()]
        said: list[bytes] = []
        for one in asked:
            answer = one.get()
            if isinstance(answer, Unheard):
                raise answer
            if answer:
                said.append(answer)
        return said

    def close(self) -> None:
        if self._server is not None:
            self._server.stop(timeout=0)
            self._path.unlink(missing_ok=True)


def _ask(path: Path, question: bytes) -> bytes | Unheard:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(str(path))
            sock.sendall(question)
            sock.shutdown(socket.SHUT_WR)
            return _all_of(sock)
        except TimeoutError:
            return Unheard(f"gateway {path.name.partition('.')[0]} of this node does not answer")
        except OSError:
            return b""  # it has left, or leaves now


def _all_of(sock: socket.socket, most: int = 0) -> bytes:
    """Until the other side has said all. Raises OSError."""
    data = bytearray()
    while piece := sock.recv(_PIECE):
        data += piece
        if most and len(data) > most:
            raise ConnectionError("too much was said")
    return bytes(data)


def _lives(path: Path) -> bool:
    try:
        os.kill(int(path.name.partition(".")[2]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        pass
    return True
