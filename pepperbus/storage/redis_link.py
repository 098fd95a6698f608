"""What the parts of the Redis engine share: connections, keys, and the way a pointer moves so that no crash loses it.

Floor 3. Redis runs a transaction whole or not at all, also when it is killed. Pika runs it apart from others, but when
it is killed may leave its first half: so in every transaction the copies stand before the removals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gevent

from pepperbus import names
from pepperbus.clock import Clock
from pepperbus.errors import StorageUnavailable
from pepperbus.storage.redis_keys import Keys
from pepperbus.storage.redis_pack import Part
from pepperbus.storage.redis_pool import Pool
from pepperbus.storage.redis_wire import Connection, Interrupted

Result = TypeVar("Result")
_TRIES = 100


@dataclass(slots=True)
class Link:
    pool: Pool
    clock: Clock
    pika: bool = False
    _keys: dict[str, Keys] = field(default_factory=dict)

    def keys(self, topic: str) -> Keys:
        found = self._keys.get(topic)
        if found is None:
            found = self._keys[topic] = Keys(topic)
        return found

    def move(self, connection: Connection, copies: Sequence[Part], removals: Sequence[Part]) -> list[Any]:
        """Make `copies`, then `removals`, apart from all others; all results. Raises Interrupted when a watched key changed."""
        return connection.together([*copies, *removals])

    def guarded(self, action: Callable[[Connection], Result]) -> Result:
        """Run `action` (watch, look, move) until nobody changed what it watches in the middle of it."""
        for attempt in range(_TRIES):
            with self.pool.borrow() as connection:
                try:
                    return action(connection)
                except Interrupted:
                    pass
                except BaseException:
                    connection.drop()  # it may still watch keys, which would spoil a later transaction
                    raise
            gevent.sleep(0.001 * min(attempt, 10))
        raise StorageUnavailable(f"{self.pool.address}: the keys changed under {_TRIES} attempts in a row")

    def topics(self) -> list[str]:
        """All that were ever pushed to."""
        found = {name.decode(errors="replace") for name in self.ask((b"SMEMBERS", names.REDIS_TOPICS))[0]}
        return sorted(name for name in found if names.is_topic(name))

    def ask(self, *parts: Part) -> list[Any]:
        with self.pool.borrow() as connection:
            return connection.ask(*parts)

    def look(self, *parts: Part) -> list[Any]:
        with self.pool.borrow() as connection:
            return connection.look(*parts)

    def tell(self, *parts: Part) -> list[Any]:
        with self.pool.borrow() as connection:
            return connection.tell(*parts)
