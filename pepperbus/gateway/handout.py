"""Handing out jobs to clients that come for them: leased in their name, and settled as they say.

Floor 4. Knows storages, topics and the hub; nothing of RESP, sockets or logins. Who waits for jobs is `waiting`'s, what readers
of streams have is `group`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gevent

from pepperbus.config.model import Config
from pepperbus.errors import StorageUnavailable
from pepperbus.gateway.commit import Lane
from pepperbus.gateway.neighbours import Neighbours
from pepperbus.gateway.place import Jobs, Place
from pepperbus.gateway.process import Process
from pepperbus.gateway.taken import End, Taken, forget, remember, settle_surely, surely, take
from pepperbus.gateway.waiting import Waiting
from pepperbus.job import Job
from pepperbus.stats import Writer
from pepperbus.storage.contract import Leased, Outcome, Settle

_PAUSE_KNOWN_S = 1.0  # how long what the storage said of paused topics is believed
_DUE_KNOWN_S = 1.0  # how long what it said of delayed jobs is, while jobs go out all the time
LEAVE_S = 2.0
_ASK_AGAIN_S, _MOST_MOVED = 1.0, 128  # after a claim without an answer, and how many jobs it moved at most


class Handout:
    """All topics that clients of this gateway take jobs from."""

    def __init__(self, process: Process, stats: Writer, neighbours: Neighbours) -> None:
        self.places: dict[str, Place] = {}
        self.by_queue: dict[str, list[Place]] = {}
        self.waiting = Waiting(process, self, neighbours)
        self._process = process
        self._stats = stats
        self._paused: dict[str, tuple[float, set[str]]] = {}  # storage -> when asked (monotonic s), what it said
        self._settling: set[gevent.Greenlet] = set()

    def configure(self, config: Config, lanes: Mapping[str, Lane]) -> None:
        """Follow the configuration: who waits goes on waiting, unless there is nothing left to wait for."""
        topics = {
            topic.full_name: topic for queue in config.queues.values() for topic in queue.topics.values() if topic.taken
        }
        for name in self.places.keys() - topics.keys():
            gone = self.places.pop(name)
            for waiter in list(gone.waiters):
                waiter.leave()
            self.fail(gone.group.drop_all(gone.group.expired(math.inf)), "the topic is no longer pulled")
        for name, topic in topics.items():
            lane = lanes[topic.storage]
            place = self.places.get(name)
            if place is None:
                self.places[name] = Place(topic, lane, lanes, self._stats.record(name), self.waiting.look)
            else:
                place.topic, place.lane, place.lanes, place.promoted = topic, lane, lanes, 0.0
                place.ring()
        self.by_queue = {}
        for place in self.places.values():
            self.by_queue.setdefault(place.topic.queue, []).append(place)
        if self.places:
            self.waiting.begin()

    # -- leasing -------------------------------------------------------------------------------------------------

    def lease(self, place: Place, n: int) -> Jobs:
        """Up to `n` jobs that are ready or due, and none of a paused topic. Blocks. Raises StorageError."""
        storage = _storage(place)
        if self.is_paused(place):
            return []
        if self._is_due(place):
            self._promote(place)
        try:
            found = storage.lease(place.name, n, self._process.owner)
            if not found and place.waiters and self._promote(place):
                found = storage.lease(place.name, n, self._process.owner)
        except Exception:
            self._clear_up(place)
            raise
        return self._whole(place, found)

    def settle_and_lease(self, place: Place, n: int, ends: Sequence[Settle]) -> Jobs | None:
        """`ends` first, then `lease`, in one trip where it can be. Raises StorageError when `ends` were not stored.

        None: they were, but the storage could not be asked for more.
        """
        storage, owner = _storage(place), self._process.owner
        if self.is_paused(place):
            storage.settle(owner, ends)
            return []
        if self._is_due(place):
            self._promote(place)
        try:
            found = storage.settle_and_lease(owner, ends, place.name, n)[1]
        except Exception:
            self._clear_up(place)
            raise
        if found is None:
            self._clear_up(place)
        return None if found is None else self._whole(place, found)

    def _clear_up(self, place: Place) -> None:
        """A claim without an answer may have moved jobs that nobody knows of, and whoever asked may go to another gateway."""
        if not place.doubted:
            place.doubted = True
            gevent.spawn(self._ask_again, place)

    def _ask_again(self, place: Place) -> None:
        while not place.lane.closed:
            gevent.sleep(_ASK_AGAIN_S)
            try:
                found = place.lane.storage.lease(place.name, _MOST_MOVED, self._process.owner)
            except Exception:  # as for everybody; it has been told
                continue
            place.doubted = False
            self.untake(place, self._whole(place, found))
            return

    def _is_due(self, place: Place) -> bool:
        clock = self._process.clock
        known = clock.monotonic() - place.promoted < _DUE_KNOWN_S
        return not known or 0 < place.next_due_ms <= clock.now_ms()

    def _promote(self, place: Place) -> int:
        place.promoted = self._process.clock.monotonic()
        moved, place.next_due_ms = place.lane.storage.promote(place.name, self._process.clock.now_ms())
        return int(moved)

    def _whole(self, place: Place, found: list[Leased]) -> Jobs:
        """The jobs themselves; bytes that are no job are kept as dead, never dropped."""
        whole, dead = [], []
        for leased in found:
            try:
                whole.append((leased, Job.decode(leased.body)))
            except ValueError:
                reason = "stored bytes are damaged"
                dead.append(Settle(leased.topic, leased.job_id, Outcome.DEAD, reason=reason, spent=False))
        if dead:
            self._process.log.error("job_damaged", topic=place.name, jobs=len(dead))
            self._keep(gevent.spawn(self._store, place, place.lane.config.name, dead))
        return whole

    def look_again(self, name: str) -> None:
        """What was known of topic `name` is out of date."""
        self._paused.clear()
        if (place := self.places.get(name)) is not None:
            place.promoted = 0.0
            place.ring()

    def is_paused(self, place: Place) -> bool:
        """By its file or by an operator; the storage is asked once a second at most. Blocks."""
        if place.topic.paused:
            return True
        lane, now = place.lane, self._process.clock.monotonic()
        asked, paused = self._paused.get(lane.config.name, (-_PAUSE_KNOWN_S, set()))
        if now - asked >= _PAUSE_KNOWN_S:
            self._paused[lane.config.name] = now, paused  # others need not ask meanwhile
            paused = lane.storage.paused()
            self._paused[lane.config.name] = now, paused
        return place.name in paused

    def take(self, place: Place, jobs: Jobs, client: str) -> list[Taken]:
        """They are `client`'s now."""
        return [take(self._process, place, leased, job, client) for leased, job in jobs]

    def untake(self, place: Place, jobs: Jobs) -> None:
        """Nobody got them after all."""
        settles = [Settle(place.name, leased.job_id, Outcome.BACK, spent=False) for leased, _ in jobs]
        if settles:
            self._keep(gevent.spawn(self._store, place, place.lane.config.name, settles))

    def _store(self, place: Place, storage: str, settles: list[Settle]) -> None:
        def store(lane: Lane, settles: list[Settle]) -> None:
            lane.storage.settle(self._process.owner, settles)
            place.ring()

        def give_up(settle: Settle, why: str) -> None:
            self._process.log.error("settle_gave_up", why, topic=settle.topic, job=settle.job_id)

        surely(self._process, settles, lambda: place.lane_of(storage), store, give_up)

    def end(self, taken: Sequence[Taken], reason: str) -> None:
        """They were done; stored soon and surely."""
        self._settle(taken, lambda one: one.done(), reason)

    def fail(self, taken: Sequence[Taken], reason: str) -> None:
        """Whoever had them is gone or took too long: tried again by the topic's schedule."""
        now_ms = self._process.clock.now_ms()
        self._settle(taken, lambda one: one.failed(reason, now_ms), reason)

    def _settle(self, taken: Sequence[Taken], fate: Callable[[Taken], Settle], reason: str) -> None:
        by_storage: dict[str, list[End]] = {}
        for one in taken:
            by_storage.setdefault(one.storage, []).append((one, fate(one), reason))
        for ends in by_storage.values():
            self._keep(gevent.spawn(settle_surely, self._process, ends))

    def _keep(self, greenlet: gevent.Greenlet) -> None:
        self._settling.add(greenlet)
        greenlet.rawlink(self._settling.discard)

    def forget(self, place: Place, jobs: Sequence[int]) -> None:
        """Another gateway was told that they are done, and has written that down."""
        for pending in filter(None, map(place.group.drop, jobs)):
            forget(pending.taken)

    def remember_done(self, taken: Sequence[Taken]) -> None:
        """The storage has their `done`."""
        for one in taken:
            remember(self._process, one, one.done(), f"taken by {one.client}")

    def leave(self) -> None:
        """Give back what readers have still not acknowledged; what is given back is stored, as far as that is quick."""
        for place in self.places.values():
            if left := place.group.expired(math.inf):
                self.fail(place.group.drop_all(left), "not acknowledged when the gateway left")
        gevent.joinall(list(self._settling), timeout=LEAVE_S)


def _storage(place: Place) -> Any:
    """Raises StorageUnavailable while it is not open."""
    if place.lane.trouble:
        raise StorageUnavailable(place.lane.trouble)
    return place.lane.storage
