"""Mains of a bus under test: the real ones, after something in their process was changed on purpose.

CHAOS_CLOCK: a file whose 8 bytes say how far (ms) this process' wall clock is off. CHAOS_MUTANT: the crime to commit.
"""

from __future__ import annotations

import mmap
import os
import struct

from pepperbus.child import Child
from tests.chaos import crimes


def gateway(child: Child) -> None:
    _bend("gateway")
    from pepperbus.gateway.main import main

    main(child)


def worker(child: Child) -> None:
    _bend("worker")
    from pepperbus.worker.main import main

    main(child)


def ticker(child: Child) -> None:
    _bend("ticker")
    from pepperbus.ticker.main import main

    main(child)


def web(child: Child) -> None:
    from pepperbus.web.main import main

    main(child)


def _bend(role: str) -> None:
    if path := os.environ.get("CHAOS_CLOCK"):
        _move_clock(path)
    if name := os.environ.get("CHAOS_MUTANT"):
        crimes.commit(name, role)


def _move_clock(path: str) -> None:
    from pepperbus.clock import SystemClock

    with open(path, "rb") as file:
        page = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
    now_ms = SystemClock.now_ms
    crimes.replace(SystemClock, "now_ms", lambda self: now_ms(self) + struct.unpack_from("<q", page)[0])
