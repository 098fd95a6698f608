"""Jobs in Redis, or in what speaks its language (Valkey, Kvrocks, Pika): lists of pointers, bodies in a hash, no Lua.

Floor 3. The parts: `redis_keys` (how a topic lies there: read it first), `redis_push`, `redis_once`, `redis_claim`,
`redis_copies`, `redis_settle`, `redis_depth`, `redis_look`, `redis_watch`, `redis_facts`, upon `redis_wire`,
`redis_pack`, `redis_pool`, `redis_url` (own connections).
This module puts them together and holds what belongs to the whole storage: owners, nodes, shards, pause.

With `mode = pika` only commands Pika has are used, and its RPOPLPUSH is not trusted: it is not atomic there. What a
Pika killed in the middle of a transaction leaves is never a lost job; at worst one runs twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from pepperbus import names
from pepperbus.clock import Clock, SystemClock
from pepperbus.config.model import StorageConfig
from pepperbus.errors import StorageError, StorageRefused
from pepperbus.job import State
from pepperbus.log import Log
from pepperbus.storage import redis_depth, redis_look, redis_once
from pepperbus.storage.contract import MEMORY, Claim, Depth, Health, Leased, Once, Page, Push, Released, Settle, Stored
from pepperbus.storage.redis_claim import NODE_PX, Claims
from pepperbus.storage.redis_facts import Facts, read_facts
from pepperbus.storage.redis_link import Link
from pepperbus.storage.redis_pack import Command
from pepperbus.storage.redis_pool import Pool
from pepperbus.storage.redis_push import Pushes
from pepperbus.storage.redis_settle import Settlements
from pepperbus.storage.redis_url import parse_url
from pepperbus.storage.redis_watch import Watch
from pepperbus.storage.redis_wire import Connection

#: New at each start of a machine, and so never the same on two.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: Under a node's name: that it ended on purpose; and what says nothing of its machine.
_LEFT = b"0"
_NO_MACHINE = (_LEFT, b"1")
_ALIVE_MS = 15_000  # a living node beats every 5 s


def _this_machine() -> bytes:
    """What stands under this node's name while it lives. A sandbox may hide it: then nobody is told apart."""
    try:
        return _BOOT_ID.read_bytes().strip() or _NO_MACHINE[1]
    except OSError:
        return _NO_MACHINE[1]


