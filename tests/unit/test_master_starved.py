"""Silence of a process that gets no core, and of one that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pepperbus.master.starved import LOOK_AHEAD_S, Waits, looked_at

ENDLESS = "print(flush=True)\nwhile True: pass"
ASLEEP = "import time; print(flush=True); time.sleep(600)"


def first_stuck(look: Callable[[float], tuple[bool, float]], pid: int = 7) -> float | None:
    """When it is found stuck, in seconds since its promise was broken; looked at four times a second for a minute."""
    clock = [0.0]
    waits = Waits(lambda pid: look(clock[0]))
    for turn in range(240):
        now = clock[0] = turn / 4
        overdue = now - 5.0
        if waits.is_stuck("ticker", pid, now, max(overdue + LOOK_AHEAD_S, 0.0), max(overdue, 0.0)):
            return overdue
    return None


def test_who_hangs_asleep_or_turns_in_circles_is_stuck_as_soon_as_its_promise_is_broken() -> None:
    assert first_stuck(lambda now: (False, 1.0)) == 0.25
    assert first_stuck(lambda now: (True, now)) == 0.25


def test_who_gets_no_core_is_not_stuck_and_who_gets_half_of_one_is_in_the_end() -> None:
    assert first_stuck(lambda now: (True, 1.0)) is None
    assert first_stuck(lambda now: (True, now / 2)) == 1.5  # since 1.5 s before it has waited half of the time


def test_one_that_is_heard_of_again_is_forgotten() -> None:
    waits = Waits(lambda pid: (True, 1.0))
    assert not waits.is_stuck("ticker", 7, 10.0, 0.5, 0.0)
    assert not waits.is_stuck("ticker", 7, 20.0, 11.0, 9.5)
    assert not waits.is_stuck("ticker", 7, 21.0, 0.0, 0.0)
    assert not waits.is_stuck("ticker", 7, 30.0, 0.5, 0.0)
    assert waits.is_stuck("ticker", 7, 31.0, 3.5, 2.0)  # one second waited since, not eleven


@contextmanager
def running(code: str, policy: int) -> Iterator[int]:
    """On the first core this test may use, once it has begun: what a starved one has to read first may take it a minute."""
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
            os.sched_setscheduler(process.pid, policy, os.sched_param(0))
            yield process.pid
        finally:
            process.send_signal(signal.SIGKILL)


def test_the_kernel_tells_who_wants_a_core_and_who_has_one() -> None:
    with ExitStack() as stack:
        busy = stack.enter_context(running(ENDLESS, os.SCHED_OTHER))
        asleep = stack.enter_context(running(ASLEEP, os.SCHED_OTHER))
        starved = stack.enter_context(running(ENDLESS, os.SCHED_IDLE))
        deadline = time.monotonic() + 60
        while looked_at(busy)[1] < 0.3 or looked_at(asleep)[0] or not looked_at(starved)[0]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        began, had, ran = time.monotonic(), looked_at(starved)[1], looked_at(busy)[1]
        while looked_at(busy)[1] < ran + 0.5:
            assert time.monotonic() < deadline
            assert looked_at(starved)[0]
            time.sleep(0.01)
        assert looked_at(starved)[1] - had < (time.monotonic() - began) / 2
    assert looked_at(starved) == (False, 0.0)
