"""Jobs that the ticker itself makes: their ids, and what a stored one owes to the others: it is counted, workers are woken.

Floor 4. Knows no storage: whoever makes jobs stores them. The ids are those of slot 15, which no gateway has.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence

from pepperbus.child import Child
from pepperbus.clock import Clock
from pepperbus.config.model import Queue
from pepperbus.family.bell import Bell
from pepperbus.family.highwater import HighWater
from pepperbus.ids import PER_MS, IdGenerator
from pepperbus.job import Job
from pepperbus.stats import Writer

SLOT = 15


class Maker:
    """One a ticker. The first id opens its mark on the disk: a node that makes none holds no file there.

    `ids` raises BootError when another living process makes ids for the same slot.
    """

    def __init__(self, child: Child, clock: Clock) -> None:
        bus = self._bus = child.config.bus
        self._child = child
        self._clock = clock
        self._made: tuple[HighWater, IdGenerator] | None = None
        self._stats = Writer(bus.run_dir / "stats", child.name)
        self._bell = Bell(bus.run_dir)
        self._tail = f"-{socket.gethostname()}-{child.name}"

    def ids(self, n: int) -> list[int]:
        """`n` new ids, rising; none of them was or will be given out again. Up to PER_MS of them have no gap."""
        mark, ids = self._made = self._made or self._open()
        found: list[int] = []
        while len(found) < n:
            some = min(n - len(found), PER_MS)
            first = ids.take(some)
            found += range(first, first + some)
        mark.raise_to(ids.high_water_ms)
        return found

    def _open(self) -> tuple[HighWater, IdGenerator]:
        mark = HighWater(self._bus.data_dir / "ids", self._child.name)
        return mark, IdGenerator(self._bus.shard, SLOT, self._clock.now_ms, mark.start_ms)

    def trace(self) -> str:
        """One for all jobs that are made together."""
        return f"{self.ids(1)[0]}{self._tail}"

    def bodies(self, ids: Sequence[int], contents: Sequence[bytes], client: str) -> list[bytes]:
        """The stored form of each; `client` says who made them."""
        trace, now_ms = self.trace(), self._clock.now_ms()
        return [
            Job(job_id, trace, content, now_ms, client).encode() for job_id, content in zip(ids, contents, strict=True)
        ]

    def stored(self, queue: Queue, topics: Iterable[str], jobs: int) -> None:
        """Count `jobs` in `queue` and each of `topics` (full names), and wake who feeds them."""
        self._stats.record(queue.name).add("pushed", jobs)
        for name in topics:
            self._stats.record(name).add("pushed", jobs)
        self._bell.ring(queue.name)
        wake = self._child.wakes.get(queue.group, -1)
        if wake >= 0:
            try:
                os.eventfd_write(wake, 1)
            except OSError:  # full: they are awake already
                pass

    def close(self) -> None:
        if self._made:
            self._made[0].close()
        self._stats.close()
