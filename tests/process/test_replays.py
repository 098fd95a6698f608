"""A replay on a real bus: steered over HTTP and from the terminal, its ticker killed, the bus restarted meanwhile."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from typing import Any

from tests.fixtures.bus import ROOT, Buses
from tests.fixtures.http import RawServer, raw_server, read_request
from tests.process.bus_rig import until, until_count
from tests.process.test_web import DONE, FAILED, ask, queue

JOBS = 80
_ID = re.compile(rb"%22id%22:%22(\d{20})|\"id\":\"(\d{20})")


def test_a_killed_ticker_repeats_and_loses_nothing(buses: Buses) -> None:
    well = threading.Event()
    ran: Counter[str] = Counter()

    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        while (seen := read_request(conn)) is not None:
            if well.is_set() and (found := _ID.search(seen.body)):
                ran[(found[1] or found[2]).decode()] += 1
            conn.sendall(DONE if b"type=ping" in seen.body or well.is_set() else FAILED)

    with raw_server(talk) as server:
        bus = buses.start(queues={"orders": "history = 1h\n" + queue(server.url, attempts="1", concurrency="8")})
        ask(bus, "/api/v1/queues/orders/push", {"contents": [f"job {n}" for n in range(JOBS)]})
        until_count(bus, dead=JOBS)
        well.set()
        one = "/api/v1/replays/1"

        def seen() -> dict[str, Any]:
            return dict(ask(bus, one)[1])

        assert ask(bus, "/api/v1/topics/orders/mail/replay", {"gray": "20", "rate": 12})[1]["state"] == "gray"
        until(seen, lambda r: r["state"] == "waiting-for-decision", bus)
        assert until(seen, lambda r: r["succeeded"] == 20, bus)["left"] == JOBS - 20

        watching = subprocess.Popen(
            [sys.executable, "-m", "pepperbus.cli", "-c", str(bus.config), "replays", "go", "1", "--wait"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        until(seen, lambda r: r["replayed"] > 30, bus)
        killed = bus.kill("ticker")
        watching.send_signal(signal.SIGINT)
        bus.wait_replaced("ticker", killed)
        said = watching.communicate(timeout=40)[0]
        assert watching.returncode == 0
        assert "paused" in said, "Ctrl-C pauses it"
        assert bus.stop() == 0
        bus.start()
        paused = seen()
        assert (paused["state"], ask(bus, one + "/go", {})[0]) == ("paused", 400)
        assert ask(bus, one + "/resume", {})[1]["state"] == "running"
        ended = until(seen, lambda r: r["state"] == "done" and not r["unknown"], bus, 60)

        assert (ended["replayed"], ended["succeeded"], ended["failed"], ended["gone"]) == (JOBS, JOBS, 0, 0)
        assert len(ran) == JOBS
        assert set(ran.values()) == {1}, "no job ran twice, however often the ticker died"
        deeds = [deed["what"] for deed in ended["deeds"]]
        assert deeds == ["plan", "go", "waiting-for-decision", "go", "pause", "resume", "done"]

        body = {"state": "done", "text": "job 1"}
        again = ask(bus, "/api/v1/topics/orders/mail/replay", body)[1]
        assert again["jobs"] == 11, "finished jobs are kept by the queue's history: 1, 10 to 19"
        until(lambda: ask(bus, f"/api/v1/replays/{again['id']}")[1], lambda r: r["succeeded"] == 11, bus)
        assert Counter(ran.values()) == {1: JOBS - 11, 2: 11}
