"""How ready jobs come to an owner: two drivers, one for servers whose RPOPLPUSH is atomic, one for Pika, whose is not.

Floor 3. The second is `redis_copies`. Both put the pointer into the owner's own list, see that the owner is registered (else
nobody would find that list after its death), and only then look at the body. A pointer whose body is gone or has another
nonce is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import repeat
from typing import Any, Protocol
from weakref import WeakValueDictionary

from gevent.lock import BoundedSemaphore

from pepperbus import names
from pepperbus.errors import StorageError, StorageUnavailable
from pepperbus.storage.contract import Leased
from pepperbus.storage.redis_copies import copy_then_remove, won
from pepperbus.storage.redis_keys import ID, NONCE, VIRGIN, Keys, Record, is_good
from pepperbus.storage.redis_link import Link
from pepperbus.storage.redis_pack import Packed, each, repeated, several
from pepperbus.storage.redis_wire import Connection, transaction

#: How long after a claim without an answer the owner's list is searched for what that claim moved (s): a frozen
#: server may still run it when it wakes.
SUSPECT_S = 60.0
NODE_PX = 86_400_000  # a node's key is worth a day; its age is what is gone of that


class _Holding:
    """What one owner holds of one topic, as far as this process knows: job id -> pointer.

    Its claims take turns: while one is under way, what it moves looks like the leavings of a claim without an answer.
    `leaving`: jobs whose verdict is under way, or without an answer and to be repeated. Should one come back to this
    owner meanwhile it may not run yet: the verdict that is still to come would take it away while it runs.
    """

    __slots__ = ("leaving", "losses", "pointers", "shared_since", "suspect_until", "turn")

    def __init__(self, losses: int) -> None:
        self.pointers: dict[int, bytes] = {}
        self.leaving: dict[int, bytes] = {}
        self.suspect_until = 0.0  # monotonic s; 0: nothing is doubted
        self.shared_since = 0.0  # monotonic s: since when another owner was seen to have the same too (Pika)
        self.turn = BoundedSemaphore(1)
        self.losses = losses  # connections that were lost when Redis was last believed

    def doubt(self) -> None:
        """A claim may have moved what nobody here knows of."""
        self.suspect_until = time.monotonic() + SUSPECT_S

    def believe(self, losses: int) -> None:
        """Behind a lost connection there may be a Redis that forgot the last verdicts: look once at what it says we hold."""
        if losses != self.losses:
            self.losses = losses
            self.suspect_until = self.suspect_until or time.monotonic()

    def known(self) -> set[bytes]:
        return {*self.pointers.values(), *self.leaving.values()}


class _Book(dict[tuple[str, str], _Holding]):
    """What this process holds in one Redis, by topic and owner."""


#: By where that is: a storage that is opened anew with other settings while jobs are held must know of them.
_books: WeakValueDictionary[tuple[str, int, str, int], _Book] = WeakValueDictionary()


class Along(Protocol):
    """Commands that go out ahead of a claim."""

    def commands(self, connection: Connection) -> Packed: ...

    def answered(self, connection: Connection, replies: Sequence[Any]) -> None:
        """Raises what the answers mean."""


class Claims:
    """What the owners of this process hold, and the claims that add to it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._holdings = _books.setdefault(link.pool.address.place, _Book())
        self._known: set[str] = set()

    def lease(self, topic: str, n: int, owner: str) -> list[Leased]:
        """`Storage.lease`."""
        if n < 1:
            return []
        with self._claiming(topic, owner) as holding, self._link.pool.borrow() as connection:
            return self._lease(connection, self._link.keys(topic), n, owner, holding)

    @contextmanager
    def _claiming(self, topic: str, owner: str) -> Iterator[_Holding]:
        """A claim's turn."""
        holding = self._holding(topic, owner)
        if not holding.turn.acquire(timeout=self._link.pool.timeout):
            raise StorageUnavailable(f"{self._link.pool.address}: another claim of {topic} still waits for its answer")
        try:
            yield holding
        except BaseException:  # also a killed greenlet: what its claim moved must come to light
            holding.doubt()
            raise
        finally:
            holding.turn.release()

    def _holding(self, topic: str, owner: str) -> _Holding:
        found = self._holdings.get((topic, owner))
        if found is None:
            found = self._holdings[topic, owner] = _Holding(self._link.pool.losses)
        return found

    def _lease(self, connection: Connection, keys: Keys, n: int, owner: str, holding: _Holding) -> list[Leased]:
        self._announce(connection, owner)
        holding.believe(self._link.pool.losses)
        leased: list[Leased] = []
        if holding.suspect_until:
            until = holding.suspect_until
            is_last = time.monotonic() >= until  # one look at least comes that late, whenever the next claim does
            leased = self._missed(connection, keys, owner, n, holding)
            if is_last and not leased and holding.suspect_until == until:
                holding.suspect_until = 0.0
        while not leased:
            pointers = self._claim(connection, keys, n, owner)
            leased = self._fetch(connection, keys, owner, pointers, holding)
            if len(pointers) < n:
                break
        return leased

    def try_lease(self, topic: str, n: int, owner: str) -> list[Leased] | None:
        """`lease`, or None where that would raise."""
        try:
            return self.lease(topic, n, owner)
        except StorageError:
            return None

    def goes_along(self, topic: str, owner: str) -> bool:
        """Whether a claim may be made blindly, in one trip with something else."""
        holding = self._holdings.get((topic, owner))
        if holding is None or self._link.pika:
            return False
        holding.believe(self._link.pool.losses)
        return not holding.suspect_until

    def lease_along(self, topic: str, n: int, owner: str, other: Along) -> list[Leased] | None:
        """`lease` in one trip with another's commands, which go first; `other` hears their answers and may raise.

        Only when it `goes_along`. None: nothing was leased, and not because there was nothing.
        """
        with self._claiming(topic, owner) as holding, self._link.pool.borrow() as connection:
            self._announce(connection, owner)
            keys = self._link.keys(topic)
            first = other.commands(connection)
            claim = moves(keys.owners, keys.ready, keys.held(owner), owner, n)
            replies = connection.exchange(first.data + claim.data, first.commands + claim.commands)
            other.answered(connection, replies[: first.commands])
            try:
                pointers = moved(connection.check_together(replies[first.commands :]))
                leased = self._fetch(connection, keys, owner, pointers, holding)
                if leased or len(pointers) < n:
                    return leased
                return self._lease(connection, keys, n, owner, holding)
            except StorageError:
                holding.doubt()
                return None

    def _announce(self, connection: Connection, owner: str) -> None:
        """A node counts as seen at its first claim, so that it is not taken for lost before its first heartbeat."""
        if owner not in self._known:
            key = names.redis_node(names.split_owner(owner)[0])
            connection.ask((b"SET", key, b"1", b"NX", b"PX", NODE_PX))
            self._known.add(owner)

    def _claim(self, connection: Connection, keys: Keys, n: int, owner: str) -> list[bytes]:
        claim = copy_then_remove if self._link.pika else _move
        return claim(connection, keys, n, owner)

    def _fetch(
        self, connection: Connection, keys: Keys, owner: str, pointers: Sequence[bytes], holding: _Holding
    ) -> list[Leased]:
        """The jobs behind the pointers; those that lead nowhere leave the owner's list. All of them or an error."""
        if not pointers:
            return []
        fields = [found[:ID] for found in pointers]
        bodies, records = connection.ask(several(((b"HMGET", keys.job), (b"HMGET", keys.att)), fields))
        if not holding.leaving and not any(records) and _all_good(pointers, bodies):
            return _first_attempts(keys.topic, fields, pointers, bodies, holding.pointers)
        leased, stale, topic = [], [], keys.topic
        mine: dict[int, bytes] = {}
        for found, name, stored, text in zip(pointers, fields, bodies, records, strict=True):
            if not is_good(found, stored):
                stale.append(found)
                continue
            job_id = int(name)
            if job_id in holding.leaving:  # stored before this claim, perhaps: to be found when that is known
                holding.doubt()
                continue
            spent, crashes, due_ms = Record.decode(text) if text else VIRGIN
            mine[job_id] = found
            leased.append(Leased(topic, job_id, stored[NONCE:], spent + 1, crashes, due_ms))
        if stale:
            connection.tell(each((b"LREM", keys.held(owner), 1), stale))
        holding.pointers.update(mine)  # last: what an error kept from the caller must still look missed
        return leased

    def _missed(self, connection: Connection, keys: Keys, owner: str, n: int, holding: _Holding) -> list[Leased]:
        """Jobs a claim without an answer moved into the owner's list: they are its, it only does not know them yet."""
        known = holding.known()  # before we look: what is settled meanwhile must not seem missed
        held = connection.ask((b"LRANGE", keys.held(owner), 0, -1))[0]
        known |= holding.known()
        missed = [found for found in reversed(held) if found not in known]
        if missed and self._link.pika:
            missed = won(connection, keys, owner, missed, holding, self._link.pool.timeout)
        if missed:
            connection.tell((b"SADD", keys.owners, owner))
        return self._fetch(connection, keys, owner, missed[:n], holding)

    def held(self, topic: str, owner: str) -> dict[int, bytes]:
        """The pointers of what `owner` got here, as far as this process knows."""
        holding = self._holdings.get((topic, owner))
        return holding.pointers if holding else {}

    def forget(self, topic: str, owner: str, job_ids: Sequence[int]) -> None:
        """They are done."""
        held = self.held(topic, owner)
        for job_id in job_ids:
            held.pop(job_id, None)

    @contextmanager
    def leaving(self, topic: str, owner: str, job_ids: Sequence[int]) -> Iterator[bool]:
        """While a verdict that may bring these jobs back is under way; after an error until it was repeated.

        Gives whether an earlier form of it may still be under way too.
        """
        holding = self._holdings.get((topic, owner))
        if holding is None:
            yield True
            return
        repeated = not holding.leaving.keys().isdisjoint(job_ids)
        for job_id in job_ids:
            if found := holding.pointers.pop(job_id, None):
                holding.leaving[job_id] = found
        yield repeated
        for job_id in job_ids:
            holding.leaving.pop(job_id, None)

    def forget_owner(self, owner: str) -> None:
        for at in [at for at in self._holdings if at[1] == owner]:
            del self._holdings[at]
        self._known.discard(owner)


