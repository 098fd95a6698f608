"""The pumps of one worker: each made with the consumer, target and journal that its topic asks for, and found by queue.

Floor 4. Back ends come through the factory. When a topic may be served, and when a pump is looked at, is `app`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pepperbus.child import Child
from pepperbus.config.model import Topic
from pepperbus.delivery import make_consumer
from pepperbus.delivery.contract import Consumer
from pepperbus.delivery.paced import paced_target
from pepperbus.journal.contract import JournalWriter
from pepperbus.journal.fields import Indexing
from pepperbus.journal.finished import Keeping
from pepperbus.stats import Writer
from pepperbus.worker.attempt import Parts
from pepperbus.worker.canary import beside
from pepperbus.worker.lane import Lane
from pepperbus.worker.ordered import OrderedPump
from pepperbus.worker.places import Places
from pepperbus.worker.pump import Pump


class Pumps:
    """In the order in which they came."""

    def __init__(self, child: Child, places: Places, stats: Writer, parts: Parts) -> None:
        self._child = child
        self._places = places
        self._stats = stats
        self._parts = parts
        self._indexing_parts = replace(parts, journal=Indexing(parts.journal, child.config))
        self._keeping: dict[int, Keeping] = {}  # by the journal behind it
        self._all: list[Pump] = []
        self.timed: list[Pump] = []  # those whose file says that they are not fed, always or at times
        self._by_queue: dict[str, list[Pump]] = {}
        self._consumers: list[Consumer] = []

    def __iter__(self) -> Iterator[Pump]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, number: int) -> Pump:
        return self._all[number]

    def part(self, turn: int, parts: int) -> list[Pump]:
        """One of so many parts of them, another one each turn."""
        return self._all[turn % parts :: parts]

    def of(self, queue: str) -> list[Pump]:
        return self._by_queue.get(queue, [])

    def add(self, topic: Topic, lane: Lane) -> Pump:
        """A new one, not woken yet. Raises ConfigError when the topic cannot be delivered as it is configured."""
        config = self._child.config
        consumer = make_consumer(topic, config)
        pool, own = self._places.of(topic)
        target = paced_target(topic, pool, own)
        target.serves(f"{consumer.address} {topic.script}")
        record = self._stats.record(topic.full_name)
        record.set("window", min(pool.window, own.window))
        parts = self._parts_of(topic)
        if topic.canary is not None:
            consumer = beside(consumer, topic, config, self._places.pool, self._stats.record, parts)
        of = (topic, lane, target, consumer, record, self._child.owner, parts)
        lock = self._places.directory / f"order-{topic.queue}~{topic.name}"
        pump = OrderedPump(*of, lock=lock) if topic.order_by else Pump(*of)
        self._consumers.append(consumer)
        self._all.append(pump)
        if topic.paused or topic.quiet is not None:
            self.timed.append(pump)
        self._by_queue.setdefault(topic.queue, []).append(pump)
        return pump

    def _parts_of(self, topic: Topic) -> Parts:
        """With the journal that its queue asks for."""
        queue = self._child.config.queues[topic.queue]
        parts = self._indexing_parts if queue.index else self._parts
        return replace(parts, journal=self._keep_finished(parts.journal)) if queue.history else parts

    def _keep_finished(self, journal: JournalWriter) -> JournalWriter:
        return self._keeping.setdefault(id(journal), Keeping(journal, self._child.config, self._child.name))

    def flush_journals(self) -> None:
        self._parts.journal.flush()
        for keeping in self._keeping.values():
            keeping.flush()

    def cut(self) -> None:
        """What still runs is cut, judged "may have run" and settled as such."""
        for consumer in self._consumers:
            consumer.close()

    def close(self) -> None:
        for keeping in self._keeping.values():
            keeping.close()
