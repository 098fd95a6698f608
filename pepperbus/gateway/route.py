"""One queue as its pushes find it, and what one key means. Both good for one configuration.

Floor 4. Knows the configuration's model, the ways into the storages and the statistics; no connection and no other queue.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pepperbus.config.model import Queue
from pepperbus.config.sameness import rules
from pepperbus.family.bell import Bell
from pepperbus.gateway.commit import Lane
from pepperbus.stats import Record, Writer
from pepperbus.storage.contract import LEVELS


class QueueRoute:
    """One queue: where its jobs go, what limits hold, where it is counted, whom to wake."""

    __slots__ = (
        "_ready",
        "_takers",
        "_topics",
        "_wake",
        "announce",
        "bell",
        "lanes",
        "limits",
        "name",
        "queue",
        "record",
        "simple",
        "topic_names",
        "unique",
    )

    def __init__(
        self, queue: Queue, lanes: Mapping[str, Lane], stats: Writer, wake: int, bell: Bell | None = None
    ) -> None:
        self.queue = queue
        self.name = queue.name
        takers = queue.takers
        by_storage: dict[str, list[str]] = {}
        for topic in takers:
            by_storage.setdefault(topic.storage or queue.storage, []).append(topic.full_name)
        self.lanes = tuple((lanes[storage], tuple(names)) for storage, names in by_storage.items())
        self.topic_names = tuple(topic.full_name for topic in queue.topics.values())
        self.limits = {topic.full_name: topic.max_length for topic in takers if topic.max_length}
        wanted = any(topic.unique for topic in takers)
        self.unique = tuple(rules(queue, names) for _, names in self.lanes) if wanted else ()  # of each lane
        self.simple = len(self.lanes) == 1 and not self.limits and not self.unique  # what `express` can carry
        self.record: Record = stats.record(queue.name)
        self._topics = {name: stats.record(name) for name in self.topic_names}
        self._takers = [self._topics[topic.full_name] for topic in takers]
        self._wake = wake
        self.bell = bell
        self.announce: Callable[[str], None] | None = None  # when clients of gateways take from it
        self._ready = False

    @property
    def trouble(self) -> str:
        """The refusal while this queue's storages cannot take its jobs as configured; "" when they can."""
        return "" if self._ready else self._look()

    def _look(self) -> str:
        if self.queue.closed != "no":
            return f"queue {self.name} is closed: it takes no jobs any more"
        if not self.lanes:
            return f"queue {self.name} takes no jobs any more: all its topics are closed"
        wanted = LEVELS.index(self.queue.durability)
        for lane, _ in self.lanes:
            if lane.trouble:
                return f"storage unavailable: {lane.trouble}" if lane.refused else "storage unavailable"
            level = lane.storage.durability
            if LEVELS.index(level) < wanted:
                lane.ask_again()
                lines = "; ".join(lane.storage.advice(self.queue.durability).splitlines())
                return (
                    f"storage unavailable: {lane.config.name} gives durability {level}, "
                    f"the queue asks for {self.queue.durability}: {lines}"
                )
        self._ready = True
        return ""

    def count_stored(self, jobs: int, seconds: float) -> None:
        self.record.add("pushed", jobs)
        self.record.observe("push", seconds, jobs)
        for record in self._takers:
            record.add("pushed", jobs)

    def count_failed(self, jobs: int, *, unknown: bool) -> None:
        self.record.add("unknown" if unknown else "refused", jobs)

    def count_popped(self, topic: str) -> None:
        self._topics[topic].add("popped")

    def wake(self) -> None:
        """Tell the workers of this queue's group; a full or closed eventfd is theirs to mind."""
        if self.bell is not None:
            self.bell.ring(self.name)
        if self._wake >= 0:
            try:
                os.eventfd_write(self._wake, 1)
            except OSError:
                pass
        if self.announce is not None:
            self.announce(self.name)


@dataclass(frozen=True, slots=True)
class Target:
    """What one key means. `route` None: no such queue. `bare`: without a slash. `plain`: Redis' own answers."""

    key: str
    queue: str
    topic: str
    route: QueueRoute | None
    bare: bool
    plain: bool
    old_error: bool = False  # a key the Go system could not parse, and this queue still says so
