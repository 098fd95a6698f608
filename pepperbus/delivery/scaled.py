"""Places of a topic whose `concurrency` is a range: a word of their file says how many may be used now.

Floor 2. The ticker writes the word, the workers of the node read it; a topic with a plain number has none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pepperbus.config.model import Topic
from pepperbus.delivery.slots import Slots
from pepperbus.delivery.target import Target

_LIMIT = 15  # the last of the words


class ScaledSlots(Slots):
    """`n` places of which `limit` may be used, at first `least`."""

    def __init__(self, path: Path, least: int, most: int) -> None:
        super().__init__(path, most)
        self._least = least

    @property
    def limit(self) -> int:
        return min(max(self.words[_LIMIT], self._least), self.n)

    @limit.setter
    def limit(self, limit: int) -> None:
        self.words[_LIMIT] = limit

    @property
    def window(self) -> int:
        return min(super().window, self.limit)


class ScaledTarget(Target):
    """Places are handed on at once only while all of them may be used; else they are given back and taken again."""

    topic: ScaledSlots

    def hands_on(self) -> bool:
        return self.topic.limit == self.topic.n and super().hands_on()


def topic_slots(topic: Topic, directory: Path) -> Slots:
    """The topic's own places, in `directory` (one for each start of the bus)."""
    path = directory / f"topic-{topic.queue}~{topic.name}"
    return ScaledSlots(path, topic.least, topic.concurrency) if topic.scaled else Slots(path, topic.concurrency)


def topic_target(pool: Slots, own: Slots, needs_ping: bool) -> Target:
    """The topic's target on these places."""
    return ScaledTarget(pool, own, needs_ping) if isinstance(own, ScaledSlots) else Target(pool, own, needs_ping)


def how_many(own: Slots) -> Callable[[], int]:
    """How many of them may be used, now and whenever it is called."""
    return lambda: own.limit if isinstance(own, ScaledSlots) else own.n
