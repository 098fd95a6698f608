"""The connection to Redis beside a hub that did not run for a while."""

import time
from pathlib import Path

import gevent
from gevent import socket

from pepperbus.storage.redis_url import Address
from pepperbus.storage.redis_wire import Connection


def test_time_in_which_the_hub_stood_still_is_not_taken_from_the_answer(tmp_path: Path) -> None:
    def answer() -> None:
        sock, _ = listener.accept()
        with sock:
            while sock.recv(4096):
                gevent.sleep(0.05)
                sock.sendall(b"+PONG\r\n")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        server = gevent.spawn(answer)
        connection = Connection(Address(path=str(tmp_path / "s")), time.monotonic() + 30)
        time.sleep(1.5)  # the hub stands still: that is what is tested
        connection.deadline = time.monotonic() + 1.4
        assert connection.ask((b"PING",)) == [b"PONG"]
        connection.drop()
        server.join()
