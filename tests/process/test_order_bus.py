"""`order_by` on a real bus with three workers: per key one at a time and in order, while jobs fail and workers are killed."""

from __future__ import annotations

import json
import socket
import threading
import time
from urllib.parse import parse_qs

from tests.fixtures.bus import Buses
from tests.fixtures.http import RawServer, raw_server, read_request
from tests.process.bus_rig import until

KEYS, EACH = 5, 8


class Consumer:
    """Fails every seventh request, takes a moment for each, and remembers what ran and whether two of a key ran at once."""

    def __init__(self) -> None:
        self.done: dict[int, list[int]] = {key: [] for key in range(KEYS)}
        self.running: set[int] = set()
        self.overlaps: list[int] = []
        self.requests = 0
        self._lock = threading.Lock()

    def talk(self, conn: socket.socket, server: RawServer, number: int) -> None:
        while (seen := read_request(conn, number)) is not None:
            job = json.loads(parse_qs(seen.body.decode())["jobs"][0])[0]
            content = json.loads(job["content"])
            key = content["user"]["id"]
            with self._lock:
                self.requests += 1
                fails = self.requests % 7 == 0
                if key in self.running:
                    self.overlaps.append(key)
                self.running.add(key)
            time.sleep(0.02)
            with self._lock:
                self.running.discard(key)
                if not fails:
                    self.done[key].append(content["n"])
            conn.sendall(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % (500 if fails else 200))

    def first_done(self, key: int) -> list[int]:
        """A job whose worker was killed may run twice; the first time counts."""
        return list(dict.fromkeys(self.done[key]))


def test_the_order_of_a_key_outlives_failures_and_kills(buses: Buses) -> None:
    consumer = Consumer()
    with raw_server(consumer.talk) as server:
        queue = (
            "open = loopback\npassword = x\nstorage = local\nworkers = 3\norder_by = user.id\n[topics]\n[[mail]]\n"
            f"run = http\nurl = {server.url}\ncontract = status\nconcurrency = 4\nbackoff = fixed 200ms\n"
        )
        bus = buses.start(queues={"q": queue})
        client = bus.client()
        for n in range(EACH):
            client.lpush("q", *[json.dumps({"user": {"id": key}, "n": n}) for key in range(KEYS)])
        for enough in (6, 20):
            until(lambda: consumer.requests, lambda n, enough=enough: n >= enough, bus)
            for name in bus.pids("worker"):
                bus.kill(name)
        until(
            lambda: client.llen("q/mail") or sum(map(len, consumer.done.values())) < KEYS * EACH,
            lambda left: not left,
            bus,
            60,
        )
        until(
            lambda: [consumer.first_done(key) for key in range(KEYS)],
            lambda all_: all(len(o) == EACH for o in all_),
            bus,
            60,
        )
    assert [consumer.first_done(key) for key in range(KEYS)] == [list(range(EACH))] * KEYS
    most = 2 * KEYS
    assert len(consumer.overlaps) <= most, "only what a killed worker left running may meet its own second run"
