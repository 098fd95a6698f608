"""What a process takes. Zeros for one that is gone or cannot be looked at just now."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_PAGE = os.sysconf("SC_PAGE_SIZE")


def private_bytes(pid: int) -> int:
    """Memory that is not file-backed: the pages of a mapped storage belong to the page cache, not to the process."""
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_bytes().split()[1:3]
    except (OSError, ValueError):
        return 0
    return max(int(resident) - int(shared), 0) * _PAGE


class Usage:
    """RSS and CPU for the status page; CPU in percent since the last look, so the objects are kept."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}

    def of(self, pid: int) -> tuple[int, float]:
        """(RSS in bytes, CPU in percent of one core)."""
        try:
            process = self._processes.get(pid)
            if process is None:
                process = self._processes[pid] = psutil.Process(pid)
            with process.oneshot():
                return int(process.memory_info().rss), float(process.cpu_percent(None))
        except (psutil.Error, OSError):
            self._processes.pop(pid, None)
            return 0, 0.0

    def keep_only(self, pids: set[int]) -> None:
        self._processes = {pid: process for pid, process in self._processes.items() if pid in pids}
