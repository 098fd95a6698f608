"""Waiting for jobs: clients that block, and who looks into the storage on their behalf.

Floor 4. However many clients wait for a topic, one look serves them all. It follows a push (of this gateway, of another: its
eventfd, of another node: the storage's word), a job that becomes due, and now and then, because resuming and replaying
are not announced. Knows the handout and the hub; nothing of RESP, sockets or logins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event

from pepperbus.errors import StorageError
from pepperbus.job import Job
from pepperbus.storage.contract import Leased

if TYPE_CHECKING:
    from pepperbus.gateway.handout import Handout, Place
    from pepperbus.gateway.neighbours import Neighbours

SWEEP_S = 0.5
_AT_A_SWEEP = 50  # topics that are looked into without a sign that there is anything
_MOST = 64  # jobs of one look
_AGAIN_S = 0.05  # until the next look for a job that was due and not to be had

#: Called once, in the hub: with jobs and where they are from, or with none when the time is over.
Receive = Callable[["Place | None", list[tuple[Leased, Job]]], None]


class Waiter:
    """A client that waits at some places for up to `n` jobs, and `seconds` long; 0 = for ever."""

    __slots__ = ("_receive", "_timer", "done", "n", "places")

    def __init__(self, places: Sequence[Place], n: int, seconds: float, receive: Receive) -> None:
        self.places = places
        self.n = n
        self.done = False
        self._receive = receive
        self._timer: Any = None
        if seconds > 0:
            self._timer = gevent.get_hub().loop.timer(seconds)
            self._timer.start(self.leave)

    def leave(self) -> None:
        """The time is over, or nothing will come any more."""
        self.receive(None, [])

    def receive(self, place: Place | None, jobs: list[tuple[Leased, Job]]) -> None:
        if not self.done:
            self.stop()
            self._receive(place, jobs)

    def stop(self) -> None:
        """Nobody is there any more to be told."""
        self.done = True
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
        for place in self.places:
            place.waiters.pop(self, None)


class Waiting:
    """All who wait at this gateway."""

    def __init__(self, handout: Handout, neighbours: Neighbours) -> None:
        self.closed = False
        self._handout = handout
        self._neighbours = neighbours
        self._needed = Event()
        self._next = 0
        gevent.spawn(self._sweep_forever)

    def begin(self) -> None:
        """There are topics to wait for; those of new queues too."""
        self._neighbours.listen(self._handout.by_queue)
        self._needed.set()

    def wait(self, waiter: Waiter, seen: Sequence[int]) -> None:
        """Let `waiter` wait at its places. `seen`: their `rings` before somebody looked in vain."""
        if self.closed:
            gevent.sleep(SWEEP_S)  # who still has jobs may stay until they are done, but not spin
            waiter.leave()
            return
        for place in waiter.places:
            place.waiters[waiter] = None
        unheard = self._neighbours.waits(True)  # a push in the moment before did not tell us
        for place, rings in zip(waiter.places, seen, strict=True):
            if unheard or place.rings != rings:
                place.ring()
            else:
                self._time(place)

    def look(self, place: Place) -> None:
        """See that somebody looks into the storage for those who wait at `place`."""
        if not place.busy:
            place.busy = True
            gevent.spawn(self._look, place)

    def _look(self, place: Place) -> None:
        try:
            while place.rung and place.waiters and not self.closed:
                place.rung = False
                wanted = min(sum(waiter.n for waiter in place.waiters), _MOST)
                jobs = self._handout.lease(place, wanted)
                place.rung |= len(jobs) == wanted
                self._hand(place, jobs)
        except StorageError:
            pass  # the next sweep looks again
        except Exception as error:  # a bug of an engine must not leave all who wait there without a look
            self._handout.front.log.error("look_failed", repr(error), topic=place.name)
        finally:
            place.busy = False
            self._time(place)

    def _hand(self, place: Place, jobs: list[tuple[Leased, Job]]) -> None:
        """First come, first served."""
        for waiter in list(place.waiters):
            if not jobs:
                return
            mine, jobs = jobs[: waiter.n], jobs[waiter.n :]
            try:
                waiter.receive(place, mine)
            except Exception as error:  # a bug with one client: the others' jobs are leased as well
                self._handout.front.log.error("not_handed_out", repr(error), topic=place.name, jobs=len(mine))
        self._handout.untake(place, jobs)

    def _time(self, place: Place) -> None:
        """Look again when the next delayed job is due."""
        if place.due_timer is not None:
            place.due_timer.stop()
            place.due_timer.close()
            place.due_timer = None
        if place.waiters and place.next_due_ms:
            seconds = (place.next_due_ms - self._handout.front.clock.now_ms()) / 1000
            if seconds <= 0:  # and yet nobody got it: the topic is paused, or its storage away
                seconds = _AGAIN_S
            place.due_timer = gevent.get_hub().loop.timer(min(seconds, 3600.0))
            place.due_timer.start(place.ring)

    def announce(self, queue: str) -> None:
        """Something was pushed to `queue` by a client of this gateway."""
        self.pushed(queue)
        self._neighbours.tell()

    def pushed(self, queue: str) -> None:
        """Something was pushed to `queue`, or may have been."""
        for place in self._handout.by_queue.get(queue, ()):
            place.ring()

    def heard(self, name: str) -> None:
        """A storage's word: a push to topic `name` on another node; "" = there may have been one."""
        if name in self._handout.places:
            self._handout.places[name].ring()

    def _sweep_forever(self) -> None:
        while not self.closed:
            self._needed.wait()
            gevent.sleep(SWEEP_S)
            try:
                self._sweep()
            except Exception as error:  # without the sweep no lease would ever end
                self._handout.front.log.error("sweep_failed", repr(error))

    def _sweep(self) -> None:
        now = self._handout.front.clock.monotonic()
        for place in self._handout.places.values():
            if late := place.group.expired(now):
                self._handout.fail(place.group.drop_all(late), f"not acknowledged within {place.topic.lease:g} s")
        for place in self._handout.places.values():
            place.show()
        awaited = [place for place in self._handout.places.values() if place.waiters]
        if not awaited:
            self._neighbours.waits(False)
        for _ in range(min(_AT_A_SWEEP, len(awaited))):
            self._next = (self._next + 1) % len(awaited)
            awaited[self._next].ring()

    def close(self) -> None:
        """Nobody waits any more: everyone is told that there is nothing."""
        self.closed = True
        self._neighbours.close()
        for place in self._handout.places.values():
            for waiter in list(place.waiters):
                waiter.leave()
