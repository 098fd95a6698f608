"""Messages over a stream socketpair: a length, a body, and descriptors that ride on the first bytes.

Downwards (master to mold and child) bodies are pickles, because configurations travel there; upwards they are JSON,
so that nothing a child sends can run code in the master. Knows no gevent: reading and writing is what the caller's
socket does. The end of the stream means that the other side is dead: for a child that is its life line.
"""

from __future__ import annotations

import array
import json
import os
import pickle
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

#: The kernel takes at most 253 descriptors a message.
FDS_PER_MESSAGE = 200
_LENGTH = struct.Struct("!I")
_READ = 1 << 16
_FD_SPACE = socket.CMSG_SPACE(FDS_PER_MESSAGE * array.array("i").itemsize)


class Outbox:
    """Messages waiting to be written to a socket that may not take them all at once."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[memoryview, list[int]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, body: bytes, fds: Sequence[int] = ()) -> None:
        """Queue one message. The descriptors are duplicated; the caller may close its own at once."""
        if len(fds) > FDS_PER_MESSAGE:
            raise ValueError(f"{len(fds)} descriptors in one message, at most {FDS_PER_MESSAGE}")
        self._waiting.append((memoryview(_LENGTH.pack(len(body)) + body), [os.dup(fd) for fd in fds]))

    def flush(self, sock: socket.socket) -> None:
        """Write what the socket takes: all of it when it blocks. Raises OSError when the other side is gone."""
        while self._waiting:
            data, fds = self._waiting[0]
            try:
                sent = socket.send_fds(sock, [data], fds) if fds else sock.send(data)
            except BlockingIOError:
                return
            close_all(fds)  # they went with the first bytes
            if sent == len(data):
                self._waiting.popleft()
            else:
                self._waiting[0] = (data[sent:], [])

    def drop(self) -> None:
        """Forget everything: the other side is gone."""
        while self._waiting:
            close_all(self._waiting.popleft()[1])


class Inbox:
    """Bytes and descriptors in, whole messages out."""

    def __init__(self, read: bytes = b"") -> None:
        self._buffer = bytearray(read)
        self._fds: list[int] = []

    @property
    def unread(self) -> bytes:
        """The start of a message whose rest has not come yet."""
        return bytes(self._buffer)

    def read(self, sock: socket.socket) -> bool:
        """One read. False at the end of the stream; BlockingIOError passes through."""
        data, ancillary, _, _ = sock.recvmsg(_READ, _FD_SPACE, socket.MSG_CMSG_CLOEXEC)
        for level, kind, packed in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(packed[: len(packed) - len(packed) % numbers.itemsize])
                self._fds.extend(numbers)
        self._buffer += data
        return bool(data)

    def bodies(self) -> list[bytes]:
        """Every whole message that has arrived."""
        found = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return found

    def take_fds(self, n: int) -> list[int]:
        """The next `n` descriptors, in the order they were sent; a message says itself how many are its own."""
        taken, self._fds = self._fds[:n], self._fds[n:]
        if len(taken) != n:
            raise ValueError(f"{n} descriptors were announced, {len(taken)} came")
        return taken

    def drop_fds(self) -> None:
        """Close those nobody took: in a forked child they are others' lines."""
        close_all(self._fds)
        self._fds = []


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def pack_down(message: dict[str, Any]) -> bytes:
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


def unpack_down(body: bytes) -> dict[str, Any]:
    message: dict[str, Any] = pickle.loads(body)
    return message


def pack_up(message: dict[str, Any]) -> bytes:
    return json.dumps(message, default=str).encode()


def unpack_up(body: bytes) -> dict[str, Any]:
    """Raises ValueError for anything that is no JSON object."""
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message
