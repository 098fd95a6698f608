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

JOBS = 120
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
        bus = buses.start(queues={"orders": queue(server.url, attempts="1", concurrency="8")})
        ask(bus, "/api/v1/queues/orders/push", {"contents": [f"job {n}" for n in range(JOBS)]})
        until_count(bus, dead=JOBS)
        well.set()
        one = "/api/v1/replays/1"

        def seen() -> dict[str, Any]:
            return dict(ask(bus, one)[1])

        done = bus.cli("--json", "replay", "orders/mail", "--gray", "20", "--rate", "100/s", "--yes")
        assert done.returncode == 0, done.stderr
        assert '"waiting-for-decision"' in done.stdout
        assert until(seen, lambda r: r["succeeded"] == 20, bus)["left"] == JOBS - 20

        assert ask(bus, one + "/go", {})[1]["state"] == "running"
        for share in (30, 60):
            until(seen, lambda r, share=share: r["replayed"] > share, bus)  # type: ignore[misc]
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
        assert bus.cli("replays", "list").stdout.split()[:2] == ["1", "done"]
