"""What becomes of leased jobs in Redis: done, retry, dead, back, and taking back what a dead owner held.

Floor 3. DONE removes the body first: from then on every other pointer to the job is harmless, whoever holds it. All
else is allowed only while the owner is registered for the topic and has the pointer in its list. `release` takes the
owner out of the registry in the same transaction that moves its pointers, and verdicts watch the registry: so a verdict
comes wholly before a release or is void.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import gevent

from pepperbus.errors import StorageUnavailable, StorageUnknown
from pepperbus.storage.contract import CRASH_LIMIT, Leased, Outcome, Released, Settle
from pepperbus.storage.redis_claim import Claims
from pepperbus.storage.redis_copies import left_behind
from pepperbus.storage.redis_keys import ID, Keys, Record, field, pointer_of
from pepperbus.storage.redis_link import Link
from pepperbus.storage.redis_pack import Command, Packed, Part, each, many, pack, several
from pepperbus.storage.redis_wire import Connection

#: Looked up once: an Enum's members cost a third of a microsecond each time.
DONE = Outcome.DONE
_LOOK_AGAIN_S = 0.05  # at what a claim is making of a copy: some trips


class Settlements:
    """Verdicts of this process's owners, and `release`."""

    def __init__(self, link: Link, claims: Claims) -> None:
        self._link = link
        self._claims = claims

    def settle(self, owner: str, batch: Sequence[Settle]) -> int:
        """`Storage.settle`. A batch over several topics may fail in the middle; repeating it is harmless."""
        done: dict[str, list[int]] = {}
        other: dict[str, list[Settle]] = {}
        for one in batch:
            if one.outcome is DONE:
                done.setdefault(one.topic, []).append(one.job_id)
            else:
                other.setdefault(one.topic, []).append(one)
        count, changed = 0, False
        try:
            for topic, ids in done.items():
                count += self._done(owner, topic, ids)
                changed = True
            for topic, group in other.items():
                count += self._decided(owner, topic, group)
                changed = True
        except StorageUnavailable as error:
            if changed:
                raise StorageUnknown(f"some topics are settled, then: {error}") from error
            raise
        for topic, ids in done.items():
            self._claims.forget(topic, owner, ids)
        return count

    def settle_and_lease(
        self, owner: str, batch: Sequence[Settle], topic: str, n: int
    ) -> tuple[int, list[Leased] | None]:
        """`Storage.settle_and_lease`: one trip less where all are done and of one topic."""
        settled = batch[0].topic if batch else ""
        ids = [one.job_id for one in batch if one.outcome is DONE and one.topic == settled]
        if n < 1 or not ids or len(ids) < len(batch) or not self._claims.goes_along(topic, owner):
            return self.settle(owner, batch), self._claims.try_lease(topic, n, owner)
        done = _Done(self._claims, self._link.keys(settled), owner, ids)
        leased = self._claims.lease_along(topic, n, owner, done)
        self._claims.forget(settled, owner, ids)
        return done.count, leased

    def _done(self, owner: str, topic: str, ids: Sequence[int]) -> int:
        done = _Done(self._claims, self._link.keys(topic), owner, ids)
        with self._link.pool.borrow() as connection:
            done.answered(connection, connection.exchange(*done.commands(connection)))
        return done.count

    def _decided(self, owner: str, topic: str, group: Sequence[Settle]) -> int:
        keys = self._link.keys(topic)
        with self._claims.leaving(topic, owner, [one.job_id for one in group]) as repeated:
            return self._link.guarded(lambda connection: self._decide(connection, owner, keys, group, repeated))

    def _decide(self, connection: Connection, owner: str, keys: Keys, group: Sequence[Settle], repeated: bool) -> int:
        """Apply RETRY, DEAD and BACK of one topic to those jobs `owner` still holds.

        `repeated`: the first form may arrive between our look and our move, and must not be applied twice. Only then is
        the owner's list watched: its claims change it all the time.
        """
        fields = [field(one.job_id) for one in group]
        held = keys.held(owner)
        watched = (b"WATCH", keys.owners, held) if repeated else (b"WATCH", keys.owners)
        _, valid, holds, records, *there = connection.ask(
            watched,
            (b"SISMEMBER", keys.owners, owner),
            (b"LRANGE", held, 0, -1),
            many((b"HMGET", keys.att), fields),
            each((b"HEXISTS", keys.job), fields),
        )
        mine = {found[:ID]: found for found in _one_each(connection, keys, holds)} if valid else {}
        verdicts = _Verdicts(keys, self._link.clock.now_ms())
        for one, name, text, exists in zip(group, fields, records, there, strict=True):
            if exists and (found := mine.pop(name, None)):
                verdicts.add(one, name, found, Record.decode(text))
        if not verdicts.pointers:
            connection.ask((b"UNWATCH",))
            return 0
        pointers = verdicts.pointers
        results = self._link.move(connection, verdicts.copies(), [each((b"LREM", held, 0), pointers)])
        left = results[-len(pointers) :]
        if all(left):
            return len(pointers)
        gone = [found for found, mine in zip(pointers, left, strict=True) if not mine]  # done by others since we looked
        there = connection.ask(each((b"HEXISTS", keys.job), [found[:ID] for found in gone]))
        _erase(connection, keys, [found for found, exists in zip(gone, there, strict=True) if not exists])
        return len(pointers) - len(gone)

    def release(self, owner: str, started: Collection[tuple[str, int]] | None) -> list[Released]:
        """`Storage.release`, topic by topic; repeat it when it fails in the middle."""
        self._claims.forget_owner(owner)
        topics = self._link.topics()
        if not topics:
            return []
        registered = self._link.ask(*[(b"SISMEMBER", self._link.keys(topic).owners, owner) for topic in topics])
        released: list[Released] = []
        for topic, known in zip(topics, registered, strict=True):
            if known:
                try:
                    for some in self._take_back_all(owner, self._link.keys(topic), started):
                        released += some
                except StorageUnavailable as error:
                    raise StorageUnknown(f"{len(released)} jobs are taken back, then: {error}") from error
        return released

    def _take_back_all(
        self, owner: str, keys: Keys, started: Collection[tuple[str, int]] | None
    ) -> Iterator[list[Released]]:
        """Once; on Pika until nothing is unclear any more, which a claim that is under way may make of a copy."""
        until = time.monotonic() + self._link.pool.timeout
        while True:
            wait = time.monotonic() < until
            released, is_over = self._link.guarded(lambda c, w=wait: self._take_back(c, owner, keys, started, w))  # type: ignore[misc]
            yield released
            if is_over:
                return
            gevent.sleep(_LOOK_AGAIN_S)

    def _take_back(
        self, connection: Connection, owner: str, keys: Keys, started: Collection[tuple[str, int]] | None, wait: bool
    ) -> tuple[list[Released], bool]:
        """What was taken back, and whether that is all. `wait`: what is unclear stays for another look."""
        held = keys.held(owner)
        _, _, found = connection.ask((b"WATCH", keys.owners), (b"WATCH", held), (b"LRANGE", held, 0, -1))
        found.reverse()
        mine, gone, unclear = _one_each(connection, keys, found), found, set[bytes]()
        if self._link.pika and found:
            ran = {field(job_id) for topic, job_id in started or () if topic == keys.topic}
            begun = {one for one in found if one[:ID] in ran}
            won, unclear = left_behind(connection, keys, owner, found, begun, wait)
            mine = [one for one in mine if one in won]
            gone = [one for one in found if one not in unclear]
        fields = [one[:ID] for one in mine]
        records, *there = (
            connection.ask(many((b"HMGET", keys.att), fields), each((b"HEXISTS", keys.job), fields)) if mine else [[]]
        )
        verdicts, released = _Verdicts(keys, self._link.clock.now_ms()), []
        for one, name, text, exists in zip(mine, fields, records, there, strict=True):
            if exists:
                has_run = started is None or (keys.topic, int(name)) in started
                released.append(verdicts.take_back(one, name, Record.decode(text), has_run))
        removals: list[Part] = [each((b"LREM", held, 0), gone)]
        if not unclear:
            removals.append((b"SREM", keys.owners, owner))
        self._link.move(connection, verdicts.copies(), removals)
        return released, not unclear


