"""What a key means: the configuration turned into look-ups, built anew for each accepted configuration.

Knows the configuration's model and `route`; nothing of connections. A `Routes` is never changed: sessions hold
on to what they looked up and see by identity that it is out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pepperbus.config.model import Config, Queue, Topic
from pepperbus.family.bell import Bell
from pepperbus.gateway.commit import Lane
from pepperbus.gateway.express import Express
from pepperbus.gateway.route import QueueRoute, Target
from pepperbus.names import JSON_KEY
from pepperbus.stats import Writer
from pepperbus.wire import plain_push

MAX_KEYS = 10_000  # remembered key spellings; what follows the slash is the client's to choose


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