def _all_good(pointers: Sequence[bytes], stored: Sequence[bytes | None]) -> bool:
    """`is_good` of all, by the column."""
    if None in stored:
        return False
    return [found[ID + 1 :] for found in pointers] == [one[:NONCE] for one in stored]  # type: ignore[index]


def _first_attempts(
    topic: str, fields: list[bytes], pointers: Sequence[bytes], stored: Sequence[bytes], held: dict[int, bytes]
) -> list[Leased]:
    """The commonest batch, jobs that were never tried, by the column: half the time a job (0.9 us)."""
    ids = list(map(int, fields))
    held.update(zip(ids, pointers, strict=True))
    bodies = [one[NONCE:] for one in stored]
    rows = zip(repeat(topic), ids, bodies, repeat(1), repeat(0), repeat(0), strict=False)
    return list(map(Leased._make, rows))


@lru_cache(maxsize=4096)
def moves(owners: bytes, ready: bytes, held: bytes, owner: str, n: int) -> Packed:
    """The claim of up to `n` jobs: a transaction."""
    return transaction([(b"SADD", owners, owner), repeated((b"RPOPLPUSH", ready, held), n)])


def _move(connection: Connection, keys: Keys, n: int, owner: str) -> list[bytes]:
    claim = moves(keys.owners, keys.ready, keys.held(owner), owner, n)
    return moved(connection.check_together(connection.exchange(*claim, whole=True)))


def moved(results: Sequence[bytes | None]) -> list[bytes]:
    """The pointers among the results of `moves`; the first is not one."""
    return [one for one in results[1:] if one is not None]
