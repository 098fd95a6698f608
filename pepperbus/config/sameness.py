"""`unique`: what makes two jobs of a queue the same, as a name that one of them holds in a storage.

Floor 1. Knows options and bytes; who stores names is the storage's affair, who asks is the gateway, and the ticker while a
topic moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from pepperbus.config.joboptions import CONTENT, value_at
from pepperbus.config.model import Queue

#: A name without a time of its own is held so long at most, whatever its job does (ms).
HELD_MS = 30 * 86_400_000


class Rule:
    """What makes two jobs the same for some topics of one storage.

    Its names do not say which topics those are: a topic that comes or goes must not make the others forget what they have.
    """

    __slots__ = ("_path", "alive", "before", "topics", "ttl_ms")

    def __init__(self, path: str, window: float, queue: str, storage: str, topics: tuple[str, ...]) -> None:
        """`path` and `window` as in `Unique`."""
        self.topics = topics
        self._path = [] if path == CONTENT else path.split(".")
        self.ttl_ms = int(window * 1000) or HELD_MS
        self.alive = not window
        self.before = f"unique/{queue}/{_digest(f'{path} {window} {storage}'.encode())}/"

    def name(self, content: bytes) -> str:
        """What the job claims; "" when it is like no other: it has no such field."""
        if not self._path:
            return self.before + _digest(content)
        value = value_at(content, self._path)
        return self.before + _digest(value) if value else ""


def rules(queue: Queue, topics: Sequence[str]) -> tuple[Rule, ...]:
    """The rules for those topics (full names), which lie in one storage."""
    groups: dict[tuple[str, float, str], list[str]] = {}  # two that differ in spelling alone are one
    for topic in queue.topics.values():
        if topic.unique and topic.full_name in topics:
            key = topic.unique.path, topic.unique.window, topic.storage
            groups.setdefault(key, []).append(topic.full_name)
    return tuple(
        Rule(path, window, queue.name, storage, tuple(names)) for (path, window, storage), names in groups.items()
    )


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
