"""Tells the other nodes how long jobs waited and ran here in the last minute. Floor 4.

Fed with the blocks that history.py makes anyway, every ten seconds. A storage that no other node shares hears nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from pepperbus.config.model import Config
from pepperbus.errors import StorageError
from pepperbus.journal.samples import BLOCK_S, Sample
from pepperbus.nodes import paces
from pepperbus.nodes.paces import Pace
from pepperbus.storage.contract import Storage

_BLOCKS = 60 // BLOCK_S


class Teller:
    """The last minute of one node, block by block."""

    def __init__(self, config: Callable[[], Config], storages: Mapping[str, Storage]) -> None:
        self._config = config
        self._storages = storages
        self._blocks: deque[dict[str, Sample]] = deque(maxlen=_BLOCKS)
        self._left: dict[str, str] = {}  # storage -> what lies there of us

    def take(self, rows: Iterable[tuple[str, Sample]]) -> None:
        """Another block is over: tell it. A storage that does not answer is told of the next one."""
        self._blocks.append({name: sample for name, sample in rows if sample.wait or sample.run})
        node = self._config().bus.node
        for name, storage in list(self._storages.items()):
            try:
                if len(storage.nodes()) > 1:
                    self._left[name] = paces.leave(storage, node, self._minute(name), self._left.get(name, ""))
            except StorageError:
                continue  # the heartbeat says that

    def _minute(self, storage: str) -> dict[str, Pace]:
        found: dict[str, Pace] = {}
        queues = self._config().queues.values()
        mine = [topic.full_name for queue in queues for topic in queue.topics.values() if topic.storage == storage]
        for topic in mine:
            for block in self._blocks:
                if topic in block:
                    found.setdefault(topic, Pace({}, {})).add(Pace(block[topic].wait, block[topic].run))
        return found
