"""Intakes: what lies in somebody else's Redis becomes jobs, each once, whatever is killed in between."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pepperbus.clock import SystemClock
from pepperbus.failpoints import STEPS, VARIABLE
from tests.fixtures.bus import NODE, Bus, Buses
from tests.fixtures.http import answering, raw_server
from tests.fixtures.ids import floor_id
from tests.fixtures.redis import ALWAYS, Redis, pika_commands, running

GO_ID = floor_id(1_600_000_000_000)


@pytest.fixture(scope="module")
def legacy() -> Iterator[Redis]:
    """The Redis a team has today; the user pika may run nothing that Pika does not have."""
    with running(ALWAYS) as server:
        rights = [f"+{command}" for command in sorted(pika_commands()) if is_known(server, command)]
        assert server.ask("ACL", "SETUSER", "pika", "on", ">pika", "~*", "&*", "-@all", *rights) == b"OK"
        yield server


def is_known(server: Redis, command: str) -> bool:
    return bool(server.ask("COMMAND", "INFO", command)[0])


def queue(*intakes: str, more: str = "") -> str:
    """A queue whose jobs stay where they are, with two topics."""
    topics = "[topics]\n" + "".join(
        f"[[{name}]]\nrun = http\nurl = http://127.0.0.1:9/none\nconsumer = no\n{more}" for name in ("mail", "audit")
    )
    return "open = loopback\nstorage = local\n[intakes]\n" + "\n".join(intakes) + "\n" + topics


def intake(name: str, url: str, key: str, **more: object) -> str:
    lines = [f"[[{name}]]", f"url = {url}", f"key = {key}", *(f"{key} = {value}" for key, value in more.items())]
    return "\n".join(lines)


def element(number: int, content: str, **more: Any) -> str:
    """As the Go system writes one."""
    fields = {"id": str(GO_ID + number), "inTraceId": f"{GO_ID}-1-12017", "content": content, "retrying": 0}
    fields |= {"RetryTimes": 0, "RetryTime": 0, "IsRetry": False, "BeginRetry": False, "RetryResidueTime": 0}
    return json.dumps(fields | more, separators=(",", ":"))


def until(bus: Bus, condition: Callable[[], object], seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{reports(bus)}\n{bus.log}"
        time.sleep(0.02)


def reports(bus: Bus) -> dict[str, dict[str, Any]]:
    """What its ticker says, once it has looked for the first time."""
    end = time.monotonic() + 40
    while not (found := bus.tell("ticker", "intakes")["intakes"]):
        assert time.monotonic() < end, bus.log
        time.sleep(0.02)
    return {one["key"]: one for one in found}


def waiting(bus: Bus, topic: str) -> list[dict[str, Any]]:
    return [json.loads(one) for one in bus.client().execute_command("LRANGE", topic, 0, 9999)]


def leftovers(server: Redis, key: str) -> list[bytes]:
    return sorted(name for name in server.ask("KEYS", f"{key}*") if not name.endswith(b":taker"))


def test_raw_lists_move_in_order_from_both_ends_and_by_the_commands_of_pika(buses: Buses, legacy: Redis) -> None:
    contents = [f"job {n}".encode() for n in range(700)] + [b"twin", b"twin", b"\x00\xff\r\n", b""]
    for key in ("right", "pika"):
        legacy.ask("LPUSH", key, *contents)
    legacy.ask("RPUSH", "left", *contents)
    texts = {
        "right": queue(intake("one", legacy.url, "right")),
        "left": queue(intake("one", legacy.url, "left", end="left")),
        "pika": queue(intake("one", legacy.pika_url, "pika", mode="pika")),
    }
    bus = buses.start(queues=texts)
    for name in texts:
        for topic in ("mail", "audit"):
            until(bus, lambda n=name, t=topic: bus.client().llen(f"{n}/{t}") == len(contents))  # type: ignore[misc]
    assert [job["content"] for job in waiting(bus, "right/mail")[:3]] == ["job 0", "job 1", "job 2"]
    for name in texts:
        mail, audit = waiting(bus, f"{name}/mail"), waiting(bus, f"{name}/audit")
        assert [job["content"] for job in mail[:700]] == [content.decode() for content in contents[:700]]
        assert [job["id"] for job in mail] == [job["id"] for job in audit], "the same id in every topic"
        assert len({job["id"] for job in mail}) == len(contents)
        assert [job["content"] for job in mail[700:702]] == ["twin", "twin"], "equal elements are two jobs"
        until(bus, lambda n=name: leftovers(legacy, n) == [])  # type: ignore[misc]
    for name in texts:  # and on they go: old producers still push
        legacy.ask("RPUSH" if name == "left" else "LPUSH", name, "later")
        until(bus, lambda n=name: bus.client().llen(f"{n}/mail") == len(contents) + 1)  # type: ignore[misc]
    until(bus, lambda: reports(bus)["right"]["moved"] == len(contents) + 1)
    assert not legacy.ask("ACL", "LOG"), "no command that Pika does not have"
    assert bus.stop() == 0
    assert [name for name in legacy.ask("KEYS", "*") if name.endswith(b":taker")] == [], "another may take at once"


def test_the_go_systems_lists(buses: Buses, legacy: Redis) -> None:
    later = SystemClock().now_ms() // 1000 + 3600
    legacy.ask("LPUSH", "q::mail::list", element(1, "größe <1>"), element(2, "two"), element(2, "same id"), "no json")
    retry = element(3, "again", IsRetry=True, RetryResidueTime=90, RetryTimes=2, RetryTime=later)
    legacy.ask("LPUSH", "q::mail::list_retry", retry, element(4, "failed", RetryTimes=1))
    legacy.ask("LPUSH", "q::mail::list_timeout", element(5, "late", IsRetry=True, RetryTimes=4))
    text = queue(intake("go", legacy.url, "q::mail::list", format="pepperbus", topic="mail", failed="yes"))
    bus = buses.start(queues={"q": text})
    until(bus, lambda: sum(one["moved"] for one in reports(bus).values()) == 6)
    jobs = waiting(bus, "q/mail")[:3]  # the delayed one stands behind those that are ready
    assert [(job["content"], job["inTraceId"]) for job in jobs] == [
        ("größe <1>", f"{GO_ID}-1-12017"),
        ("two", f"{GO_ID}-1-12017"),
        ("same id", jobs[2]["inTraceId"]),
    ]
    assert [job["id"] for job in jobs[:2]] == [str(GO_ID + 1), str(GO_ID + 2)], "ids are kept"
    assert jobs[2]["id"] != str(GO_ID + 2), "two nodes of the Go system may have given the same id: both jobs stay"
    assert bus.client().llen("q/audit") == 0, "only the topic it belonged to"
    assert legacy.ask("LRANGE", "q::mail::list::pepperbus:refused", 0, -1) == [b"no json"]
    delayed = json.loads(bus.cli("--json", "jobs", "q/mail", "--state", "delayed").stdout)["jobs"]
    assert [(job["id"], job["due_ms"]) for job in delayed] == [(str(GO_ID + 3), (later + 30) * 1000)]
    dead = json.loads(bus.cli("--json", "jobs", "q/mail", "--state", "dead").stdout)["jobs"]
    assert {(job["id"], job["reason"]) for job in dead} == {
        (str(GO_ID + 4), "failed in the Go system after 1 attempt"),
        (str(GO_ID + 5), "timed out in the Go system after 4 attempts"),
    }


STEPS_HERE = [step for step in STEPS if step.startswith("intake.")]
#: A killed ticker comes back slower each time, so two of the steps; PEPPERBUS_INTAKE_TESTS=all: every step on both engines.
KILLED = {"embedded": ["intake.noted", "intake.stored"]}
if os.environ.get("PEPPERBUS_INTAKE_TESTS") == "all":
    KILLED = {"embedded": STEPS_HERE, "redis": STEPS_HERE}


@pytest.mark.parametrize("engine", KILLED)
def test_killed_at_every_step_each_element_runs_once(buses: Buses, legacy: Redis, engine: str) -> None:
    """The ticker is killed while consumers take the jobs as they come: done jobs are no less known than waiting ones."""
    contents = [f"{n % 700}".encode() for n in range(2000)]  # also equal ones
    key = f"kill-{engine}"
    legacy.ask("LPUSH", key, *contents)
    node = NODE.replace("type = embedded", f"type = redis\n        url = {legacy.url}") if engine == "redis" else NODE
    bus = buses.make(node, {"q": queue(intake("one", legacy.url, key), more="password = pw\n")})
    bus.serve_words = ("--chaos",)
    steps = KILLED[engine]
    bus.start(env={VARIABLE: ", ".join(f"{step}=kill@2" for step in steps)})
    client = bus.client("q/mail", "pw")
    popped: list[bytes] = []

    def take() -> bool:
        while answer := client.execute_command("RPOP", "q/mail"):
            popped.extend(job["content"].encode() for job in json.loads(answer)["jobs"])
        return len(popped) >= len(contents) and leftovers(legacy, key) == []

    until(bus, take, 60.0)
    assert [step for step in steps if f"failpoint {step}: kill" not in bus.log] == []
    assert Counter(popped) == Counter(contents)
    assert bus.client().llen("q/audit") == len(contents)
    assert not client.execute_command("RPOP", "q/mail")


def test_a_full_queue_and_a_lost_redis_are_waited_for(buses: Buses, start_redis: Callable[..., Redis]) -> None:
    source = start_redis()
    source.ask("LPUSH", "list", *[f"job {n}" for n in range(9)])
    bus = buses.start(queues={"q": queue(intake("one", source.url, "list"), more="max_length = 4\npassword = pw\n")})
    until(bus, lambda: "max_length = 4" in reports(bus)["list"]["error"])
    assert bus.client().llen("q/mail") == 4
    assert source.ask("LLEN", "list") == 5, "what has no room stays where it is"
    mail, audit = bus.client("q/mail", "pw"), bus.client("q/audit", "pw")
    source.kill()
    popped = [json.loads(mail.execute_command("RPOP", "q/mail"))["jobs"][0]["content"] for _ in range(4)]
    assert [audit.execute_command("RPOP", "q/audit") for _ in range(4)]
    until(bus, lambda: "list" in reports(bus) and "onnect" in reports(bus)["list"]["error"])
    source.start()  # it kept nothing on disk: another list lies there now
    source.ask("LPUSH", "list", "new")
    until(bus, lambda: bus.client().llen("q/mail") == 1)
    assert popped == ["job 0", "job 1", "job 2", "job 3"]
    until(bus, lambda: reports(bus)["list"]["error"] == "")


def test_how_it_goes_is_said_everywhere(buses: Buses, legacy: Redis) -> None:
    legacy.ask("LPUSH", "seen", "one", "two")
    legacy.ask("SET", "no-list", "x")
    text = queue(intake("good", legacy.tcp_url, "seen"), intake("bad", legacy.tcp_url, "no-list"))
    bus = buses.start(queues={"q": text})
    until(bus, lambda: len(reports(bus)) == 2)
    until(bus, lambda: reports(bus)["seen"]["moved"] == 2 and "WRONGTYPE" in reports(bus)["no-list"]["error"])
    until(bus, lambda: reports(bus)["seen"]["waiting"] == 0)
    shown = bus.cli("status")
    assert shown.returncode == 1
    assert "! intake q/bad: WRONGTYPE" in shown.stdout
    assert [line.split()[:4] for line in shown.stdout.splitlines() if line.startswith("q/good ")] == [
        ["q/good", "seen", "0", "2"]
    ]
    page = urllib.request.Request(
        f"http://127.0.0.1:{bus.web_port}/api/v1/status", headers={"Authorization": f"Bearer {bus.token()}"}
    )
    with urllib.request.urlopen(page, timeout=20) as answer:
        (one,) = [q for q in json.load(answer)["queues"] if q["name"] == "q"]
    assert [(found["name"], found["moved"]) for found in one["intakes"]] == [("good", 2), ("bad", 0)]
    assert bus.log.count("action=intake_failed") == 1, "said once a minute, in one line"
    bus.write_queue("q", queue(intake("good", legacy.tcp_url, "seen")))
    assert bus.cli("reload").returncode == 0
    until(bus, lambda: list(reports(bus)) == ["seen"])


def test_a_node_feeds_what_its_tags_say_and_pushes_everything(buses: Buses, start_redis: Callable[..., Redis]) -> None:
    """Two nodes on one Redis: tags, `consumer = off`, and a list that only one of them takes from until it leaves."""
    shared = start_redis(appendonly="yes")
    done = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with raw_server(answering(done)) as one, raw_server(answering(done)) as two:
        text = "open = loopback\nstorage = local\nrun = http\ncontract = status\nbody = raw\n"
        text += "[intakes]\n" + intake("old", shared.url, "old")
        text += f"\n[topics]\n[[live]]\ntags = live\nurl = {one.url}\n[[passport]]\ntags = passport\nurl = {two.url}\n"
        text += f"[[both]]\nurl = {two.url}\n"
        nodes = []
        for number, extra in enumerate(("tags = live", "tags = passport", "consumer = off")):
            node = NODE.replace("type = embedded", f"type = redis\n        url = {shared.url}")
            node = node.replace("node = test", f"node = node-{number}\n    shard = {number + 2}\n    {extra}")
            nodes.append(buses.start(node, {"q": text}))
        first, second, silent = nodes
        for bus in nodes:
            bus.client().lpush("q", f"from {bus.port}")
        until(first, lambda: len(one.requests) == 3 and len(two.requests) == 6)
        feeds = {bus: {p["name"] for p in bus.status()["processes"] if p["role"] == "worker"} for bus in nodes}
        assert feeds[first] == feeds[second] == {"worker.q.0"}
        assert not feeds[silent], "consumer = off: it takes pushes, feeds nobody"
        assert {request.body for request in one.requests} == {f"from {bus.port}".encode() for bus in nodes}
        until(first, lambda: sum(not reports(bus)["old"]["holder"] for bus in nodes) == 1)
        (taker,) = [bus for bus in nodes if not reports(bus)["old"]["holder"]]
        assert taker.stop() == 0
        shared.ask("LPUSH", "old", "after")
        until(next(bus for bus in nodes if bus is not taker), lambda: len(one.requests) + len(two.requests) > 9)
