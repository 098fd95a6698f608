"""The places of one worker's topics: how many attempts at once, shared with the other workers of the node.

Floor 4. The files are new for every start of the bus, so nothing of an earlier one is taken for true.
"""

from __future__ import annotations

from pathlib import Path

from pepperbus.config.model import Config, Topic
from pepperbus.delivery.scaled import topic_slots
from pepperbus.delivery.slots import Slots


class Places:
    """`directory`: where they lie, and whatever else workers share by the start of the bus."""

    def __init__(self, config: Config, directory: Path) -> None:
        self.directory = directory
        self._config = config
        self._pools: dict[str, Slots] = {}
        self._topics: list[Slots] = []

    def of(self, topic: Topic) -> tuple[Slots, Slots]:
        """The pool's places (shared by its topics) and the topic's own."""
        own = topic_slots(topic, self.directory)
        self._topics.append(own)
        return (self.pool(topic.pool) if topic.run == "fastcgi" else own), own

    def pool(self, name: str) -> Slots:
        """Those of a php-fpm pool."""
        if name not in self._pools:
            self._pools[name] = Slots(self.directory / f"pool-{name}", self._config.pools[name].max_connections)
        return self._pools[name]

    def cool(self) -> None:
        """Give up what is kept warm, also while others are used: their jobs may run for an hour, and somebody wants these."""
        for slots in (*self._pools.values(), *self._topics):
            slots.cool()
