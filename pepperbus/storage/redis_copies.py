"""Claims where RPOPLPUSH is not atomic (Pika): pointers are copied to the owner first, and removed from the line after.

Floor 3. Whoever removes a pointer from the line has won it, and is the only one who knows. Here also stands what an owner
finds out when it did not hear whether it had, and what others find out after its death.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple, Protocol

from pepperbus.storage.redis_keys import Keys
from pepperbus.storage.redis_pack import each, many
from pepperbus.storage.redis_wire import Connection, Interrupted

_LOOKS = 10  # at copies that others change meanwhile; then the next claim looks again
#: What a dead owner was about to win lies among so many at the end of the line. Jobs that were given back since its death lie
#: behind it; a line of millions is not read for them.
_END = 10_000


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
    removed = remove(connection, keys, owner, seen)
    lost = [found for found, mine in zip(seen, removed, strict=True) if not mine]
    connection.tell(each((b"LREM", held, 1), lost))
    return [found for found, mine in zip(seen, removed, strict=True) if mine]


def remove(connection: Connection, keys: Keys, owner: str, seen: list[bytes]) -> list[int]:
    """Take them out of the line; how many of each there were.

    Nothing of an owner that was released meanwhile: its copies are gone, and what it took now would be nowhere.
    """
    try:
        for _ in range(_LOOKS):
            _, known = connection.ask((b"WATCH", keys.owners), (b"SISMEMBER", keys.owners, owner))
            if not known:
                connection.ask((b"UNWATCH",))
                break
            with suppress(Interrupted):  # somebody came or went
                return connection.together([each((b"LREM", keys.ready, -1), seen)])
    except BaseException:
        connection.drop()  # it may still watch keys
        raise
    return [0] * len(seen)


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
    if owner.encode() not in owners:  # released since its list was read: all of it is in line again
        connection.ask((b"UNWATCH",))
        return []
    others = _lists_of_others(keys, owner, owners)
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


class Left(NamedTuple):
    """What lies in the list of a dead owner: what it had won, and what may still turn out to be its. The rest is not."""

    won: set[bytes]
    unclear: set[bytes]


def left_behind(
    connection: Connection, keys: Keys, owner: str, found: Collection[bytes], begun: Collection[bytes], wait: bool
) -> Left:
    """Which of the pointers `found` a dead owner had won; those that it had `begun` for certain.

    What still is in line nobody has won: it is taken out here. What another has too was won by the other, or it is about
    to take its copy back: unclear, so `wait`, longer than a claim is under way. Without `wait` it is the other's; then the
    others' lists are watched, lest two dead owners' copies are both dropped. Takes part in the transaction that
    `connection` has begun to watch for.
    """
    doubted = [one for one in found if one not in begun]
    line = set(connection.ask((b"LRANGE", keys.ready, -_END, -1))[0]) if doubted else ()
    waiting = [one for one in doubted if one in line]
    removed = connection.tell(each((b"LREM", keys.ready, -1), waiting))
    won = {one for one, mine in zip(waiting, removed, strict=True) if mine}.union(begun)
    others = _lists_of_others(keys, owner, connection.ask((b"SMEMBERS", keys.owners))[0])
    if others and not wait:
        connection.ask((b"WATCH", *others))
    open_ = [one for one in doubted if one not in won]
    scores = [each((b"ZSCORE", key), doubted) for key in (keys.delay, keys.dead)]
    replies = connection.ask(*[(b"LRANGE", key, 0, -1) for key in others], *scores)
    taken = {one for held in replies[: len(others)] for one in held}.intersection(open_)
    due, died = replies[len(others) : len(others) + len(doubted)], replies[len(others) + len(doubted) :]
    moved_on = {one for one, *at in zip(doubted, due, died, strict=True) if at != [None, None]}
    won = won.union(open_) - taken - moved_on
    return Left(won, taken - moved_on if wait else set())


def _lists_of_others(keys: Keys, owner: str, owners: Collection[bytes]) -> list[bytes]:
    return [keys.held(name.decode(errors="replace")) for name in owners if name != owner.encode()]
