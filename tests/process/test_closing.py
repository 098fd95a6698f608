"""What is deleted while jobs lie there, a queue or a topic: it takes no more, everything there runs, then it goes by itself.

The queue lies in an embedded storage, the topic in a Redis.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

from tests.fixtures.bus import NODE, Bus
from tests.fixtures.http import answering, raw_server
from tests.fixtures.redis import Redis

DONE = b"HTTP/1.1 200 OK\r\nCode: 200\r\nContent-Length: 0\r\n\r\n"
FAR = """\
    [[far]]
        type = redis
        url = {url}
"""
QUEUE = """\
# of the shop team
open = loopback
ping = off
run = http
url = {url}
storage = local
[topics]
    [[post]]
        paused = {paused}
{more}"""
LOG = """\
    [[log]]
        paused = yes
        storage = far
"""


def until(what: Any, seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


class Pusher(threading.Thread):
    """Pushes without end; what was not answered as stored is kept."""

    def __init__(self, bus: Bus, key: str) -> None:
        super().__init__(daemon=True)
        self._client, self._key = bus.client(), key
        self.ids: list[str] = []
        self.failed: list[Any] = []
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            answer = json.loads(self._client.lpush(self._key, "x"))
            if answer["error"]:
                self.failed.append(answer)
            else:
                self.ids += answer["jobs"]
            time.sleep(0.002)

    def end(self) -> int:
        self._ended.set()
        self.join(30)
        assert self.failed == []
        return len(self.ids)


def call(bus: Bus, token: str) -> Callable[..., Any]:
    """The JSON API of the sidecar."""

    def ask(method: str, path: str, **body: Any) -> Any:
        head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body else None
        request = Request(f"http://127.0.0.1:{bus.web_port}/api/v1{path}", data, head, method=method)
        with urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    return ask


def test_a_topic_and_a_queue_run_empty_and_go(buses: Any, redis_server: Redis) -> None:
    redis_server.ask("FLUSHALL")  # it lists what others left there, too
    with raw_server(answering(DONE)) as consumer:
        files = {
            "slow": QUEUE.format(url=consumer.url, paused="yes", more=""),
            "two": QUEUE.format(url=consumer.url, paused="no", more=LOG),
        }
        bus = buses.start(NODE + FAR.format(url=redis_server.url), files)
        api, client = call(bus, bus.token()), bus.client()
        in_log = lambda: api("GET", "/topics/two/log")  # noqa: E731
        client.lpush("slow/x", *["1"] * 50)
        pushing = Pusher(bus, "two/x")
        pushing.start()
        until(lambda: len(pushing.ids) > 20)

        done = api("DELETE", "/topics/two/log?drain=true")
        assert (done["what"], done["reloaded"]) == ("changed", True)
        api("DELETE", "/queues/slow?drain=true")
        until(lambda: b"queue slow is closed" in client.lpush("slow/x", "2"))
        until(lambda: in_log()["closed"] == "remove")
        closed_with = client.llen("two/log")
        api("PUT", "/queues/two", unset=["log/closed"])
        until(lambda: client.llen("two/log") > closed_with)  # it takes jobs again
        until(lambda: in_log()["closed"] == "")
        assert bus.cli("queue", "rm", "two/log", "--drain", "--yes").returncode == 0
        until(lambda: in_log()["closed"] == "remove")
        before = len(pushing.ids)
        until(lambda: len(pushing.ids) > before + 2)  # what was under way in the old words is over
        lies, before = client.llen("two/log"), len(pushing.ids)
        until(lambda: len(pushing.ids) > before + 20)
        assert client.llen("two/log") == lies, "nothing new"
        file = bus.directory / "queues.d" / "two.conf"
        assert ("[[log]]" in file.read_text(), "# of the shop team" in file.read_text()) == (True, True)

        api("PUT", "/queues/two", settings={"log/paused": "no"})
        api("PUT", "/queues/slow", settings={"post/paused": "no"})
        until(lambda: "[[log]]" not in file.read_text())
        until(lambda: not (bus.directory / "queues.d" / "slow.conf").exists())
        until(lambda: {one["name"] for one in api("GET", "/topics")["topics"]} == {"two/post"})
        pushed = pushing.end()
        until(lambda: api("GET", "/topics/two/post")["done"] == pushed)

        written = json.loads(bus.cli("--json", "audit").stdout)["entries"]
        removed = [(one["who"], one["about"]) for one in written if one["what"] == "queue.remove"]
        assert sorted(removed) == [("the bus", "slow"), ("the bus", "two/log")], "once each"
        last = bus.cli("queue", "rm", "two/post", "--drain", "--yes")
        assert (last.returncode, "no topic would be left" in last.stderr) == (1, True)
        api("PUT", "/queues/two", settings={"post/closed": "yes"})
        until(lambda: b"queue two takes no jobs any more: all its topics are closed" in client.lpush("two/x", "3"))
