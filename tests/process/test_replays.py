"""A replay on a real bus: planned by the command line, carried out by a ticker that is killed, over a restart of the bus."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from typing import Any

from tests.fixtures.bus import Buses
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

        done = bus.cli("--json", "replay", "orders/mail", "--gray", "20", "--rate", "60/s", "--yes")
        assert done.returncode == 0, done.stderr
        assert '"waiting-for-decision"' in done.stdout
        assert until(seen, lambda r: r["succeeded"] == 20, bus)["left"] == JOBS - 20

        assert ask(bus, one + "/go", {})[1]["state"] == "running"
        until(seen, lambda r: r["replayed"] > 30, bus)
        bus.wait_replaced("ticker", bus.kill("ticker"))
        assert ask(bus, one + "/pause", {})[1]["state"] == "paused"
        assert bus.stop() == 0
        bus.start()
        paused = seen()
        assert (paused["state"], ask(bus, one + "/go", {})[0]) == ("paused", 400)
        assert ask(bus, one + "/resume", {})[1]["state"] == "running"
        ended = until(seen, lambda r: r["state"] == "done" and not r["unknown"], bus, 30)

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
