"""Who waits for jobs costs little while there are none to be had."""

from __future__ import annotations

import time

import gevent

from pepperbus.clock import SystemClock
from pepperbus.config.model import Topic
from pepperbus.gateway.place import Place, Waiter
from pepperbus.gateway.waiting import Waiting


class Handout:
    """A topic that gives nothing (it is paused, or its storage is away) although a job is due."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.log = self
        self.places: dict[str, Place] = {}
        self.by_queue: dict[str, list[Place]] = {}
        self.looks = 0
        self.waiting = Waiting(self, self, self)

        self.ready: list = []
        self.given_back: list = []
        self.errors: list[tuple] = []

    def lease(self, place: Place, n: int) -> list:
        self.looks += 1
        jobs, self.ready = self.ready, []
        return jobs

    def untake(self, place: Place, jobs: list) -> None:
        self.given_back += jobs

    def error(self, *words: object, **facts: object) -> None:
        self.errors.append(words)

    def waits(self, waits: bool) -> bool:
        return False

    def close(self) -> None:
        pass


class Record:
    def set(self, name: str, value: int) -> None:
        pass


def test_a_due_job_that_nobody_may_have_makes_nobody_spin() -> None:
    handout = Handout()
    place = Place(Topic("mail", "t", storage="local", run="pull"), None, {}, Record(), handout.waiting.look)
    handout.places["mail/t"] = place
    place.next_due_ms = handout.clock.now_ms() - 60_000
    told: list[object] = []
    waiter = Waiter([place], 1, 0.0, lambda where, jobs: told.append(where))
    handout.waiting.wait(waiter, [place.rings])
    end = time.monotonic() + 20
    while not handout.looks:
        assert time.monotonic() < end
        gevent.sleep(0.01)
    gevent.sleep(1.0)
    assert handout.looks < 40
    handout.waiting.close()
    assert told == [None]


def test_a_bug_with_one_client_keeps_no_job_from_the_others() -> None:
    handout = Handout()
    place = Place(Topic("mail", "t", storage="local", run="pull"), None, {}, Record(), handout.waiting.look)
    handout.ready = ["first", "second", "third"]
    told: list[object] = []

    def fails(where: object, jobs: list) -> None:
        raise RuntimeError("a bug of ours")

    for receive in (fails, lambda where, jobs: told.extend(jobs)):
        handout.waiting.wait(Waiter([place], 1, 0.0, receive), [place.rings])
    place.ring()
    end = time.monotonic() + 20
    while not handout.given_back:
        assert time.monotonic() < end
        gevent.sleep(0.01)
    assert (told, handout.given_back) == (["second"], ["third"])
    assert handout.errors
    handout.waiting.close()