class _Done:
    """Jobs of one topic that are done and leave.

    No transaction: a full Redis takes these commands alone, but nothing within MULTI.
    """

    def __init__(self, claims: Claims, keys: Keys, owner: str, ids: Sequence[int]) -> None:
        self.count = 0
        self._keys = keys
        self._owner = owner
        self._ids = ids
        self._held = claims.held(keys.topic, owner)
        self._pointers: list[bytes] = []

    def commands(self, connection: Connection) -> Packed:
        keys = self._keys
        pointers = self._pointers = self._find(connection)
        fields = [found[:ID] for found in pointers]
        removals = each((b"LREM", keys.held(self._owner), 0), pointers)
        return pack((several(((b"HDEL", keys.job), (b"HDEL", keys.att)), fields), removals))

    def answered(self, connection: Connection, replies: Sequence[Any]) -> None:
        connection.check_told(replies)
        self.count = int(replies[0])
        left = replies[2:]
        if not all(left):
            gone = [found for found, mine in zip(self._pointers, left, strict=True) if not mine]
            _erase(connection, self._keys, gone)

    def _find(self, connection: Connection) -> list[bytes]:
        """The pointers of these jobs; asked of Redis for those that were leased through another instance."""
        held, ids = self._held, self._ids
        try:
            return [held[job_id] for job_id in ids]
        except KeyError:
            fields = [field(job_id) for job_id in ids]
            stored = connection.ask(many((b"HMGET", self._keys.job), fields))[0]
        return [
            held.get(job_id) or pointer_of(name, body) or name
            for job_id, name, body in zip(ids, fields, stored, strict=True)
        ]


