"""Claims where RPOPLPUSH is not atomic (Pika): pointers are copied to the owner first, and removed from the line after.

Floor 3. Whoever removes a pointer from the line has won it, and is the only one who knows. Here also stands what an owner
finds out when it did not hear whether it had.
"""

from __future__ import annotations

import time
from typing import Protocol

from pepperbus.storage.redis_keys import Keys
from pepperbus.storage.redis_pack import each, many
from pepperbus.storage.redis_wire import Connection, Interrupted

_LOOKS = 10  # at copies that others change meanwhile; then the next claim looks again


class Holding(Protocol):
    """As far as claims are in doubt. `shared_since`: since when another owner was seen to have a copy too (monotonic s)."""

    shared_since: float

    def doubt(self) -> None:
        """Look again at the next claim."""


def copy_then_remove(connection: Connection, keys: Keys, n: int, owner: str) -> list[bytes]:
    """Whoever removes a pointer from the line has it; the others take their copy back. A crash leaves a copy too many."""
    seen = connection.ask((b"LRANGE", keys.ready, -n, -1))[0]
    if not seen:
        return []
    seen.reverse()
    held = keys.held(owner)
    connection.together([(b"SADD", keys.owners, owner), many((b"LPUSH", held), seen)])
    removed = connection.tell(each((b"LREM", keys.ready, -1), seen))
    lost = [found for found, mine in zip(seen, removed, strict=True) if not mine]
    connection.tell(each((b"LREM", held, 1), lost))
    return [found for found, mine in zip(seen, removed, strict=True) if mine]


def won(
    connection: Connection, keys: Keys, owner: str, missed: list[bytes], holding: Holding, patience: float
) -> list[bytes]:
    """Of copies whose removal from the line has no answer: those that are the owner's.

    `patience` (s): longer than another's claim is under way.
    """
    for _ in range(_LOOKS):
        try:
            return _judge(connection, keys, owner, missed, holding, patience)
        except Interrupted:
            pass
        except BaseException:
            connection.drop()  # it may still watch keys
            raise
    return []


def _judge(
    connection: Connection, keys: Keys, owner: str, missed: list[bytes], holding: Holding, patience: float
) -> list[bytes]:
    """What nobody else has is the owner's, and taken out of the line. What another has too was won by the other, or
    by us: then it is about to take its copy back, or it looks at ours at this moment. So there is no hurry to let go.
    """
    _, owners = connection.ask((b"WATCH", keys.owners), (b"SMEMBERS", keys.owners))
    others = [keys.held(name.decode()) for name in owners if name.decode() != owner]
    scores = [each((b"ZSCORE", key), missed) for key in (keys.delay, keys.dead)]
    replies = connection.ask((b"WATCH", keys.owners, *others), *[(b"LRANGE", key, 0, -1) for key in others], *scores)
    taken = {found for one in replies[1 : 1 + len(others)] for found in one}.intersection(missed)
    due, died = replies[-2 * len(missed) : -len(missed)], replies[-len(missed) :]
    moved_on = {found for found, *at in zip(missed, due, died, strict=True) if at != [None, None]}
    now = time.monotonic()
    holding.shared_since = (holding.shared_since or now) if taken else 0.0
    if taken and now - holding.shared_since < patience:
        holding.doubt()
        gone = moved_on - taken
    else:
        gone = moved_on | taken
    mine = [found for found in missed if found not in taken and found not in moved_on]
    connection.together([each((b"LREM", keys.ready, -1), mine), each((b"LREM", keys.held(owner), 1), list(gone))])
    return mine
