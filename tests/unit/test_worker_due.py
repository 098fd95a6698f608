"""When a worker looks for jobs whose time has come."""

from __future__ import annotations

import time
from typing import Any

import gevent

from pepperbus.clock import SystemClock
from pepperbus.worker.due import Due


class Storage:
    """Knows of no delayed job: the retry is not settled yet."""

    def __init__(self) -> None:
        self.looks = 0

    def promote(self, topic: str, now_ms: int) -> tuple[int, int]:
        self.looks += 1
        return 0, 0


def test_a_look_before_the_retry_is_stored_does_not_forget_it() -> None:
    clock = SystemClock()
    storage: Any = Storage()
    due = Due("q/t", storage, clock, lambda: None)
    due.at(clock.now_ms() + 3_600_000)
    due.look()  # a push, before the outcome is in the storage
    end = time.monotonic() + 20
    while not storage.looks:
        assert time.monotonic() < end
        gevent.sleep(0.01)
    assert due._timer is not None, "nobody would look until the worker's sweep does, 10 s later"
    due._timer.kill()
