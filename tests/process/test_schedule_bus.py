"""Schedules on real buses: two nodes on one Redis, their tickers killed in the middle of a firing; then steered by hand."""

from __future__ import annotations

import json
from typing import Any

from pepperbus.failpoints import STEPS, VARIABLE
from tests.fixtures.bus import NODE, Bus, Buses
from tests.fixtures.redis import ALWAYS, running
from tests.process.bus_rig import ask, until

QUEUE = """\
open = loopback
storage = local
[topics]
[[mail]]
run = http
url = http://127.0.0.1:9/none
consumer = no
[schedule]
"""
SECONDS = "[[tick]]\nexpression = @every 1s\npayload = now\ncatch_up = all\n"


def shown(bus: Bus, name: str = "q/tick") -> dict[str, Any]:
    found = ask(bus, "schedule", "show", name)
    assert isinstance(found, dict)
    return found


def slots(bus: Bus) -> dict[str, int]:
    """Job -> the second it was pushed for, as far as the runs are remembered."""
    return {job: run["slot_ms"] for run in shown(bus)["runs"] for job in run["jobs"]}


def waiting(bus: Bus) -> list[str]:
    return [job["id"] for job in ask(bus, "jobs", "q/mail", "--state", "ready", "-n", "1000")["jobs"]]


def test_two_nodes_whose_tickers_are_killed_push_each_firing_once(buses: Buses) -> None:
    struck = [step for step in STEPS if step.startswith("schedule.")]
    with running(ALWAYS) as server:
        node = NODE.replace("type = embedded", f"type = redis\n        url = {server.url}")
        nodes = [
            buses.make(node.replace("node = test", f"node = {name}\n    shard = {shard}"), {"q": QUEUE + SECONDS})
            for name, shard in (("a", 2), ("b", 3))
        ]
        for bus in nodes:
            bus.serve_words = ("--chaos",)
            bus.start(env={VARIABLE: ", ".join(f"{step}=kill@2" for step in struck)})
        known: dict[str, int] = {}  # the record remembers the last twenty

        def seen() -> int:
            known.update(slots(nodes[0]))
            return len(known)

        def killed() -> set[str]:
            seen()
            return {step for bus in nodes for step in struck if f"failpoint {step}: kill" in bus.log}

        until(killed, lambda steps: steps == set(struck), nodes[0], 60)
        most = seen()
        until(seen, lambda n: n >= most + 3, nodes[0])
        for bus in nodes:
            bus.stop()
        jobs = [int(one[:20]) for one in server.ask("LRANGE", "pb:{q/mail}:ready", 0, -1)]
        record = json.loads(server.ask("GET", "pb:text:schedule/q/tick"))
    pushed = sorted({run["slot"] for run in record["runs"]} | set(known.values()))
    assert pushed == list(range(pushed[0], pushed[-1] + 1000, 1000)), "every second once, none left out"
    assert len(jobs) == len(set(jobs)) == len(pushed)


def test_an_operator_sees_and_steers_it(buses: Buses) -> None:
    more = '[[nightly]]\nexpression = 30 3 * * 1-5\nzone = Asia/Shanghai\npayload = \'{"a": 1, "b": 2}\'\ntimes = 2\n'
    bus = buses.start(queues={"q": QUEUE + SECONDS + more})
    until(lambda: len(waiting(bus)), lambda n: n >= 2, bus)
    assert shown(bus)["runs"][0]["outcome"] == "waiting"
    assert bus.cli("schedule", "pause", "q/tick").returncode == 0
    until(lambda: shown(bus)["runs"][0]["what"], lambda what: what == "paused", bus)
    before = waiting(bus)

    nightly = shown(bus, "q/nightly")
    assert nightly["words"] == {"en": "At 03:30 on Monday through Friday", "zh": "周一至周五 03:30"}
    assert len(nightly["next_ms"]) == 5
    assert nightly["runs"] == []
    done = ask(bus, "schedule", "run", "q/nightly")
    assert waiting(bus) == before + done["jobs"]
    (run,) = shown(bus, "q/nightly")["runs"]
    assert (run["what"], run["jobs"], run["outcome"]) == ("manual", done["jobs"], "waiting")
    assert ask(bus, "job", done["jobs"][0])["content"] == '{"a": 1, "b": 2}'

    text = bus.cli("schedule", "list").stdout
    assert "Every 1 s" in text
    assert "paused" in text
    assert bus.cli("schedule", "resume", "q/tick").returncode == 0
    until(lambda: shown(bus)["runs"][0]["what"], lambda what: what == "pushed", bus)
    gone = bus.cli("schedule", "run", "q/nightl")
    assert gone.returncode == 1
    assert "did you mean 'q/nightly'" in gone.stderr
    assert "orders" not in gone.stderr
    assert not shown(bus)["late_s"]
