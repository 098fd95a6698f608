"""Small mains for the master's tests: they live in the mold like the real ones, and do on command what faults do."""

from __future__ import annotations

import os
import time
from typing import Any

import gevent
import gevent.event

from pepperbus.child import Child
from pepperbus.errors import BootError


def _do(child: Child, left: gevent.event.Event, command: dict[str, Any]) -> dict[str, Any]:
    match command["op"]:
        case "facts":
            return {
                "generation": child.config.generation,
                "listeners": sorted(child.listeners),
                "wakes": sorted(child.wakes),
                "queues": sorted(child.config.queues),
                "family": FAMILY,
                "fds": len(os.listdir("/proc/self/fd")),
            }
        case "family":
            FAMILY[:] = command["names"]
        case "spin":
            gevent.spawn_later(0.01, _spin)
        case "eat":
            for _ in range(command["bytes"] >> 20):
                HELD.append(b"x" * (1 << 20))
                gevent.sleep(0)  # on a busy machine all at once would be longer than it may be silent
        case "raise":
            raise ValueError("as asked")
        case "crash":
            gevent.spawn_later(0.01, os._exit, 7)
        case "ask":
            return child.ask_master(command["request"])
        case "deaf":
            child.on_drain = lambda grace: None
        case "hold":
            HOLD.append(command["seconds"])
    return {"done": command["op"]}


FAMILY: list[str] = []
HELD: list[bytes] = []
HOLD: list[float] = []


def _spin() -> None:
    while True:
        time.monotonic()


def main(child: Child) -> None:
    """Fails at boot when a file `run_dir/fail.<role>` says so, waits while there is a `slow.<role>`; lives until drained.

    What was told to `hold` takes so long to leave, or until there is a `go.<role>`.
    """
    order = child.config.bus.run_dir / f"fail.{child.role}"
    if order.exists():
        text = order.read_text()
        raise BootError(text) if text.startswith("definite") else RuntimeError(text)
    while (child.config.bus.run_dir / f"slow.{child.role}").exists():
        gevent.sleep(0.02)
    left = gevent.event.Event()

    def drain(grace: float) -> None:
        over = time.monotonic() + min(grace, max(HOLD, default=0.0))
        while time.monotonic() < over and not (child.config.bus.run_dir / f"go.{child.role}").exists():
            gevent.sleep(0.02)
        left.set()

    child.on_drain = drain
    child.on_command = lambda command: _do(child, left, command)
    child.title = lambda: "at your service"
    child.start()
    left.wait()
