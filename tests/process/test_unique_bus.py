"""`unique` through the front door, as producers meet it: the reply names the job that is there, and nothing is stored."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fixtures.bus import NODE, QUEUE, Bus, Buses
from tests.fixtures.redis import ALWAYS, Redis, running
from tests.process.bus_rig import until

REST = "password = pw\nstorage = local\nconsumer = no\nrun = http\nurl = http://127.0.0.1:9/none\n[topics]\n[[mail]]\n"


@pytest.fixture(scope="module")
def server() -> Any:
    with running(ALWAYS) as redis:
        yield redis


@pytest.fixture(params=["embedded", "redis"])
def bus(request: pytest.FixtureRequest, buses: Buses, server: Redis) -> Bus:
    node = NODE
    if request.param == "redis":
        server.ask("FLUSHALL")
        node = node.replace("type = embedded", f"type = redis\n        url = {server.url}")
    node = node.replace("[gateway]", "[gateway]\n    processes = 2")
    both = "unique = order.id\nopen = loopback\n" + REST + "[[audit]]\n"
    queues = {
        "q": both,
        "window": "unique = content 1s\nopen = loopback\n" + REST,
        "mixed": "open = loopback\n" + REST + "unique = content\n[[log]]\n",
        "plain": QUEUE,
    }
    return buses.start(node=node, queues=queues)


def push(bus: Bus, *values: str, key: str = "q/x", client: Any = None) -> list[str]:
    with client or bus.client() as one:
        answer = json.loads(one.execute_command("LPUSH", key, *values))
    assert answer["error"] == ""
    return list(answer["jobs"])


def order(number: int, **more: object) -> str:
    return json.dumps({"order": {"id": number}, **more})


def test_a_producer_meets_what_is_there(bus: Bus) -> None:
    first, second = push(bus, order(1), order(2))
    assert push(bus, order(1, again=True)) == [first]
    assert push(bus, order(2), order(3), order(3))[:1] == [second]
    assert bus.client().llen("q/mail") == bus.client().llen("q/audit") == 3
    assert push(bus, "no JSON") != push(bus, "no JSON")  # without that field a job is like no other
    with ThreadPoolExecutor(8) as pool:  # over two gateway processes at once
        assert len({job for jobs in pool.map(lambda _: push(bus, order(9)), range(40)) for job in jobs}) == 1

    # the job is done in one topic only: it still stands
    mail, audit = (bus.client(f"q/{topic}", "pw") for topic in ("mail", "audit"))
    assert json.loads(mail.execute_command("RPOP", "q/mail"))["jobs"][0]["id"] == first
    assert push(bus, order(1)) == [first]
    assert json.loads(audit.execute_command("RPOP", "q/audit"))["jobs"][0]["id"] == first
    (fresh,) = push(bus, order(1))
    assert fresh != first

    # a window holds whatever becomes of the job
    (held,) = push(bus, "x", key="window/x")
    bus.client("window/mail", "pw").execute_command("RPOP", "window/mail")
    until(lambda: push(bus, "x", key="window/x"), lambda jobs: jobs != [held], bus)

    # a topic without the option gets every job
    one, two = push(bus, "x", key="mixed/x") + push(bus, "x", key="mixed/x")
    assert one != two
    assert (bus.client().llen("mixed/mail"), bus.client().llen("mixed/log")) == (1, 2)

    # Redis' own words, and a transaction over queues with and without the option
    client = bus.client()
    assert client.lpush("q", order(1), order(77)) == 2
    with client.pipeline() as pipe:
        pipe.execute_command("LPUSH", "q/x", order(1))
        pipe.execute_command("LPUSH", "plain/x", "y")
        pipe.lpush("q", order(1))
        named, plain, number = pipe.execute()
    assert json.loads(named)["jobs"] == [fresh]
    assert len(json.loads(plain)["jobs"]) == 1
    assert number == 1
    assert client.llen("plain/mail") == 1
    late = json.loads(client.execute_command("ZADD", "q/x", "+60", order(500)))["jobs"]
    assert push(bus, order(500)) == late
