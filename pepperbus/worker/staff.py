"""The processes of `run = command` in one worker: hired, shown, sent away, and those of dead workers ended.

Floor 4. Knows them as `delivery.contract.Staff`; how a process is started or fed is the back end's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pepperbus.config.model import Topic
from pepperbus.delivery.command_marks import end_leftovers
from pepperbus.delivery.contract import Staff
from pepperbus.log import Log

#: Between SIGINT and SIGKILL for who is still there when the worker's grace is over; and how long to wait for that.
_LAST_GRACE_S, _GONE_S = 0.5, 1.5


class Staffs:
    """Topic by topic. `seats`: the directory in which the node's workers share the numbers of processes."""

    def __init__(self, run_dir: Path, seats: Path, log: Log) -> None:
        self._run_dir = run_dir
        self._seats = seats
        self._log = log
        self._by_topic: dict[str, Staff] = {}

    def end_leftovers(self) -> None:
        """What commands of dead workers left running would do our jobs a second time."""
        if killed := end_leftovers(self._run_dir):
            self._log.warning("leftovers_killed", "processes of a dead worker's commands", processes=killed)

    def employ(self, topic: Topic, staff: Staff, wanted: Callable[[], int]) -> None:
        """From now on `wanted()` processes of that topic are kept alive."""
        staff.keep(self._seats / f"children-{topic.queue}~{topic.name}", wanted, self._log)
        self._by_topic[topic.full_name] = staff

    def facts(self) -> dict[str, Any]:
        """topic -> what `Staff.facts` says, and the command."""
        return {name: {"address": staff.address, **staff.facts()} for name, staff in self._by_topic.items()}

    def leave(self) -> None:
        """Start none any more; who is not at work goes."""
        for staff in self._by_topic.values():
            staff.leave()

    def end(self, leave_by: Callable[[], float]) -> None:
        """Wait until `leave_by()` (monotonic s; it may come nearer meanwhile), then end whoever is still there."""
        for staff in self._by_topic.values():
            while not staff.gone(0.0) and (left := leave_by() - time.monotonic()) > 0:
                staff.gone(min(left, 0.2))
        for staff in self._by_topic.values():
            staff.end(_LAST_GRACE_S)

    def gone(self) -> None:
        """Wait until they are."""
        until = time.monotonic() + _GONE_S
        for staff in self._by_topic.values():
            staff.gone(max(0.0, until - time.monotonic()))
