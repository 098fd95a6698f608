"""A second consumer for a share of the jobs: what it does not do the first one does, in the same attempt; counted apart."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from tests.fixtures.bus import Buses
from tests.fixtures.fpm import Fpm
from tests.fixtures.http import RawServer, answering, raw_server, read_request
from tests.process.bus_rig import counts, life, node, until, until_count
from tests.process.test_web import DONE, FAILED, ask, queue

JOBS = 60


def test_what_the_second_consumer_does_not_do_the_first_does(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm()
    script = php.script(
        "next.php", "<?php header('Code: 200'); file_put_contents(__DIR__ . '/ledger.txt', \"x\\n\", 8 | 2);"
    )

    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        while (seen := read_request(conn)) is not None:
            server.requests.append(seen)
            conn.sendall(FAILED if b"bad" in seen.body else DONE)

    with raw_server(answering(DONE)) as first, raw_server(talk) as second:
        files = {
            "orders": queue(first.url, canary=f"{second.url} 50%", attempts="1", ping="off"),
            "bills": queue(first.url, canary=f"php {script} 100%", attempts="1", ping="off"),
            "gone": queue(first.url, canary="http://127.0.0.1:9/ 100%", attempts="1", ping="off"),
        }
        bus = buses.start(node(php), files)

        def topic(name: str) -> dict[str, Any]:
            return dict(ask(bus, f"/api/v1/topics/{name}/mail")[1])

        contents = ["bad" if n % 2 else "good" for n in range(JOBS)]
        pushed = ask(bus, "/api/v1/queues/orders/push", {"contents": contents})[1]["ids"]
        for name in ("bills", "gone"):
            ask(bus, f"/api/v1/queues/{name}/push", {"contents": ["x"] * 5})
            until_count(bus, f"{name}/mail", done=5)
        totals = until_count(bus, done=JOBS)
        assert (totals["failed"], totals["dead"]) == (0, 0), "nothing of it costs an attempt"
        seen = until(lambda: topic("orders"), lambda topic: topic["done"] == JOBS, bus)["canary"]
        assert (seen["target"], seen["share"], seen["tried"]) == (second.url, 0.5, len(second.requests))
        assert 10 <= seen["tried"] <= JOBS - 10
        assert (seen["served"], seen["fell_back"]) == (
            sum(b"good" in one.body for one in second.requests),
            sum(b"bad" in one.body for one in second.requests),
        )
        assert seen["fell_back"] > 0

        fell = next(
            job for job in pushed if str(job).encode() in b"".join(r.body for r in second.requests if b"bad" in r.body)
        )
        events = until(lambda: life(bus, fell), lambda told: told["state"] == "done", bus)["events"]
        assert [(e["event"], e["outcome"], e["attempt"]) for e in events] == [
            ("canary", "fell back", 1), ("attempt", "done", 1),
        ]  # fmt: skip
        assert events[0]["reason"].startswith(second.url)
        assert "boom" in events[0]["body"]

        assert (topic("bills")["canary"]["served"], len(php.ledger())) == (5, 5), "a script of a pool can be it too"
        gone = until(lambda: topic("gone"), lambda one: one["state"] == "idle", bus)
        assert (gone["done"], gone["failed"], gone["state"]) == (5, 0, "idle"), "who is away is left alone"
        assert 1 <= gone["canary"]["fell_back"] <= 5
        assert counts(bus, "gone/mail")["done"] == 5
        page = ask(bus, "/topics/orders/mail")[1]
        assert second.url in page
        for text, why in {
            "http://127.0.0.1:9/": "the share is 0% to 100%",
            "http://127.0.0.1:9/ 120%": "the share is 0% to 100%",
            "no /x.php 5%": "no pool",
        }.items():
            bus.write_queue("orders", queue(first.url, canary=text))
            assert why in bus.cli("check").stderr
