"""Handing out jobs to clients that come for them: leased in their name, and settled as they say.

Floor 4. Knows storages, topics and the hub; nothing of RESP, sockets or logins. Who waits for jobs is `waiting`'s, what readers
of streams have is `group`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gevent

from pepperbus.config.model import Topic
from pepperbus.errors import StorageUnavailable
from pepperbus.gateway.group import Group
from pepperbus.gateway.taken import End, Taken, forget, remember, settle_surely, surely, take
from pepperbus.gateway.waiting import Waiter, Waiting
from pepperbus.job import Job
from pepperbus.stats import Record, Writer
from pepperbus.storage.contract import Leased, Outcome, Settle

if TYPE_CHECKING:
    from pepperbus.gateway.commit import Lane
    from pepperbus.gateway.neighbours import Neighbours
    from pepperbus.gateway.session import Front

_PAUSE_KNOWN_S = 1.0  # how long what the storage said of paused topics is believed
_DUE_KNOWN_S = 1.0  # how long what it said of delayed jobs is, while jobs go out all the time
LEAVE_S = 2.0
_ASK_AGAIN_S, _MOST_MOVED = 1.0, 128  # after a claim without an answer, and how many jobs it moved at most
_SERVING = 1  # the `state` gauge of a topic whose consumers are there


class Place:
    """One topic that clients take jobs from."""

    __slots__ = (
        "_handout",
        "busy",
        "doubted",
        "due_timer",
        "group",
        "in_hand",
        "lane",
        "name",
        "next_due_ms",
        "promoted",
        "record",
        "rings",
        "rung",
        "topic",
        "waiters",
    )

    def __init__(self, handout: Handout, topic: Topic, lane: Lane, record: Record) -> None:
        self._handout = handout
        self.name = topic.full_name
        self.topic = topic
        self.lane = lane
        self.record = record
        self.group = Group()  # of those who read it as a stream
        self.in_hand = 0  # jobs that clients have
        self.waiters: dict[Waiter, None] = {}
        self.rings = 0  # signs so far that there may be jobs
        self.rung = False  # one of them has not been followed
        self.busy = False  # somebody looks
        self.doubted = False  # a claim had no answer, and somebody asks until there is one
        self.promoted = 0.0  # monotonic s; when delayed jobs were last looked at
        self.next_due_ms = 0
        self.due_timer: Any = None

    def ring(self) -> None:
        """There may be jobs."""
        self.rings += 1
        if self.waiters:
            self.rung = True
            self._handout.waiting.look(self)

    def lane_of(self, storage: str) -> Lane:
        """The way to a storage that jobs of this topic were taken from; it may lie in another one by now."""
        return self._handout.lanes.get(storage, self.lane)

    def show(self) -> None:
        """For the status: whether anybody is there for its jobs."""
        self.record.set("state", _SERVING if self.waiters or self.in_hand else 0)

    def given_back(self, settle: Settle) -> None:
        """The storage has taken `settle`: others may want what it gave back."""
        if settle.outcome in (Outcome.BACK, Outcome.RETRY):
            self.promoted = 0.0
            self.ring()


class Handout:
    """All topics that clients of this gateway take jobs from."""

    def __init__(self, stats: Writer, neighbours: Neighbours) -> None:
        self.front: Front  # whose part this is; set once it is there
        self.places: dict[str, Place] = {}
        self.by_queue: dict[str, list[Place]] = {}
        self.lanes: Mapping[str, Lane] = {}  # of every storage there is
        self.waiting = Waiting(self, neighbours)
        self._stats = stats
        self._paused: dict[str, tuple[float, set[str]]] = {}  # storage -> when asked (monotonic s), what it said
        self._settling: set[gevent.Greenlet] = set()

    def configure(self, lanes: Mapping[str, Lane]) -> None:
        """Follow the front's configuration: who waits goes on waiting, unless there is nothing left to wait for."""
        topics = {
            topic.full_name: topic
            for queue in self.front.routes.queues.values()
            for topic in queue.queue.topics.values()
            if topic.taken
        }
        self.lanes = lanes
        for name in self.places.keys() - topics.keys():
            gone = self.places.pop(name)
            for waiter in list(gone.waiters):
                waiter.leave()
            self.fail(gone.group.drop_all(gone.group.expired(math.inf)), "the topic is no longer pulled")
        for name, topic in topics.items():
            lane = lanes[topic.storage]
            place = self.places.get(name)
            if place is None:
                self.places[name] = Place(self, topic, lane, self._stats.record(name))
            else:
                place.topic, place.lane, place.promoted = topic, lane, 0.0
                place.ring()
        self.by_queue = {}
        for place in self.places.values():
            self.by_queue.setdefault(place.topic.queue, []).append(place)
        if self.places:
            self.waiting.begin()

    # -- leasing -------------------------------------------------------------------------------------------------

    def lease(self, place: Place, n: int) -> list[tuple[Leased, Job]]:
        """Up to `n` jobs that are ready or due, and none of a paused topic. Blocks. Raises StorageError."""
        storage = _storage(place)
        if self.is_paused(place):
            return []
        if self._is_due(place):
            self._promote(place)
        try:
            found = storage.lease(place.name, n, self.front.owner)
            if not found and place.waiters and self._promote(place):
                found = storage.lease(place.name, n, self.front.owner)
        except Exception:
            self._clear_up(place)
            raise
        return self._whole(place, found)

    def settle_and_lease(self, place: Place, n: int, ends: Sequence[Settle]) -> list[tuple[Leased, Job]] | None:
        """`ends` first, then `lease`, in one trip where it can be. Raises StorageError when `ends` were not stored.

        None: they were, but the storage could not be asked for more.
        """
        storage, owner = _storage(place), self.front.owner
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
                found = place.lane.storage.lease(place.name, _MOST_MOVED, self.front.owner)
            except Exception:  # as for everybody; it has been told
                continue
            place.doubted = False
            self.untake(place, self._whole(place, found))
            return

    def _is_due(self, place: Place) -> bool:
        clock = self.front.clock
        known = clock.monotonic() - place.promoted < _DUE_KNOWN_S
        return not known or 0 < place.next_due_ms <= clock.now_ms()

    def _promote(self, place: Place) -> int:
        place.promoted = self.front.clock.monotonic()
        moved, place.next_due_ms = place.lane.storage.promote(place.name, self.front.clock.now_ms())
        return int(moved)

    def _whole(self, place: Place, found: list[Leased]) -> list[tuple[Leased, Job]]:
        """The jobs themselves; bytes that are no job are kept as dead, never dropped."""
        whole, dead = [], []
        for leased in found:
            try:
                whole.append((leased, Job.decode(leased.body)))
            except ValueError:
                reason = "stored bytes are damaged"
                dead.append(Settle(leased.topic, leased.job_id, Outcome.DEAD, reason=reason, spent=False))
        if dead:
            self.front.log.error("job_damaged", topic=place.name, jobs=len(dead))
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
        lane, now = place.lane, self.front.clock.monotonic()
        asked, paused = self._paused.get(lane.config.name, (-_PAUSE_KNOWN_S, set()))
        if now - asked >= _PAUSE_KNOWN_S:
            self._paused[lane.config.name] = now, paused  # others need not ask meanwhile
            paused = lane.storage.paused()
            self._paused[lane.config.name] = now, paused
        return place.name in paused

    def take(self, place: Place, jobs: list[tuple[Leased, Job]], client: str) -> list[Taken]:
        """They are `client`'s now."""
        return [take(self.front, place, leased, job, client) for leased, job in jobs]

    def untake(self, place: Place, jobs: list[tuple[Leased, Job]]) -> None:
        """Nobody got them after all."""
        settles = [Settle(place.name, leased.job_id, Outcome.BACK, spent=False) for leased, _ in jobs]
        if settles:
            self._keep(gevent.spawn(self._store, place, place.lane.config.name, settles))

    def _store(self, place: Place, storage: str, settles: list[Settle]) -> None:
        def store(lane: Lane, settles: list[Settle]) -> None:
            lane.storage.settle(self.front.owner, settles)
            place.ring()

        def give_up(settle: Settle, why: str) -> None:
            self.front.log.error("settle_gave_up", why, topic=settle.topic, job=settle.job_id)

        surely(self.front, settles, lambda: place.lane_of(storage), store, give_up)

    def end(self, taken: Sequence[Taken], reason: str) -> None:
        """They were done; stored soon and surely."""
        self._settle(taken, lambda one: one.done(), reason)

    def fail(self, taken: Sequence[Taken], reason: str) -> None:
        """Whoever had them is gone or took too long: tried again by the topic's schedule."""
        now_ms = self.front.clock.now_ms()
        self._settle(taken, lambda one: one.failed(reason, now_ms), reason)

    def _settle(self, taken: Sequence[Taken], fate: Callable[[Taken], Settle], reason: str) -> None:
        by_storage: dict[str, list[End]] = {}
        for one in taken:
            by_storage.setdefault(one.storage, []).append((one, fate(one), reason))
        for ends in by_storage.values():
            self._keep(gevent.spawn(settle_surely, self.front, ends))

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
            remember(self.front, one, one.done(), f"taken by {one.client}")

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
