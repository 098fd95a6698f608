"""An answer that nobody asked for must never be taken for the next command's."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from time import monotonic

from pepperbus.storage.redis_url import Address
from pepperbus.storage.redis_wire import Connection


def test_a_surplus_answer_ends_the_connection(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        over = threading.Event()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1000)
                sock.sendall(b"+PONG\r\n")
                sock.recv(1000)
                sock.sendall(b":1\r\n:2\r\n")  # one more than was asked for, in the same read
                over.wait(60)

        server = threading.Thread(target=serve)
        server.start()
        try:
            connection = Connection(Address(path=path), monotonic() + 30)
            assert connection.tell((b"LLEN", b"x")) == [1]
            assert not (connection.usable and connection.fresh())
            connection.drop()
        finally:
            over.set()
            server.join()
