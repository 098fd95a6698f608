"""A queue moves from the embedded storage to a real Redis while jobs come and go and the ticker is killed."""

from __future__ import annotations

import collections
import json
import threading
import urllib.parse
from typing import Any

from pepperbus.storage import drains as store
from tests.fixtures.bus import NODE
from tests.fixtures.http import answering, raw_server
from tests.fixtures.redis import Redis
from tests.process.bus_rig import ask, push, until

DONE = b"HTTP/1.1 200 OK\r\nCode: 200\r\nContent-Length: 12\r\n\r\norders/mail,"
QUEUE = "open = loopback\nstorage = local\n[topics]\n[[mail]]\nrun = http\nurl = {url}\nconcurrency = 2\n"


def run_jobs(server: Any) -> collections.Counter[str]:
    """How often each content was delivered."""
    contents: collections.Counter[str] = collections.Counter()
    for seen in list(server.requests):
        form = urllib.parse.parse_qs(seen.body.decode())
        if form.get("type") == ["data"]:
            contents.update(job["content"] for job in json.loads(form["jobs"][0]))
    return contents


def test_a_queue_moves_while_jobs_come_and_go(buses: Any, redis_server: Redis) -> None:
    redis_server.ask("FLUSHALL")
    node = NODE + f"    [[far]]\n        type = redis\n        url = {redis_server.url}\n"
    with raw_server(answering(DONE)) as server:
        bus = buses.start(node=node, queues={"orders": QUEUE.format(url=server.url)})

        def drain() -> store.Drain:
            return store.read(bus.directory / "data")["orders/mail"]

        ask(bus, "pause", "orders")
        push(bus, *(f"old {n}" for n in range(400)))
        stop = threading.Event()
        pushed: list[str] = []

        def produce() -> None:
            with bus.client() as client:
                while not stop.is_set():
                    content = f"new {len(pushed)}"
                    answer = json.loads(client.execute_command("LPUSH", "orders/x", content))
                    assert answer["error"] == "", answer
                    pushed.append(content)
                    stop.wait(0.005)

        producer = threading.Thread(target=produce)
        producer.start()
        try:
            begun = ask(bus, "storage", "drain", "orders", "far", "--yes")
            assert begun["reloaded"], begun
            until(lambda: drain(), lambda one: one.moved > 0 or one.state == "done", bus)
            bus.wait_replaced("ticker", bus.kill("ticker"))
            ask(bus, "resume", "orders")
            until(lambda: drain(), lambda one: one.state == "done", bus, 60.0)
        finally:
            stop.set()
            producer.join()
        wanted = {f"old {n}" for n in range(400)} | set(pushed)
        counts = until(lambda: run_jobs(server), lambda found: len(found) == len(wanted), bus, 60.0)
        assert set(counts) == wanted
        assert max(counts.values()) == 1, [content for content, n in counts.items() if n > 1][:10]
        (told,) = ask(bus, "storage", "drains")
        assert (told["state"], told["left"], told["trouble"]) == ("done", 0, "")
