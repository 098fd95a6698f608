"""Who is silent because it gets no core is not stuck: its end would cost its jobs an attempt and make the load worse.

Floor 5. Knows of pids and seconds, not of what runs there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: So long before a promise is broken one begins to look what keeps its process (s).
LOOK_AHEAD_S = 1.5


def looked_at(pid: int) -> tuple[bool, float]:
    """Whether its main thread runs or would like to, and for how many seconds it has run since its birth.

    From /proc/PID/stat (state R) and the first word of /proc/PID/schedstat. Its second word, the time spent waiting, grows only
    when the wait is over. (False, 0.0) when it is gone, or the kernel does not count that.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
        return state == b"R", int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, IndexError, ValueError):
        return False, 0.0


@dataclass
class _Look:
    at: float
    wants: bool
    ran_s: float
    waited_s: float = 0.0


class Waits:
    """What those whose promise is nearly or already broken wait for a core, by name. The others are not looked at."""

    def __init__(self, look: Callable[[int], tuple[bool, float]] = looked_at) -> None:
        self._look = look
        self._last: dict[str, _Look] = {}

    def is_stuck(self, name: str, pid: int, now: float, soon_s: float, overdue_s: float) -> bool:
        """Whether it is overdue for longer than it has waited for a core lately; to be asked about once a second.

        `overdue_s`: since its promise was broken; `soon_s`: what that will be `LOOK_AHEAD_S` from now.
        """
        if not soon_s:
            self._last.pop(name, None)
            return False
        wants, ran_s = self._look(pid)
        last = self._last.get(name, _Look(now, False, ran_s))
        waited_s = last.waited_s
        if wants and last.wants:
            waited_s += max(now - last.at - max(ran_s - last.ran_s, 0.0), 0.0)
        self._last[name] = _Look(now, wants, ran_s, waited_s)
        return overdue_s > waited_s
