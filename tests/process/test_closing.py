"""A queue that is deleted while jobs lie there: it takes no more, everything in it runs, then it is gone by itself."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.fixtures.bus import NODE
from tests.fixtures.http import answering, raw_server

DONE = b"HTTP/1.1 200 OK\r\nCode: 200\r\nContent-Length: 0\r\n\r\n"
QUEUE = """\
# of the shop team
open = loopback
[topics]
    [[post]]
        run = http
        url = {url}
        ping = off
        paused = yes
"""


def until(what: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_queue_runs_empty_and_goes(buses: Any) -> None:
    with raw_server(answering(DONE)) as consumer:
        bus = buses.start(NODE, {"slow": QUEUE.format(url=consumer.url), "other": QUEUE.format(url=consumer.url)})
        client = bus.client()
        client.lpush("slow/x", *["1"] * 50)
        refused = bus.cli("queue", "rm", "slow", "--yes")
        assert (refused.returncode, "jobs lie there" in refused.stderr) == (1, True)

        answer = bus.cli("--json", "queue", "rm", "slow", "--drain", "--yes")
        assert json.loads(answer.stdout)["reloaded"], answer.stderr
        until(lambda: b"is closed" in client.lpush("slow/x", "2"))
        assert b'"error":""' in client.lpush("other/x", "1"), "nobody else is bothered"
        file = bus.directory / "queues.d" / "slow.conf"
        assert "# of the shop team" in file.read_text()
        assert bus.cli("queue", "set", "slow", "post/paused=no").returncode == 0
        until(lambda: not file.exists())
        audit = json.loads(bus.cli("--json", "audit", "--about", "slow").stdout)["entries"]
        removed = next(one for one in audit if one["what"] == "queue.remove" and one["result"] == "done")
        assert removed["who"] == "the bus"
        until(lambda: "slow" not in {one["name"] for one in json.loads(bus.cli("--json", "queue", "list").stdout)})
