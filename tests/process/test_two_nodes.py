"""Two nodes that share a Redis: each shows what both are and did, and tries a consumer from the other."""

from __future__ import annotations

import json
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pepperbus import __version__
from pepperbus.config.model import StorageConfig
from pepperbus.config.secret import Secret
from pepperbus.nodes import errands
from pepperbus.storage import open_storage
from tests.fixtures.bus import NODE
from tests.fixtures.http import answering, raw_server
from tests.fixtures.redis import ALWAYS, running
from tests.process.test_web import DONE, ask, until

MAIL = "/api/v1/topics/orders/mail"
QUEUE = """\
open = loopback
storage = local
system = shop
[topics]
    [[mail]]
        run = http
        url = {url}
        concurrency = 1
"""
JOBS = 40


def test_each_of_two_nodes_shows_both_and_tries_a_consumer_from_the_other(buses: Any) -> None:
    with running(ALWAYS) as redis, raw_server(answering(DONE)) as first, raw_server(answering(DONE)) as second:
        node = NODE.replace("type = embedded", f"type = redis\n        url = {redis.url}")
        one, two = (
            buses.start(
                node.replace("node = test", f"node = {name}\n    shard = {shard}"),
                {"orders": QUEUE.format(url=server.url)},
            )
            for name, shard, server in (("n1", 2, first), ("n2", 3, second))
        )
        one.client().lpush("orders", *(b"job %d" % n for n in range(JOBS)))

        # While the last minute is on its way: the consumer of n2 is asked by somebody at n1, and answers to them, at the
        # first try if n2 has said that it lives.
        until(lambda: ask(one, f"{MAIL}/ping", {"node": "n2"})[1].get("registered"), lambda is_it: is_it is True)
        status, sent = ask(one, f"{MAIL}/send", {"content": "from afar", "node": "n2"})
        assert (status, sent["act"], sent["node"]) == (200, "done", "n2"), sent
        asked = [b"from+afar" in seen.body for seen in second.requests]
        assert any(asked)
        assert not any(b"from+afar" in seen.body for seen in first.requests)
        status, refused = ask(one, f"{MAIL}/ping", {"node": "n3"})
        assert (status, "must be one of n1, n2" in refused["error"]["message"]) == (400, True), refused
        assert redis.ask("GET", "pb:text:errand/n2") is None, "nothing is left of what was asked"
        page = ask(one, "/console?topic=orders/mail")[1]
        assert '<option value="n2">' in page
        (there,) = ask(two, "/api/v1/audit?what=send&result=done")[1]["entries"]
        assert (there["who"], there["address"]) == ("tests-", "node n1")

        def seen_by(bus: Any) -> dict[str, Any]:
            return {pace["node"]: pace for pace in ask(bus, f"{MAIL}/percentiles")[1]}

        for bus in (one, two):
            paces = until(
                lambda bus=bus: seen_by(bus), lambda found: found.get("", {}).get("run", {}).get("count") == JOBS
            )
            assert paces.keys() == {"n1", "n2", ""}
            for which in ("wait", "run"):
                parts = [paces[name][which] for name in ("n1", "n2") if paces[name][which]["count"]]
                assert sum(part["count"] for part in parts) == JOBS
                for share in ("p50_s", "p90_s", "p99_s"):
                    figures = [part[share] for part in parts]
                    assert 0 < min(figures) <= paces[""][which][share] <= max(figures)
        page = ask(two, "/topics/orders/mail")[1]
        assert "n1" in page.partition('id="paces"')[2].partition("</section>")[0]
        each_chart_is_of_all_nodes_or_of_one(one, two)
        each_shows_the_processes_and_versions_of_both(one, two)
        a_systems_line_opens_to_one_of_each_node(one, two)
        a_node_that_cannot_tell_is_named(one, redis.url)


def each_chart_is_of_all_nodes_or_of_one(one: Any, two: Any) -> None:
    def done(bus: Any, node: str, back: int = 300) -> float:
        told = ask(bus, f"/topics/orders/mail/points/rates?back={back}{node}")[1]
        assert told["note"] == ""
        return sum(n or 0.0 for n in told["data"][2]) * (1 if back == 300 else back)

    # What they did is in their histories once its block of ten seconds is over; only then they ask each other.
    until(lambda: done(one, "&node=n1") + done(two, "&node=n2"), lambda n: n == JOBS)
    for bus in (one, two):
        until(lambda bus=bus: done(bus, ""), lambda n: n == JOBS)
        parts = [done(bus, f"&node={name}") for name in ("n1", "n2")]
        assert sum(parts) == JOBS
        assert 'href="/topics/orders/mail?node=n2"' in ask(bus, "/topics/orders/mail")[1]
    assert done(one, "&node=n2") == done(two, "&node=n2")
    times = ask(one, "/topics/orders/mail/points/run?back=300")[1]["data"]
    alone = [ask(one, f"/topics/orders/mail/points/run?back=300&node={name}")[1]["data"] for name in ("n1", "n2")]
    assert any(times[3])
    assert max(filter(None, times[3])) == max(filter(None, [*alone[0][3], *alone[1][3]]))
    assert ask(one, "/topics/orders/mail/points/run?node=n3")[0] == 404


