"""Consumers that come for their jobs, on a whole bus with two gateways: an unchanged phpredis daemon, killed in the middle.

Every gateway has its own memory; what they share is the storage, an eventfd each, and the family that takes back what a
killed one held.
"""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.fixtures.bus import NODE, Bus
from tests.process.bus_rig import life, push, until, until_count

pytestmark = pytest.mark.skipif(not shutil.which("php"), reason="php-cli is not installed")

QUEUE = """\
open = loopback
password = secret
storage = local
attempts = 5
backoff = fixed 100ms
run = pull
[topics]
    [[mail]]
        pop = leased
"""
#: A daemon as teams have them, written for a plain list.
DAEMON = """<?php
$redis = new Redis();
$redis->connect('127.0.0.1', (int) $argv[1]);
$redis->setOption(Redis::OPT_READ_TIMEOUT, -1);
while ($got = $redis->brPop(['orders'], 0)) {
    file_put_contents($argv[2], "B $got[1]\\n", FILE_APPEND);
    if (str_starts_with($got[1], 'slow')) {
        sleep(60);
    }
    file_put_contents($argv[2], "E $got[1]\\n", FILE_APPEND);
}
"""


class Daemon:
    """One `php daemon.php`, and what it noted."""

    def __init__(self, bus: Bus, number: int) -> None:
        self.notes = bus.directory / f"notes-{number}"
        self.notes.touch()
        script = bus.directory / "daemon.php"
        script.write_text(DAEMON)
        self.process = subprocess.Popen(["php", str(script), str(bus.port), str(self.notes)])

    def lines(self) -> list[str]:
        return self.notes.read_text().splitlines()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)


@pytest.fixture
def daemons() -> Iterator[Callable[[Bus], Daemon]]:
    started: list[Daemon] = []

    def start(bus: Bus) -> Daemon:
        started.append(Daemon(bus, len(started)))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def steer(bus: Bus, deed: str) -> None:
    """Pause or resume the topic through the API."""
    headers = {"Authorization": f"Bearer {bus.token()}", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{bus.web_port}/api/v1/topics/orders/mail/{deed}"
    with urllib.request.urlopen(urllib.request.Request(url, b"{}", headers), timeout=20) as answer:
        assert answer.status == 200


def test_a_daemon_is_crash_safe_by_its_address(buses, daemons: Callable[[Bus], Daemon]) -> None:  # type: ignore[no-untyped-def]
    bus: Bus = buses.start(NODE.replace("[gateway]\n", "[gateway]\n    processes = 2\n"), queues={"orders": QUEUE})
    first, second = daemons(bus), daemons(bus)
    push(bus, *(f"job {n}" for n in range(20)))
    until(lambda: first.lines() + second.lines(), lambda lines: sum(line[0] == "E" for line in lines) == 20, bus)
    until_count(bus, done=18)  # the last of each is done when it comes for the next, and it waits for that

    # kill -9 in the middle: the job comes back and the other daemon does it
    [slow] = push(bus, "slow 1")
    holder = until(
        lambda: [one for one in (first, second) if one.lines()[-1:] == ["B slow 1"]], lambda found: found, bus
    )[0]
    other = second if holder is first else first
    holder.kill()
    until(other.lines, lambda lines: lines[-1:] == ["B slow 1"], bus)
    other.kill()
    until_count(bus, failed=2)
    told = until(lambda: life(bus, slow), lambda told: len(told["events"]) >= 2, bus)
    assert [(one["outcome"], one["attempt"]) for one in told["events"]] == [("retry", 1), ("retry", 2)]
    assert "closed its connection before it said that it was done" in told["events"][0]["reason"]
    with bus.client() as client:
        until(lambda: client.lrange("orders/mail", 0, -1), lambda jobs: jobs, bus)
        assert client.lrem("orders/mail", 0, slow) == 1

    # kill -9 of the gateway that handed it out: the family takes it back
    client = bus.client()
    push(bus, "held")
    assert client.brpop("orders", 9) == (b"orders", b"held")
    bus.kill(client.info()["process"])
    with bus.client() as again:
        came = until(lambda: again.brpop("orders", 5), lambda found: found, bus, 40)
        assert came == (b"orders", b"held")

        # paused: nothing comes; resumed: what waited comes
        steer(bus, "pause")
        push(bus, "after the pause")
        assert again.brpop("orders", 1.2) is None
        steer(bus, "resume")
        assert again.brpop("orders", 18) == (b"orders", b"after the pause")
    assert bus.stop() == 0
