"""What a process used: CPU from the scheduler's own count of nanoseconds, memory from the kernel's page counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds on a core of all threads of `pids` up to now; user and kernel, exact to the nanosecond (schedstat)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


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