class _Verdicts:
    """The commands that put jobs of one topic where they belong next."""

    def __init__(self, keys: Keys, now_ms: int) -> None:
        self.pointers: list[bytes] = []
        self._keys = keys
        self._now_ms = now_ms
        self._copies: list[Command] = []
        self._back: list[bytes] = []

    def add(self, one: Settle, name: bytes, found: bytes, record: Record) -> None:
        if one.spent:
            record = record._replace(attempts=record.attempts + one.spent)
            self._copies.append((b"HSET", self._keys.att, name, record.encode()))
        if one.outcome is Outcome.RETRY:
            self._copies.append((b"ZADD", self._keys.delay, one.due_ms, found))
        elif one.outcome is Outcome.DEAD:
            self._bury(name, found, one.reason)
        else:
            self._back.append(found)
        self.pointers.append(found)

    def take_back(self, found: bytes, name: bytes, record: Record, ran: bool) -> Released:
        attempt = record.attempts + 1
        dead = ran and record.crashes + 1 >= CRASH_LIMIT
        if ran:
            record = Record(attempt, record.crashes + 1, record.first_due_ms)
            self._copies.append((b"HSET", self._keys.att, name, record.encode()))
        if dead:
            self._bury(name, found, f"its worker died {record.crashes} times while it ran")
        else:
            self._back.append(found)
        self.pointers.append(found)
        return Released(self._keys.topic, int(name), attempt, ran, dead)

    def _bury(self, name: bytes, found: bytes, reason: str) -> None:
        self._copies.append((b"HSET", self._keys.why, name, reason.encode(errors="replace")))
        self._copies.append((b"ZADD", self._keys.dead, self._now_ms, found))

    def copies(self) -> list[Command]:
        """All of them; what goes back stands ahead of everything, the first foremost."""
        if not self._back:
            return self._copies
        return [*self._copies, (b"RPUSH", self._keys.ready, *reversed(self._back))]


def _one_each(connection: Connection, keys: Keys, pointers: list[bytes]) -> list[bytes]:
    """Of several pointers to one job the good one: a claim that was cut off may have left what a repeated push made, too."""
    names = Counter([found[:ID] for found in pointers])
    if len(names) == len(pointers):
        return pointers
    doubled = [name for name, count in names.items() if count > 1]
    bodies = connection.ask(many((b"HMGET", keys.job), doubled))[0]
    good = {pointer_of(name, stored) for name, stored in zip(doubled, bodies, strict=True)}
    return [found for found in dict.fromkeys(pointers) if names[found[:ID]] == 1 or found in good]


def _erase(connection: Connection, keys: Keys, pointers: Sequence[bytes]) -> None:
    """Take pointers of done jobs away from wherever they are now: the owner was released and others have them."""
    owners = connection.ask((b"SMEMBERS", keys.owners))[0]
    commands: list[Command] = []
    for found in pointers:
        commands += [(b"LREM", keys.ready, 0, found), (b"ZREM", keys.delay, found), (b"ZREM", keys.dead, found)]
        commands += [(b"LREM", keys.held(owner.decode(errors="replace")), 0, found) for owner in owners]
        commands += [(b"HDEL", key, found[:ID]) for key in (keys.att, keys.why)]
    if commands:
        connection.tell(*commands)
