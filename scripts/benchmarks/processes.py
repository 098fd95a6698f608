"""What a process used: CPU from the clock the kernel keeps for each, memory from the kernel's page counts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


def family(pid: int) -> list[int]:
    """`pid` and all that descend from it."""
    found = [pid]
    with contextlib.suppress(psutil.Error):
        found += [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return found


def named(pids: Iterable[int], word: str) -> list[int]:
    """Those whose title holds `word`; the bus's processes are called `pepperbus: worker.orders.0 …`."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def stolen(before: Any, now: Any) -> float:
    """Percent of the cores' time between two `psutil.cpu_times()` that was wanted here and that the host gave to others.

    Of a virtual machine only; what waits meanwhile waits long: with 30 % a job of 2 ms took 50.
    """
    whole = sum(b - a for a, b in zip(before[:8], now[:8], strict=True))
    return (now.steal - before.steal) / whole * 100 if whole > 0 else 0.0


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds on a core of all threads of `pids` up to now, ended ones too; user and kernel, exact to the nanosecond."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += time.clock_gettime_ns(_cpu_clock(pid))
    return total / 1e9


def _cpu_clock(pid: int) -> int:
    """The CPU clock of another process, as clock_getcpuclockid(3) reckons it on Linux."""
    return ~pid << 3 | 2


@dataclass(frozen=True)
class Memory:
    """Bytes. `uss` is what would come back if the process ended; `pss` shares pages fairly among their users."""

    rss: int
    pss: int
    uss: int


def memory(pids: Iterable[int]) -> Memory:
    rss = pss = uss = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            full = psutil.Process(pid).memory_full_info()
            rss, pss, uss = rss + full.rss, pss + full.pss, uss + full.uss
    return Memory(rss, pss, uss)
