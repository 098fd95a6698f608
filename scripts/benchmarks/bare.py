"""The bare FastCGI loop the bus is held against: prebuilt bytes, one epoll, no queue, no checks, no bookkeeping."""

from __future__ import annotations

import selectors
import socket
import struct
import time

_FORM = (
    b"type=data&queue=work-embedded&topic=t&outTraceId=18446744073709551615-1-bench&jobs="
    b"%5B%7B%22id%22:%2218446744073709551615%22,%22inTraceId%22:%2218446744073709551615-127.0.0.1-12017-bench%22,"
    b"%22content%22:%22" + b"x" * 100 + b"%22,%22retrying%22:0,"
    b"%22RetryTimes%22:1,%22RetryTime%22:1700000000,%22IsRetry%22:true,%22BeginRetry%22:false,"
    b"%22RetryResidueTime%22:259200%7D%5D&IS_PEPPER_BUS_REQUEST=true"
)


def _record(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBHHBB", 1, kind, 1, len(body), 0, 0) + body


def _pair(name: bytes, value: bytes) -> bytes:
    def length(n: int) -> bytes:
        return bytes([n]) if n < 128 else struct.pack(">I", n | 1 << 31)

    return length(len(name)) + length(len(value)) + name + value


def request(script: str, keep: bool) -> bytes:
    params = _pair(b"SCRIPT_FILENAME", script.encode()) + _pair(b"REQUEST_METHOD", b"POST")
    params += _pair(b"CONTENT_TYPE", b"application/x-www-form-urlencoded")
    params += _pair(b"CONTENT_LENGTH", b"%d" % len(_FORM))
    begin = _record(1, struct.pack(">HB5x", 1, int(keep)))
    return begin + _record(4, params) + _record(4, b"") + _record(5, _FORM) + _record(5, b"")


def loop(path: str, script: str, connections: int, requests: int, keep: bool) -> float:
    """Requests a second over `connections` unix connections, kept open or one each.

    The clock starts when every child has answered once: until then some may still sit on a connection of another client.
    """
    data = request(script, keep)
    selector = selectors.EpollSelector()

    def connect() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sock.setblocking(False)
        sock.send(data)
        selector.register(sock, selectors.EVENT_READ)

    for _ in range(connections):
        connect()
    warm = connections * 5
    sent, done, started = connections, -warm, 0.0
    while done < requests:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            answer = sock.recv(65536)
            if b"Code: 200" not in answer:
                raise SystemExit(f"bench: the bare loop got {answer[:200]!r}")
            done += 1
            if done == 0:
                started = time.perf_counter()
            if keep and sent < requests + warm:
                sock.send(data)
                sent += 1
                continue
            selector.unregister(sock)
            sock.close()
            if sent < requests + warm:
                connect()
                sent += 1
    return requests / (time.perf_counter() - started)
