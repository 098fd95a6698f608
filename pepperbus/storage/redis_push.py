"""Pushes into Redis: one transaction a batch, over all its topics.

Floor 3. The body is stored under the job's id only if nothing is there (HSETNX), its pointer carries the nonce of this
call (see `redis_keys`): repeating a push whose answer was lost neither doubles a job nor loses it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pepperbus import names
from pepperbus.errors import StorageError, StorageUnavailable
from pepperbus.storage.columns import as_lines
from pepperbus.storage.contract import Line, Push
from pepperbus.storage.redis_facts import parse_info
from pepperbus.storage.redis_keys import ID, NONCE, Keys, Record, field, pointer, pointer_of
from pepperbus.storage.redis_link import Link
from pepperbus.storage.redis_pack import Command, Packed, Part, many, pack
from pepperbus.storage.redis_wire import Connection, InPart

FULL = 0.85  # of maxmemory: above it Redis takes no new jobs
CHECK_S = 0.25  # how long a look at the memory is good for
_LOOK = 1000  # pointers looked at in one go when one is missed


@lru_cache(maxsize=4096)
def _announced(topics: tuple[str, ...]) -> Packed:
    """The last commands of every push: the topics are known, and whoever waits for them on another node is woken."""
    wakes = [(b"PUBLISH", names.wake_channel(topic), b"1") for topic in topics]
    return pack([(b"SADD", names.REDIS_TOPICS, *topics), *wakes])


class Batch:
    """The commands of one push. `stores[i]` is the place (keys, job field, removal of its pointer) of the i-th command."""

    def __init__(self) -> None:
        self.nonce = os.urandom(NONCE // 2).hex().encode()
        self.bodies: list[Command] = []
        self.stores: list[tuple[Keys, bytes, Command]] = []
        self.records: list[Command] = []
        self._lines: dict[tuple[bytes, bytes], list[bytes]] = {}
        self._topics: dict[str, None] = {}
        self._seen: set[tuple[str, int]] = set()

    def add(self, keys: Keys, push: Push) -> None:
        if (keys.topic, push.job_id) in self._seen:
            return
        self._seen.add((keys.topic, push.job_id))
        self._topics[keys.topic] = None
        job_field, found = field(push.job_id), pointer(push.job_id, self.nonce)
        self.bodies.append((b"HSETNX", keys.job, job_field, self.nonce + push.body))
        removal: Command
        past = Record(*push.past) if push.past else Record(first_due_ms=push.due_ms)
        if push.past or (push.due_ms and not push.dead):
            self.records.append((b"HSETNX", keys.att, job_field, past.encode()))
        if push.dead:
            self.records.append((b"HSETNX", keys.why, job_field, push.dead.encode(errors="replace")))
            self.records.append((b"ZADD", keys.dead, time.time_ns() // 1_000_000, found))
            removal = (b"ZREM", keys.dead, found)
        elif push.due_ms:
            self.records.append((b"ZADD", keys.delay, push.due_ms, found))
            removal = (b"ZREM", keys.delay, found)
        else:
            self._lines.setdefault((b"RPUSH" if push.front else b"LPUSH", keys.ready), []).append(found)
            removal = (b"LREM", keys.ready, -1 if push.front else 1, found)
        self.stores.append((keys, job_field, removal))

    def commands(self) -> list[Part]:
        lines = [(verb, key, *pointers) for (verb, key), pointers in self._lines.items()]
        return [*self.bodies, *self.records, *lines, _announced(tuple(self._topics))]


class _Columns:
    """The same commands as `Batch` for jobs that all just join their lines, packed by the column: a third of its time.

    `stores()` is only wanted when one of the bodies was there already.
    """

    def __init__(self, link: Link, lines: Sequence[Line]) -> None:
        self.nonce = os.urandom(NONCE // 2).hex().encode()
        self._columns: list[tuple[Keys, list[bytes], list[bytes]]] = []
        for topics, ids, bodies in lines:
            fields = [field(job_id) for job_id in ids]
            self._columns += [(link.keys(topic), fields, bodies) for topic in topics]
        self.jobs = sum(len(fields) for _, fields, _ in self._columns)  # commands that store a body; they come first

    def commands(self) -> list[Part]:
        nonce = self.nonce
        stores: list[Part] = []
        lines: list[Part] = []
        for keys, fields, bodies in self._columns:
            start = b"*4\r\n$6\r\nHSETNX\r\n$%d\r\n%b\r\n$%d\r\n" % (len(keys.job), keys.job, ID)
            packed = [
                b"%b%b\r\n$%d\r\n%b%b\r\n" % (start, one, len(body) + NONCE, nonce, body)
                for one, body in zip(fields, bodies, strict=True)
            ]
            stores.append(Packed(b"".join(packed), len(packed)))
            lines.append(many((b"LPUSH", keys.ready), [b"%b:%b" % (one, nonce) for one in fields]))
        return [*stores, *lines, _announced(tuple([keys.topic for keys, _, _ in self._columns]))]

    def stores(self) -> list[tuple[Keys, bytes, Command]]:
        return [
            (keys, one, (b"LREM", keys.ready, 1, b"%b:%b" % (one, self.nonce)))
            for keys, fields, _ in self._columns
            for one in fields
        ]


class Pushes:
    """Pushes of this process."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._looked_at = -CHECK_S

    def push(self, batch: Sequence[Push], limits: Mapping[str, int] | None = None) -> list[int]:
        """`Storage.push`. The limits are looked at just before: pushes of others at that moment are not seen."""
        link = self._link
        with link.pool.borrow() as connection:
            self.check_memory(connection)
            if not limits and (lines := as_lines(batch)):
                columns = _Columns(link, lines)
                results = stored(connection, columns.commands(), columns.stores)
                if not all(results[: columns.jobs]):
                    undo_repeated(link, connection, columns.stores(), results)
                return []
            refused = over_limit(link, connection, batch, limits) if limits else []
            commands = Batch()
            for index, one in enumerate(batch):
                if index not in refused:
                    for topic in one.topics:
                        commands.add(link.keys(topic), one)
            if commands.bodies:
                results = stored(connection, commands.commands(), lambda: commands.stores)
                undo_repeated(link, connection, commands.stores, results)
        return refused

    def check_memory(self, connection: Connection) -> None:
        """A full Redis refuses claims too, so jobs could never leave it again: stop filling it before."""
        now = time.monotonic()
        if now - self._looked_at < CHECK_S:
            return
        info = parse_info(connection.ask((b"INFO", b"memory"))[0])
        used, limit = int(info.get("used_memory", "0")), int(info.get("maxmemory", "0"))
        if limit and used > limit * FULL:
            raise StorageUnavailable(
                f"{self._link.pool.address}: OOM: {used} of {limit} bytes are used; new jobs are refused above {FULL:.0%}"
            )
        self._looked_at = now


