"""What a key means: the configuration turned into look-ups, built anew for each accepted configuration.

Knows the configuration's model and the statistics; nothing of connections. A `Routes` is never changed: sessions hold
on to what they looked up and see by identity that it is out of date.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pepperbus.config.model import Config, Queue, Topic
from pepperbus.config.sameness import rules
from pepperbus.family.bell import Bell
from pepperbus.gateway.express import Express
from pepperbus.names import JSON_KEY
from pepperbus.stats import Record, Writer
from pepperbus.storage.contract import LEVELS
from pepperbus.wire import plain_push

if TYPE_CHECKING:
    from pepperbus.gateway.commit import Lane

MAX_KEYS = 10_000  # remembered key spellings; what follows the slash is the client's to choose


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


@dataclass(eq=False)
class Routes:
    """All queues of one configuration."""

    config: Config
    queues: dict[str, QueueRoute]
    lanes: Mapping[str, Lane]
    _aliases: dict[str, QueueRoute] = field(default_factory=dict)
    _keys: dict[bytes, Target] = field(default_factory=dict)
    _express: dict[bytes, Express] = field(default_factory=dict)
    #: Whether a client from this host may find a queue that needs no login.
    any_open: bool = False

    @classmethod
    def build(
        cls,
        config: Config,
        lanes: Mapping[str, Lane],
        stats: Writer,
        wakes: Mapping[str, int],
        announce: Callable[[str], None] | None = None,
    ) -> Routes:
        bell = Bell(config.bus.run_dir)
        queues = {}
        for queue in config.queues.values():
            fed = any(
                config.consumes(topic) for topic in queue.topics.values()
            )  # else no worker here waits for its jobs
            wake = wakes.get(queue.group, -1) if fed else -1
            taken = announce is not None and any(topic.taken for topic in queue.topics.values())
            route = queues[queue.name] = QueueRoute(queue, lanes, stats, wake, bell if fed or taken else None)
            route.announce = announce if taken else None
        aliases = {key: queues[q.name] for q in config.queues.values() for key in q.keys}
        return cls(config, queues, lanes, aliases, any_open=any(q.open for q in config.queues.values()))

    def target(self, key: bytes) -> Target:
        found = self._keys.get(key)
        if found is None:
            if len(self._keys) >= MAX_KEYS:
                self._keys.clear()
            found = self._keys[key] = self._resolve(key.decode(errors="replace"))
        return found

    def _resolve(self, key: str) -> Target:
        route = self._aliases.get(key)
        if route is not None:
            return Target(key, route.name, "", route, True, route.queue.reply != "json")
        queue, slash, topic = key.partition("/")
        route = self.queues.get(queue)
        if slash:
            plain = route is not None and route.queue.reply == "redis" and topic != JSON_KEY
            return Target(key, queue, topic, route, False, plain)
        if route is not None:
            json = route.queue.reply == "json"
            return Target(key, queue, "", route, True, not json, json)
        return Target(key, queue, "", None, True, not self.speaks_json, self.speaks_json)

    def express(self, verb: bytes, key: bytes, target: Target) -> Express:
        """The quick way of plain pushes to `key`, as this client spells them. `target`: what the key means."""
        head = plain_push.head_of(verb, key)
        found = self._express.get(head)
        if found is None:
            if len(self._express) >= MAX_KEYS:
                self._express.clear()
            assert target.route is not None
            found = self._express[head] = Express(head, self, target, target.route)
        return found

    def express_for(self, data: bytes) -> Express | None:
        """The quick way for the push that `data` begins with, if there is one already."""
        return self._express.get(plain_push.head_in(data))

    @property
    def speaks_json(self) -> bool:
        """Whether every queue is in `reply = json`: then a bare key nobody knows gets the old error as well."""
        return all(route.queue.reply == "json" for route in self.queues.values())

    def topic(self, target: Target) -> Topic | None:
        return target.route.queue.topics.get(target.topic) if target.route is not None else None

    def lane(self, topic: Topic, queue: Queue) -> Lane:
        return self.lanes[topic.storage or queue.storage]
