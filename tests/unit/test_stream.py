"""A client's socket when what reads from it fails: the client hears of it."""

import socket
from _socket import socket as PlainSocket

import gevent

from pepperbus.gateway.stream import Stream


class Failing:
    """Fails at the first bytes, as a bug would."""

    def __init__(self) -> None:
        self.stream: Stream | None = None

    def received(self, data: bytes) -> None:
        raise RuntimeError("a bug of ours")

    def broken(self, reason: str) -> None:
        assert self.stream is not None
        self.stream.close()

    ended = overdue = moved = lambda self: None


def test_a_bug_in_reading_closes_the_connection() -> None:
    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    owner = Failing()
    owner.stream = Stream(PlainSocket(fileno=ours.detach()), owner)
    errors: list[object] = []
    hub = gevent.get_hub()
    report, hub.handle_error = hub.handle_error, lambda *about: errors.append(about[1])
    try:
        theirs.sendall(b"PING\r\n")
        theirs.setblocking(False)
        with gevent.Timeout(20):
            while True:
                try:
                    assert theirs.recv(10) == b""
                    break
                except BlockingIOError:
                    gevent.sleep(0.005)
    except ConnectionResetError:
        pass  # closed with bytes unread: as good
    finally:
        hub.handle_error = report
        theirs.close()
    assert errors == [RuntimeError]