def over_limit(link: Link, connection: Connection, batch: Sequence[Push], limits: Mapping[str, int]) -> list[int]:
    """The indexes of pushes for which one of their topics has no room; a job that is already there needs none."""
    limited = sorted({t for one in batch for t in one.topics if limits.get(t, 0) > 0 and not one.dead})
    if not limited:
        return []
    every = [link.keys(topic) for topic in limited]
    counts = connection.ask(*[c for keys in every for c in ((b"LLEN", keys.ready), (b"ZCARD", keys.delay))])
    room = {t: limits[t] - counts[2 * i] - counts[2 * i + 1] for i, t in enumerate(limited)}
    refused = []
    for index, one in enumerate(batch):
        needs = [topic for topic in one.topics if topic in room and not one.dead]
        full = [topic for topic in needs if room[topic] <= 0]
        if full and not all(connection.ask(*[(b"HEXISTS", link.keys(t).job, field(one.job_id)) for t in full])):
            refused.append(index)
            continue
        for topic in needs:
            room[topic] -= 1
    return refused


Stores = Sequence[tuple[Keys, bytes, Command]]


def stored(
    connection: Connection,
    commands: Sequence[Part],
    stores: Callable[[], Stores],
    undo: Callable[[bool], Sequence[Command]] = lambda whole: (),
) -> list[Any]:
    """The results of a push. Where a key of another type kept part of it out, it takes back what it can of the rest: a body
    without a pointer would be counted and never run. Raises StorageUnavailable when nothing is left of it.

    `undo(whole)`: what takes back the other commands; `whole`: all of the push is.
    """
    try:
        return connection.together(commands)
    except InPart as error:
        every = list(stores())
        replies = connection.exchange(*pack([removal for _, _, removal in every]))
        gone = [reply != 0 for reply in replies]  # by us, or it never got there; else somebody has claimed it
        bodies = [
            (keys, job_field)
            for (keys, job_field, _), result, is_gone in zip(every, error.results, gone, strict=False)
            if result == 1 and is_gone
        ]
        is_whole = all(gone) and 0 not in error.results[: len(every)]
        drops: list[Part] = [(b"HDEL", key, name) for keys, name in bodies for key in (keys.job, keys.att, keys.why)]
        connection.exchange(*pack([*drops, *undo(is_whole)]))
        if is_whole:
            raise StorageUnavailable(str(error)) from error
        raise


def undo_repeated(
    link: Link, connection: Connection, stores: Sequence[tuple[Keys, bytes, Command]], results: Sequence[int]
) -> None:
    """Take out the second pointers. They would do no harm (their nonce is wrong), but they would be counted."""
    repeated = [store for store, new in zip(stores, results, strict=False) if not new]
    if not repeated:
        return
    if link.pika:
        for keys, job_field, _ in repeated:
            _relink(connection, keys, job_field)
    try:
        connection.tell(*[removal for _, _, removal in repeated])
    except StorageError:
        pass  # the jobs are stored, and that is what was asked; whoever claims these pointers drops them


def _relink(connection: Connection, keys: Keys, job_field: bytes) -> None:
    """Pika, killed in the middle of a push, may hold the body without its pointer: look everywhere, else add it.

    A job that moves while we look may get a second pointer and run twice; it cannot get none.
    """
    stored, owners = connection.ask((b"HGET", keys.job, job_field), (b"SMEMBERS", keys.owners))
    good = pointer_of(job_field, stored)
    if not good:
        return
    lists = [(b"LRANGE", keys.held(owner.decode()), 0, -1) for owner in owners]
    due, died, *held = connection.ask((b"ZSCORE", keys.delay, good), (b"ZSCORE", keys.dead, good), *lists)
    if due is None and died is None and not any(good in one for one in held) and not _in_line(connection, keys, good):
        connection.tell((b"RPUSH", keys.ready, good))


def _in_line(connection: Connection, keys: Keys, good: bytes) -> bool:
    start = 0
    while found := connection.ask((b"LRANGE", keys.ready, start, start + _LOOK - 1))[0]:
        if good in found:
            return True
        start += _LOOK
    return False
