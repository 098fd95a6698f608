"""Whole bus: it is told to leave while jobs run, and then told to hurry."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.fixtures.bus import Buses
from tests.fixtures.fpm import Fpm
from tests.process.bus_rig import begun, node, push, queue, until

WIRE = "wire.php"


def test_a_second_term_cuts_and_settles_what_runs_instead_of_killing_its_worker(
    buses: Buses, fpm: Callable[..., Fpm]
) -> None:
    php = fpm()
    files = node(php).replace("grace = 5s", "grace = 90s")
    bus = buses.start(files, {"orders": queue(php.script(WIRE), "backoff = fixed 1h\ntimeout = 90s")})
    push(bus, "sleep 60")
    until(lambda: begun(php), len, bus)
    bus.send(signal.SIGTERM)
    bus.wait_log("action=stopping")
    assert bus.stop(signal.SIGTERM) == 0
    assert "child_killed" not in bus.log, bus.log
    assert "the bus stopped" in bus.log


def test_a_stop_hurries_a_worker_that_a_reload_lets_finish_its_jobs(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm()
    bus = buses.start(node(php), {"orders": queue(php.script(WIRE), "backoff = fixed 1h\ntimeout = 90s")})
    push(bus, "sleep 60")
    until(lambda: begun(php), len, bus)
    bus.write_queue("orders", queue(php.script(WIRE), "backoff = fixed 2h\ntimeout = 90s"))
    bus.ask("reload")
    bus.ask("stop", grace=1)
    assert bus.wait() == 0
    assert "child_killed" not in bus.log, bus.log
    assert "the bus stopped" in bus.log
