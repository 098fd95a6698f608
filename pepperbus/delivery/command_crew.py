"""`run = command`: the processes of one topic that this worker keeps alive: how many, who is free, who is replaced.

Floor 3. `feed = stdin` takes free ones for jobs; for `feed = pull` and `none` being alive is all. A process that dies young is
started again later and later. How many there may be on the node is a matter of `command_seats`: the workers share them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event

from pepperbus.delivery.command_process import GRACE_S, Process
from pepperbus.delivery.command_seats import Seats
from pepperbus.log import Log

_TURN_S = 0.5
#: A process that lives shorter than this died young, unless it did a job; one that lived _CALM_S clears the record.
_YOUNG_S, _CALM_S = 5.0, 60.0
_BACKOFF_S = (0.5, 30.0)
#: Leaving young without an error (its work was done): the next one comes after this.
_QUICK_S = 1.0
#: Beyond the least number, one that had nothing to do for this long goes.
_IDLE_S = 60.0
_MEMORY_EVERY = 4  # turns


class Crew:
    """`start` makes a process and may raise OSError; `trouble` says why it would not work, or "".

    `max_task` and `max_memory`: after so many jobs, or above so many bytes, a process is replaced; 0 = never.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Process],
        trouble: Callable[[], str],
        max_task: int,
        max_memory: int,
        on_free: Callable[[], None] = lambda: None,
    ) -> None:
        self.members: list[Process] = []
        self.restarts = 0
        self.why = ""  # why the last one ended, when that was no wish of ours
        self._name = name
        self._start = start
        self._trouble = trouble
        self._max_task = max_task
        self._max_memory = max_memory
        self._on_free = on_free
        self._busy: dict[Process, str] = {}  # -> the id of its job
        self._seats: Seats | None = None
        self._wanted: Callable[[], int] = lambda: 0
        self._log: Log | None = None
        self._next_start = 0.0
        self._short_lives = 0
        self._turns = 0
        self._idle_since: dict[Process, float] = {}
        self._changed = Event()
        self._short = False  # a job found no process since the last turn
        self.leaving = False

    # -- keeping them ----------------------------------------------------------------------------------------------

    def keep(self, seats: Seats, wanted: Callable[[], int], log: Log) -> None:
        """From now on see that this worker's part of `wanted()` on the node live, and no more than the seats allow."""
        self._seats, self._wanted, self._log = seats, wanted, log
        gevent.spawn(self._keep_on, seats)

    def _keep_on(self, seats: Seats) -> None:
        while not self.leaving:
            self._turns += 1
            wanted = self._wanted()
            mine = seats.share(wanted)
            while len(self.staying()) < mine and self.hire(wanted) is not None:
                pass
            if self.leaving:
                return
            seats.want((self._short or len(self.staying()) < mine) and not self.wait_s())
            self._short = False
            self._thin_out(mine)
            self._share_out()
            if self._max_memory and self._turns % _MEMORY_EVERY == 0:
                self._weigh()
            self._changed.clear()
            self._changed.wait(_TURN_S)

    def staying(self) -> list[Process]:
        return [one for one in self.members if not one.leaving]

    def wait_s(self) -> float:
        """Seconds until another may be started; 0: now."""
        return max(0.0, self._next_start - monotonic())

    def hire(self, below: int = 1 << 30) -> Process | None:
        """Start one more now; None when there is no seat, or it is too soon after the last that died."""
        if self.leaving or self.wait_s() > 0:
            return None
        seat = self._seats.take(below) if self._seats is not None else 0
        if seat < 0:
            return None
        trouble = self._trouble()
        try:
            if trouble:
                raise FileNotFoundError(trouble)
            process = self._start()
        except Exception as error:  # OSError, or a bug of ours: whoever keeps them must go on
            self._free(seat)
            why = (error.strerror or str(error)) if isinstance(error, OSError) else repr(error)
            self._note(trouble or f"cannot be started: {why}", young=True)
            return None
        process.seat = seat
        self.members.append(process)
        self._idle_since[process] = monotonic()
        gevent.spawn(self._watch, process)
        if self.leaving:  # was said while it started
            self.dismiss(process, "the worker leaves")
            return None
        return process

    def _watch(self, process: Process) -> None:
        process.ended.wait()
        self.members.remove(process)
        self._busy.pop(process, None)
        self._idle_since.pop(process, None)
        self._free(process.seat)
        lived = monotonic() - process.since
        if not process.leaving:
            self._note(process.how, lived < _YOUNG_S and not process.tasks, process.status == 0, lived)
        self._changed.set()
        self._on_free()

    def _note(self, why: str, young: bool, fine: bool = False, lived: float = 0.0) -> None:
        """One is gone, or could not be started: when may the next one be?"""
        self.restarts += 1
        if lived >= _CALM_S or not young:
            self._short_lives = 0
            wait = 0.0
        elif fine:
            wait = _QUICK_S
        else:
            first, longest = _BACKOFF_S
            wait = min(longest, first * 2.0 ** min(self._short_lives, 20)) * random.uniform(0.75, 1.0)
            self._short_lives += 1
        self._next_start = monotonic() + wait
        if not fine and (why != self.why or self._short_lives < 3) and self._log is not None:
            self._log.warning("command_ended", why, topic=self._name, next_start_s=round(wait, 1))
        self.why = "" if fine else why

    def _free(self, seat: int) -> None:
        if self._seats is not None:
            self._seats.give(seat)

    def _thin_out(self, wanted: int) -> None:
        """Those beyond what is wanted go once they had nothing to do for a while."""
        surplus = len(self.staying()) - max(wanted, 0)
        long_ago = monotonic() - _IDLE_S
        for process in sorted(self._idle_since, key=self._idle_since.__getitem__):
            if surplus > 0 and not process.leaving and self._idle_since[process] < long_ago:
                surplus -= 1
                self.dismiss(process, "nothing to do")

    def _share_out(self) -> None:
        """Another worker has less than its part: whoever has nothing to do here goes, until the parts are even."""
        for process in self.staying():
            if process not in self._busy and self._is_beyond_our_part():
                self.dismiss(process, "another worker's turn")
                return  # the next when its seat has been taken, or at the next turn

    def _is_beyond_our_part(self) -> bool:
        return self._seats is not None and self._seats.has_too_many()

    def _weigh(self) -> None:
        for process in self.staying():
            if process not in self._busy:
                self._if_too_fat(process)

    def _if_too_fat(self, process: Process) -> bool:
        if not self._max_memory or (used := process.memory()) <= self._max_memory:
            return False
        self.restarts += 1
        self.dismiss(process, f"{used >> 20} MiB of memory, max_memory is {self._max_memory >> 20} MiB")
        return True

    def dismiss(self, process: Process, why: str) -> None:
        """It leaves, by itself when it can."""
        process.leaving = why
        gevent.spawn(self._see_off, process)

    def _see_off(self, process: Process) -> None:
        process.end_input()
        if process.lines_fed and process.ended.wait(GRACE_S / 2):
            return
        process.stop(process.leaving)

    # -- work ------------------------------------------------------------------------------------------------------

    def take(self, job: str) -> Process | None:
        """A free process for a job, a new one if need be."""
        free = [one for one in self.members if one.alive and not one.leaving and one not in self._busy]
        process = max(free, key=lambda one: self._idle_since[one]) if free else self._hire_for_a_job()
        if process is not None:
            self._busy[process] = job
            self._idle_since.pop(process, None)
        return process

    def _hire_for_a_job(self) -> Process | None:
        process = self.hire() if self._seats is None or self._seats.may_take_more() else None
        if process is None and not self._short:
            self._short = True
            self._changed.set()
        return process

    def give(self, process: Process, done: bool) -> None:
        """Its job is over; `done`: it gave a verdict."""
        self._busy.pop(process, None)
        process.tasks += done
        if not process.alive:
            return
        self._idle_since[process] = monotonic()
        if self.leaving:
            self.dismiss(process, "the worker leaves")
        elif self._max_task and process.tasks >= self._max_task:
            self.restarts += 1
            self.dismiss(process, f"max_task: {process.tasks} jobs done")
        elif self._is_beyond_our_part():
            self.dismiss(process, "another worker's turn")
        else:
            self._if_too_fat(process)

    # -- leaving ---------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Take on nobody; who is free goes at once, who works when the job is over. Returns at once."""
        self.leaving = True
        if self._seats is not None:
            self._seats.leave()
        self._changed.set()
        for process in self.staying():
            if process not in self._busy:
                self.dismiss(process, "the worker leaves")

    def end(self, grace_s: float) -> None:
        """All of them, also those at work; returns at once."""
        self.leaving = True
        for process in list(self.members):
            gevent.spawn(process.stop, "the worker leaves", grace_s)

    def gone(self, timeout: float) -> bool:
        """Wait until none is left; whether that came true."""
        until = monotonic() + timeout
        for process in list(self.members):
            process.ended.wait(max(0.0, until - monotonic()))
        return not any(process.alive for process in self.members)

    def facts(self) -> dict[str, Any]:
        """For people and pages."""
        return {
            "restarts": self.restarts,
            "why": self.why,
            "next_start_s": round(self.wait_s(), 1),
            "processes": [one.facts(self._busy.get(one, "")) for one in self.members],
        }