class RedisStorage:
    """The storage contract on one Redis server."""

    def __init__(self, config: StorageConfig, clock: Clock | None = None, log: Log | None = None) -> None:
        self.name = config.name
        self.durability = MEMORY
        self._mode = config.mode
        address = parse_url(config.name, config.url.reveal())
        self._link = Link(Pool(address, config.store_timeout, log=log), clock or SystemClock(), config.mode == "pika")
        self._pushes = Pushes(self._link)
        self._claims = Claims(self._link)
        self._settlements = Settlements(self._link, self._claims)
        self._facts: Facts | None = None
        self._machine = _this_machine()
        self._claimed: Command | None = None  # how this node's shard was claimed
        self._going: dict[str, set[int]] = {}  # topic -> jobs that were being removed at the last upkeep
        self._watch: Watch | None = None

    def open(self) -> None:
        facts = self._ask_facts()
        facts.check(self.name, self._mode)
        self._facts, self.durability = facts, facts.durability()

    def _ask_facts(self) -> Facts:
        with self._link.pool.borrow() as connection:
            return read_facts(connection)

    def close(self) -> None:
        if self._watch:
            self._watch.stop()
            self._watch = None
        self._link.pool.close()

    def advice(self, level: str) -> str:
        """The lines to type so that this storage gives `level`; "" when it does. Known after `open`."""
        return self._facts.advice(level) if self._facts else ""

    def upkeep(self) -> None:
        """End the removals that a process died in: those that were under way a minute ago too."""
        found = redis_look.going(self._link, self._link.topics())
        for topic, ids in found.items():
            if left := ids & self._going.get(topic, set()):
                self.remove(topic, sorted(left))
        self._going = found

    def push(self, batch: Sequence[Push], limits: Mapping[str, int] | None = None) -> Collection[int]:
        return self._pushes.push(batch, limits)

    def push_once(self, batch: Sequence[Once], limits: Mapping[str, int] | None = None) -> list[int]:
        return redis_once.push_once(self._link, self._pushes, batch, limits)

    def recall(self, name: str) -> str:
        return redis_once.recall(self._link, name)

    def swap(self, name: str, old: str, new: str, batch: Sequence[Push] = (), claims: Sequence[Claim] = ()) -> str:
        return redis_once.swap(self._link, self._pushes, name, old, new, batch, claims)

    def lease(self, topic: str, n: int, owner: str) -> list[Leased]:
        return self._claims.lease(topic, n, owner)

    def settle(self, owner: str, batch: Sequence[Settle]) -> int:
        return self._settlements.settle(owner, batch)

    def settle_and_lease(
        self, owner: str, batch: Sequence[Settle], topic: str, n: int
    ) -> tuple[int, list[Leased] | None]:
        return self._settlements.settle_and_lease(owner, batch, topic, n)

    def release(self, owner: str, started: Collection[tuple[str, int]] | None) -> list[Released]:
        return self._settlements.release(owner, started)

    def promote(self, topic: str, now_ms: int, n: int = 1000) -> tuple[int, int]:
        return redis_look.promote(self._link, topic, now_ms, n)

    def depth(self, topic: str) -> Depth:
        return redis_depth.depth(self._link, topic)

    def depths(self, topics: Collection[str]) -> dict[str, Depth]:
        return redis_depth.depths(self._link, topics)

    def peek(self, topic: str, state: State, cursor: str = "", n: int = 100) -> Page:
        return redis_look.peek(self._link, topic, state, cursor, n)

    def find(self, job_id: int, topics: Sequence[str]) -> list[Stored]:
        return redis_look.find(self._link, job_id, topics)

    def replay(self, topic: str, job_ids: Sequence[int]) -> int:
        return redis_look.replay(self._link, topic, job_ids)

    def remove(self, topic: str, job_ids: Sequence[int]) -> int:
        return redis_look.remove(self._link, topic, job_ids)

    def owners(self) -> list[str]:
        topics = self._link.topics()
        if not topics:
            return []
        sets = self._link.ask(*[(b"SMEMBERS", self._link.keys(topic).owners) for topic in topics])
        found = {owner.decode(errors="replace") for one in sets for owner in one}
        return sorted(owner for owner in found if names.is_owner(owner))

    def topics(self) -> list[str]:
        topics = self._link.topics()
        if not topics:
            return []
        sizes = self._link.ask(*[(b"HLEN", self._link.keys(topic).job) for topic in topics])
        return [topic for topic, size in zip(topics, sizes, strict=True) if size]

    def heartbeat(self, node: str) -> None:
        """And claim the shard again, should somebody have emptied this Redis: its ids are still this node's."""
        sign: Command = (b"SET", names.redis_node(node), self._machine, b"PX", NODE_PX)
        self._link.tell(sign, *([self._claimed] if self._claimed else []))

    def lost_nodes(self, older_ms: int) -> list[str]:
        """A node's key lives a day; what is gone of that, by the server's clock, is the node's silence."""
        nodes = sorted({names.split_owner(owner)[0] for owner in self.owners()})
        if not nodes:
            return []
        left = self._link.ask(*[(b"PTTL", names.redis_node(node)) for node in nodes])
        return [node for node, ms in zip(nodes, left, strict=True) if ms < 0 or NODE_PX - ms > older_ms]

    def leave(self, node: str) -> None:
        self._link.tell((b"SET", names.redis_node(node), _LEFT, b"PX", NODE_PX))

    def nodes(self) -> dict[str, int]:
        """Whoever claimed a shard; what stands under a node's name is its machine, or that it left."""
        known = sorted({node.decode(errors="replace") for node in self._link.ask((b"HVALS", names.REDIS_SHARDS))[0]})
        if not known:
            return {}
        keys = [names.redis_node(node) for node in known]
        found = self._link.ask(*[(word, key) for key in keys for word in (b"GET", b"PTTL")])
        signs = zip(known, found[::2], found[1::2], strict=True)
        return {node: NODE_PX - left for node, said, left in signs if said not in (None, _LEFT) and left > 0}

    def claim_shard(self, shard: int, node: str) -> None:
        """Two machines of one name (clones of one) would make the same ids and release each other's leases: the later one
        is refused while the other is heard of.
        """
        key = names.redis_node(node)

        def act(connection: Connection) -> bytes:
            _, holder, said, left = connection.ask(
                (b"WATCH", names.REDIS_SHARDS, key), (b"HGET", names.REDIS_SHARDS, shard), (b"GET", key), (b"PTTL", key)
            )
            silent_ms = NODE_PX - left
            if said not in (None, *_NO_MACHINE, self._machine) and 0 <= silent_ms < _ALIVE_MS:
                connection.ask((b"UNWATCH",))
                raise StorageRefused(
                    f"storage {self.name}: a node {node} runs on another machine, heard of {silent_ms / 1000:.0f} s ago; "
                    "give this one a `node` and a `shard` of its own"
                )
            if (holder or node.encode()) == node.encode():
                sign: Command = (b"SET", key, self._machine, b"PX", NODE_PX)
                connection.together([(b"HSET", names.REDIS_SHARDS, shard, node), sign])
                return node.encode()
            connection.ask((b"UNWATCH",))
            return holder

        holder = self._link.guarded(act).decode(errors="replace")
        if holder != node:
            raise StorageRefused(
                f"storage {self.name}: shard {shard} belongs to node {holder}; give node {node} another `shard`"
            )
        self._claimed = (b"HSETNX", names.REDIS_SHARDS, shard, node)

    def set_paused(self, topic: str, paused: bool) -> None:
        self._link.tell((b"SADD" if paused else b"SREM", names.REDIS_PAUSED, topic))

    def paused(self) -> set[str]:
        return {topic.decode(errors="replace") for topic in self._link.ask((b"SMEMBERS", names.REDIS_PAUSED))[0]}

    def health(self) -> Health:
        try:
            facts = self._ask_facts()
        except StorageError as error:
            known = self._facts.version if self._facts else ""
            return Health(False, known, self.durability, 0, 0, str(error))
        return Health(
            True,
            facts.version,
            facts.durability(),
            facts.used,
            facts.limit,
            facts.detail(),
            facts.commands,
            facts.clients,
        )

    def watch(self, topics: Sequence[str], wake: Callable[[str], None]) -> None:
        if self._watch:
            self._watch.stop()
        self._watch = Watch(self._link, topics, wake)
