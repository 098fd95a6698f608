"""One topic that clients take jobs from: what is known of it here, who has some, and who waits for more.

Floor 4. Knows no RESP, no login and no storage; `waiting` looks into the storage for those who wait, `handout` leases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gevent

from pepperbus.config.model import Topic
from pepperbus.gateway.commit import Lane
from pepperbus.gateway.group import Group
from pepperbus.job import Job
from pepperbus.stats import Record
from pepperbus.storage.contract import Leased, Outcome, Settle

_SERVING = 1  # the `state` gauge of a topic whose consumers are there

Jobs = list[tuple[Leased, Job]]
#: Called once, in the hub: with jobs and where they are from, or with none when the time is over.
Receive = Callable[["Place | None", Jobs], None]


class Place:
    """One topic that clients take jobs from."""

    __slots__ = (
        "_look",
        "busy",
        "doubted",
        "due_timer",
        "group",
        "in_hand",
        "lane",
        "lanes",
        "name",
        "next_due_ms",
        "promoted",
        "record",
        "rings",
        "rung",
        "topic",
        "waiters",
    )

    def __init__(
        self, topic: Topic, lane: Lane, lanes: Mapping[str, Lane], record: Record, look: Callable[[Place], None]
    ) -> None:
        """`look(self)` is called when there may be jobs and somebody waits for them."""
        self._look = look
        self.name = topic.full_name
        self.topic = topic
        self.lane = lane
        self.lanes = lanes  # of every storage there is
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
            self._look(self)

    def lane_of(self, storage: str) -> Lane:
        """The way to a storage that jobs of this topic were taken from; it may lie in another one by now."""
        return self.lanes.get(storage, self.lane)

    def show(self) -> None:
        """For the status: whether anybody is there for its jobs."""
        self.record.set("state", _SERVING if self.waiters or self.in_hand else 0)

    def given_back(self, settle: Settle) -> None:
        """The storage has taken `settle`: others may want what it gave back."""
        if settle.outcome in (Outcome.BACK, Outcome.RETRY):
            self.promoted = 0.0
            self.ring()


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

    def receive(self, place: Place | None, jobs: Jobs) -> None:
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