def each_shows_the_processes_and_versions_of_both(one: Any, two: Any) -> None:
    for here, there in ((one, two), (two, one)):
        own, other = ask(here, "/api/v1/nodes")[1]
        assert (own["here"], other["here"], other["alive"], other["error"]) == (True, False, True, "")
        for bus, report in ((here, own), (there, other)):
            told = report["told"]
            assert (told["node"], told["state"], told["version"]) == (report["node"], "ready", __version__)
            assert told["python"] == platform.python_version()
            assert told["storages"][0]["version"].partition(".")[0].isdigit()
            processes = {process["name"]: process for process in told["processes"]}
            assert {name: processes[name]["pid"] for name in bus.pids()} == bus.pids()
            assert processes["worker.orders.0"]["queues"] == ["orders"]
            assert min(process["memory"] for process in processes.values()) > 1 << 20
        assert 0 <= other["age_s"] < 60
        page = until(lambda here=here: ask(here, "/nodes")[1], lambda text: "as of " in text)
        for pid in [*here.pids().values(), *there.pids().values()]:
            assert f">{pid}</td>" in page
    listed = one.cli("nodes")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert all(str(pid) in listed.stdout for bus in (one, two) for pid in bus.pids().values())


def a_systems_line_opens_to_one_of_each_node(one: Any, two: Any) -> None:
    one.client().lpush("orders", *(b"more %d" % n for n in range(JOBS)))

    def lines() -> dict[str, Any]:
        return {line["node"]: line for line in ask(one, "/api/v1/systems")[1] if line["system"] == "shop"}

    found = until(lines, lambda found: found.get("", {}).get("run", {}).get("count", 0) >= JOBS)
    assert found.keys() == {"n1", "n2", ""}
    assert found["n1"]["run"]["count"] + found["n2"]["run"]["count"] == found[""]["run"]["count"]
    assert found["n1"]["figures"]["queues"] == found[""]["figures"]["queues"] == 1
    closed, opened = ask(one, "/")[1], ask(one, "/?open=shop")[1]
    assert 'href="/?open=shop"' in closed
    assert "all nodes" not in closed
    assert all(text in opened for text in ('aria-expanded="true"', ">n2 <small>as of ", "all nodes"))
    assert 'href="/"' in opened.partition('aria-expanded="true"')[0].rpartition("<a ")[2]


def a_node_that_cannot_tell_is_named(one: Any, url: str) -> None:
    with older_node(url, "n0"), open_for_all(url) as storage:
        reason = "node n0 runs an older version, which does not tell this"
        until(lambda: storage.nodes(), lambda found: "n0" in found)
        listed = one.cli("--json", "nodes")
        assert listed.returncode == 1
        told = {report["node"]: (bool(report["told"]), report["error"]) for report in json.loads(listed.stdout)}
        assert told == {"n1": (True, ""), "n2": (True, ""), "n0": (False, reason)}
        storage.claim_shard(41, "n9")
        storage.heartbeat("n9")  # there, and nobody who answers
        until(
            lambda: ask(one, "/nodes")[1],
            lambda page: reason in page and "asked, no answer yet" in page.partition('aria-label="n9"')[2],
        )


@contextmanager
def open_for_all(url: str) -> Iterator[Any]:
    storage = open_storage(StorageConfig("local", "redis", url=Secret(url)))
    storage.open()
    try:
        yield storage
    finally:
        storage.close()


@contextmanager
def older_node(url: str, name: str) -> Iterator[None]:
    """A node of a version that knows errands, but not this one."""
    ended = threading.Event()

    def run() -> None:
        with open_for_all(url) as storage:
            storage.claim_shard(40, name)
            while not ended.wait(0.1):
                storage.heartbeat(name)
                for word, errand in errands.take(storage, name).items():
                    errands.answer(storage, name, word, error=f"no such request: {errand.what!r}")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(20)
