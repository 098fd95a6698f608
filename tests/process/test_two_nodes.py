"""Two nodes that share a Redis: each shows what both did, and tries a consumer from the other."""

from __future__ import annotations

from typing import Any

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

        # While the last minute is on its way: the consumer of n2 is asked by somebody at n1, and answers to them. What is
        # asked before its sidecar has looked for the first time is thrown away, as if it were of its predecessor.
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
