"""Who waits for jobs costs little while there are none to be had."""

from __future__ import annotations

import gevent

from pepperbus.clock import SystemClock
from pepperbus.config.model import Topic
from pepperbus.gateway.handout import Place
from pepperbus.gateway.waiting import Waiter, Waiting


class Handout:
    """A topic that gives nothing (it is paused, or its storage is away) although a job is due."""

    def __init__(self) -> None:
        self.front = self
        self.clock = SystemClock()
        self.log = self
        self.places: dict[str, Place] = {}
        self.by_queue: dict[str, list[Place]] = {}
        self.looks = 0
        self.waiting = Waiting(self, self)

    def lease(self, place: Place, n: int) -> list:
        self.looks += 1
        return []

    def untake(self, place: Place, jobs: list) -> None:
        assert not jobs

    def waits(self, waits: bool) -> bool:
        return False

    def close(self) -> None:
        pass


class Record:
    def set(self, name: str, value: int) -> None:
        pass


def test_a_due_job_that_nobody_may_have_makes_nobody_spin() -> None:
    handout = Handout()
    place = Place(handout, Topic("mail", "t", storage="local", run="pull"), None, Record())
    handout.places["mail/t"] = place
    place.next_due_ms = handout.clock.now_ms() - 60_000
    told: list[object] = []
    waiter = Waiter([place], 1, 0.0, lambda where, jobs: told.append(where))
    handout.waiting.wait(waiter, [place.rings])
    gevent.sleep(1.0)
    assert 0 < handout.looks < 40
    handout.waiting.close()
    assert told == [None]
