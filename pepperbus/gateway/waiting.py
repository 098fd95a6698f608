"""Waiting for jobs: clients that block, and who looks into the storage on their behalf.

Floor 4. However many clients wait for a topic, one look serves them all. It follows a push (of this gateway, of another: its
eventfd, of another node: the storage's word), a job that becomes due, and now and then, because resuming and replaying
are not announced. Knows the hub and who supplies the jobs; nothing of RESP, sockets or logins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import gevent
from gevent.event import Event

from pepperbus.errors import StorageError
from pepperbus.gateway.neighbours import Neighbours
from pepperbus.gateway.place import Jobs, Place, Waiter
from pepperbus.gateway.process import Process
from pepperbus.gateway.taken import Taken

SWEEP_S = 0.5
_AT_A_SWEEP = 50  # topics that are looked into without a sign that there is anything
_MOST = 64  # jobs of one look
_AGAIN_S = 0.05  # until the next look for a job that was due and not to be had


class Supply(Protocol):
    """What is waited for: the topics, and how their jobs come here and go back. `Handout` is that."""

    places: dict[str, Place]
    by_queue: dict[str, list[Place]]

    def lease(self, place: Place, n: int) -> Jobs: ...
    def untake(self, place: Place, jobs: Jobs) -> None: ...
    def fail(self, taken: Sequence[Taken], reason: str) -> None: ...


class Waiting:
    """All who wait at this gateway."""

    def __init__(self, process: Process, supply: Supply, neighbours: Neighbours) -> None:
        self.closed = False
        self._process = process
        self._supply = supply
        self._neighbours = neighbours
        self._needed = Event()
        self._next = 0
        gevent.spawn(self._sweep_forever)

    def begin(self) -> None:
        """There are topics to wait for; those of new queues too."""
        self._neighbours.listen(self._supply.by_queue)
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
                jobs = self._supply.lease(place, wanted)
                place.rung |= len(jobs) == wanted
                self._hand(place, jobs)
        except StorageError:
            pass  # the next sweep looks again
        except Exception as error:  # a bug of an engine must not leave all who wait there without a look
            self._process.log.error("look_failed", repr(error), topic=place.name)
        finally:
            place.busy = False
            self._time(place)

    def _hand(self, place: Place, jobs: Jobs) -> None:
        """First come, first served."""
        for waiter in list(place.waiters):
            if not jobs:
                return
            mine, jobs = jobs[: waiter.n], jobs[waiter.n :]
            try:
                waiter.receive(place, mine)
            except Exception as error:  # a bug with one client: the others' jobs are leased as well
                self._process.log.error("not_handed_out", repr(error), topic=place.name, jobs=len(mine))
        self._supply.untake(place, jobs)

    def _time(self, place: Place) -> None:
        """Look again when the next delayed job is due."""
        if place.due_timer is not None:
            place.due_timer.stop()
            place.due_timer.close()
            place.due_timer = None
        if place.waiters and place.next_due_ms:
            seconds = (place.next_due_ms - self._process.clock.now_ms()) / 1000
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
        for place in self._supply.by_queue.get(queue, ()):
            place.ring()

    def heard(self, name: str) -> None:
        """A storage's word: a push to topic `name` on another node; "" = there may have been one."""
        if name in self._supply.places:
            self._supply.places[name].ring()

    def _sweep_forever(self) -> None:
        while not self.closed:
            self._needed.wait()
            gevent.sleep(SWEEP_S)
            try:
                self._sweep()
            except Exception as error:  # without the sweep no lease would ever end
                self._process.log.error("sweep_failed", repr(error))

    def _sweep(self) -> None:
        now = self._process.clock.monotonic()
        for place in self._supply.places.values():
            if late := place.group.expired(now):
                self._supply.fail(place.group.drop_all(late), f"not acknowledged within {place.topic.lease:g} s")
        for place in self._supply.places.values():
            place.show()
        awaited = [place for place in self._supply.places.values() if place.waiters]
        if not awaited:
            self._neighbours.waits(False)
        for _ in range(min(_AT_A_SWEEP, len(awaited))):
            self._next = (self._next + 1) % len(awaited)
            awaited[self._next].ring()

    def close(self) -> None:
        """Nobody waits any more: everyone is told that there is nothing."""
        self.closed = True
        self._neighbours.close()
        for place in self._supply.places.values():
            for waiter in list(place.waiters):
                waiter.leave()
