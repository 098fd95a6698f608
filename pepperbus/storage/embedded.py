"""The default storage: one LMDB file on this node, every answered push on the disk (durability `power`).

Floor 3. A face of the contract over `embedded_engine` (group commit), `embedded_work` (changes) and `embedded_look`
(reading). `embedded_layout` describes the file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import lmdb

from pepperbus.clock import Clock, SystemClock
from pepperbus.config.model import StorageConfig
from pepperbus.errors import StorageError, StorageRefused, StorageUnavailable
from pepperbus.job import State
from pepperbus.log import Log
from pepperbus.storage.contract import (
    POWER,
    Claim,
    Depth,
    Health,
    Leased,
    Once,
    Outcome,
    Page,
    Push,
    Released,
    Settle,
    Stored,
)
from pepperbus.storage.embedded_engine import Engine

#: Address space, not disk: the file grows as jobs come. No storage gets bigger than this.
MAP_SIZE = 1 << 40
#: Names that nobody holds any more are taken out so many at a time: others wait to write meanwhile.
_SWEPT = 2000


class EmbeddedStorage:
    """One LMDB environment in `config.path`. Several processes of this node may have it open at once."""

    map_size = MAP_SIZE

    def __init__(self, config: StorageConfig, clock: Clock | None = None, log: Log | None = None) -> None:
        if config.path is None:
            raise StorageRefused(f"storage {config.name}: an embedded storage needs a path")
        self.name = config.name
        self.durability = POWER
        self._path = Path(config.path)
        self._clock = clock or SystemClock()
        self._open: Engine | None = None
        self._doubts: list[tuple[str, list[Settle]]] = []  # of an owner: jobs it may hold and nobody was given

    def open(self) -> None:
        if self._open is None:
            self._open = Engine(self.name, self._path, self.map_size, self._clock.now_ms)

    def close(self) -> None:
        engine, self._open = self._open, None
        if engine:
            engine.close()

    @property
    def _engine(self) -> Engine:
        if self._open is None:
            raise StorageUnavailable(f"storage {self.name} is not open")
        return self._open

    def push(self, batch: Sequence[Push], limits: Mapping[str, int] | None = None) -> Collection[int]:
        return self._engine.write(lambda work: work.push(batch, limits))

    def push_once(self, batch: Sequence[Once], limits: Mapping[str, int] | None = None) -> list[int]:
        return self._engine.write(lambda work: work.push_once(batch, limits)) if batch else []

    def recall(self, name: str) -> str:
        with self._engine.look() as look:
            return look.text(name)

    def swap(self, name: str, old: str, new: str, batch: Sequence[Push] = (), claims: Sequence[Claim] = ()) -> str:
        return self._engine.write(lambda work: work.swap(name, old, new, batch, claims))

    def lease(self, topic: str, n: int, owner: str) -> list[Leased]:
        if self._doubts:
            self._give_back()
        with self._engine.look() as look:
            if n < 1 or not look.has_ready(topic):
                return []
        return self._engine.write(
            lambda work: work.lease(topic, n, owner), durable=False, doubt=lambda jobs: self._doubt(owner, jobs)
        )

    def settle(self, owner: str, batch: Sequence[Settle]) -> int:
        return self._engine.write(lambda work: work.settle(owner, batch), durable=False) if batch else 0

    def settle_and_lease(
        self, owner: str, batch: Sequence[Settle], topic: str, n: int
    ) -> tuple[int, list[Leased] | None]:
        if self._doubts:
            self._give_back()
        return self._engine.write(
            lambda work: (work.settle(owner, batch), work.lease(topic, n, owner) if n > 0 else []),
            durable=False,
            doubt=lambda both: self._doubt(owner, both[1]),
        )

    def _doubt(self, owner: str, jobs: Sequence[Leased]) -> None:
        """Whether these were leased has no answer: nobody has them, and their owner lives on."""
        ends = [Settle(job.topic, job.job_id, Outcome.BACK, spent=False) for job in jobs]
        if ends:
            self._doubts.append((owner, ends))

    def _give_back(self) -> None:
        """Whoever leases comes after this, in the order of writes: what is given back is nobody's work. Raises StorageError."""
        for one in list(self._doubts):
            owner, ends = one
            self._engine.write(lambda work, owner=owner, ends=ends: work.settle(owner, ends), durable=False)  # type: ignore[misc]
            if one in self._doubts:
                self._doubts.remove(one)

    def release(self, owner: str, started: Collection[tuple[str, int]] | None) -> list[Released]:
        return self._engine.write(lambda work: work.release(owner, started))

    def owners(self) -> list[str]:
        with self._engine.look() as look:
            return [name for name, _, _ in look.owners()]

    def heartbeat(self, node: str) -> None:
        self._engine.write(lambda work: work.heartbeat(node), durable=False)

    def lost_nodes(self, older_ms: int) -> list[str]:
        with self._engine.look() as look:
            return look.lost_nodes(self._clock.now_ms() - older_ms)

    def leave(self, node: str) -> None:
        """Nobody else could notice."""

    def nodes(self) -> dict[str, int]:
        return {}

    def claim_shard(self, shard: int, node: str) -> None:
        holder = self._engine.write(lambda work: work.claim_shard(shard, node))
        if holder != node:
            raise StorageRefused(
                f"storage {self.name}: shard {shard} belongs to node {holder}; give node {node} another `shard`"
            )

    def promote(self, topic: str, now_ms: int, n: int = 1000) -> tuple[int, int]:
        with self._engine.look() as look:
            due = look.next_due(topic)
        if not due or due > now_ms:
            return 0, due
        return self._engine.write(lambda work: work.promote(topic, now_ms, n))

    def depth(self, topic: str) -> Depth:
        with self._engine.look() as look:
            return look.depth(topic)

    def depths(self, topics: Collection[str]) -> dict[str, Depth]:
        with self._engine.look() as look:
            return {topic: look.depth(topic) for topic in topics}

    def topics(self) -> list[str]:
        with self._engine.look() as look:
            return look.topics()

    def peek(self, topic: str, state: State, cursor: str = "", n: int = 100) -> Page:
        with self._engine.look() as look:
            return look.peek(topic, state, cursor, n)

    def find(self, job_id: int, topics: Sequence[str]) -> list[Stored]:
        with self._engine.look() as look:
            return look.find(job_id, topics)

    def replay(self, topic: str, job_ids: Sequence[int]) -> int:
        return self._engine.write(lambda work: work.replay(topic, job_ids))

    def remove(self, topic: str, job_ids: Sequence[int]) -> int:
        return self._engine.write(lambda work: work.remove(topic, job_ids))

    def set_paused(self, topic: str, paused: bool) -> None:
        self._engine.write(lambda work: work.set_paused(topic, paused))

    def paused(self) -> set[str]:
        with self._engine.look() as look:
            return look.paused()

    def health(self) -> Health:
        version = "LMDB " + ".".join(map(str, lmdb.version()))
        try:
            facts = self._engine.facts()
        except (StorageError, OSError) as error:
            return Health(False, version, self.durability, 0, 0, str(error))
        limit = min(self.map_size, facts["file"] + facts["free"])
        detail = f"{self._path}: {facts['file'] >> 20} MiB file, {facts['free'] >> 20} MiB free on its disk"
        counted = facts["commits"], facts["readers"]
        return Health(True, version, self.durability, facts["used"], limit, detail, *counted)

    def watch(self, topics: Sequence[str], wake: Callable[[str], None]) -> None:
        pass

    def advice(self, level: str) -> str:
        """Nothing to set: every answer comes after an fsync."""
        return ""

    def upkeep(self) -> None:
        if self._doubts:
            self._give_back()
        self.reader_check()
        while self._engine.write(lambda work: work.sweep(_SWEPT), durable=False) == _SWEPT:
            pass

    def reader_check(self) -> int:
        """Free what killed readers held, so that the file does not grow. Returns how many; called now and then."""
        return self._engine.reader_check()
