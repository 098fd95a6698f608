"""Looking at a topic in Redis, and what an operator does with its waiting and dead jobs: promote, replay, remove.

Floor 3. A listing is made while jobs move: it may miss one or show one twice, but what it shows is there.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pepperbus.errors import StorageError
from pepperbus.job import State
from pepperbus.storage.contract import Page, Stored
from pepperbus.storage.redis_keys import ID, NONCE, Keys, Record, field, is_good, pointer_of
from pepperbus.storage.redis_link import Link
from pepperbus.storage.redis_pack import Command
from pepperbus.storage.redis_wire import Connection

_LATEST_MS = float(1 << 53)  # of scores; somebody else's may be infinite


def peek(link: Link, topic: str, state: State, cursor: str, n: int) -> Page:
    """`Storage.peek`. The cursor is the last job seen; of ready ones a place in line, which those that leave it shift."""
    keys = link.keys(topic)
    if state is State.READY:
        start = int(cursor or 0)
        rows = _line(link, keys, start, n + 1)
    else:
        rows = _held(link, keys, cursor) if state is State.LEASED else _scored(link, keys, state, cursor, n + 1)
    more, rows = len(rows) > n, rows[:n]
    jobs, stale = _stored(link, keys, state, rows)
    if stale and state in (State.DELAYED, State.DEAD):
        _prune(link, keys.delay if state is State.DELAYED else keys.dead, stale)
    if not more:
        return Page(jobs, "")
    return Page(
        jobs, str(start + n) if state is State.READY else f"{rows[-1][1]}:{rows[-1][0].decode(errors='replace')}"
    )


_Row = tuple[bytes, int, str]  # pointer, score, owner


def _line(link: Link, keys: Keys, start: int, n: int) -> list[_Row]:
    found = link.ask((b"LRANGE", keys.ready, -(start + n), -(start + 1)))[0]
    return [(one, 0, "") for one in reversed(found)]


def _scored(link: Link, keys: Keys, state: State, cursor: str, n: int) -> list[_Row]:
    """Up to `n` (a few more, perhaps) of the delayed or dead ones behind `cursor`, however many have one score."""
    if state is State.DEAD:
        verb, key, first, end, is_behind = b"ZREVRANGEBYSCORE", keys.dead, "+inf", b"-inf", operator.lt
    else:
        verb, key, first, end, is_behind = b"ZRANGEBYSCORE", keys.delay, "-inf", b"+inf", operator.gt
    score, _, last = cursor.partition(":")
    wanted = n
    while True:
        flat = link.ask((verb, key, score or first, end, b"WITHSCORES", b"LIMIT", 0, wanted))[0]
        rows = [(one, _ms(at), "") for one, at in zip(flat[::2], flat[1::2], strict=True)]
        found = [row for row in rows if not cursor or is_behind((row[1], row[0]), (int(score), last.encode()))]
        if len(found) >= n or len(rows) < wanted:
            return found
        wanted *= 2


def _held(link: Link, keys: Keys, cursor: str = "") -> list[_Row]:
    """All that owners hold, in the order of their ids: they are what runs."""
    owners = sorted(owner.decode(errors="replace") for owner in link.ask((b"SMEMBERS", keys.owners))[0])
    lists = link.ask(*[(b"LRANGE", keys.held(owner), 0, -1) for owner in owners]) if owners else []
    after = cursor.partition(":")[2].encode()
    return sorted((one, 0, owner) for owner, found in zip(owners, lists, strict=True) for one in found if one > after)


def _prune(link: Link, key: bytes, stale: Sequence[bytes]) -> None:
    """A pointer that leads nowhere never leads anywhere again, and nobody else meets those of dead jobs."""
    with suppress(StorageError):
        link.tell((b"ZREM", key, *stale))


def _stored(link: Link, keys: Keys, state: State, rows: Sequence[_Row]) -> tuple[list[Stored], list[bytes]]:
    """The jobs of these rows, and the pointers that lead to none."""
    if not rows:
        return [], []
    fields = [found[:ID] for found, _, _ in rows]
    bodies, records, *whys = link.ask(
        (b"HMGET", keys.job, *fields),
        (b"HMGET", keys.att, *fields),
        *([(b"HMGET", keys.why, *fields)] if state is State.DEAD else []),
    )
    reasons = whys[0] if whys else [None] * len(rows)
    jobs = [
        _one(keys.topic, state, found, stored, text, score, reason, owner)
        for (found, score, owner), stored, text, reason in zip(rows, bodies, records, reasons, strict=True)
        if is_good(found, stored)
    ]
    return jobs, [row[0] for row, stored in zip(rows, bodies, strict=True) if not is_good(row[0], stored)]


def _one(
    topic: str, state: State, found: bytes, stored: bytes, text: Any, score: int, reason: Any, owner: str
) -> Stored:
    record = Record.decode(text)
    return Stored(
        topic,
        int(found[:ID]),
        state,
        stored[NONCE:],
        record.attempts,
        record.crashes,
        due_ms=score if state is State.DELAYED else 0,
        reason=(reason or b"").decode(errors="replace") if state is State.DEAD else "",
        dead_ms=score if state is State.DEAD else 0,
        owner=owner,
        first_due_ms=record.first_due_ms,
    )


def find(link: Link, job_id: int, topics: Sequence[str]) -> list[Stored]:
    """`Storage.find`: a job that is nowhere else is in line, which is not searched."""
    name, found = field(job_id), []
    for topic in topics:
        keys = link.keys(topic)
        stored, text, reason = link.ask((b"HGET", keys.job, name), (b"HGET", keys.att, name), (b"HGET", keys.why, name))
        if stored is None:
            continue
        good = pointer_of(name, stored)
        due, died = link.ask((b"ZSCORE", keys.delay, good), (b"ZSCORE", keys.dead, good))
        holders = [owner for one, _, owner in _held(link, keys) if one == good]
        state, score = State.READY, 0
        if holders:
            state = State.LEASED
        elif due is not None:
            state, score = State.DELAYED, _ms(due)
        elif died is not None:
            state, score = State.DEAD, _ms(died)
        found.append(_one(topic, state, good, stored, text, score, reason, holders[0] if holders else ""))
    return found


def promote(link: Link, topic: str, now_ms: int, n: int) -> tuple[int, int]:
    """`Storage.promote`. Several processes may do it at once: each watches the delayed ones while it looks."""
    keys = link.keys(topic)

    def act(connection: Connection) -> tuple[int, int]:
        _, due, first = connection.ask(
            (b"WATCH", keys.delay),
            (b"ZRANGEBYSCORE", keys.delay, b"-inf", now_ms, b"LIMIT", 0, n),
            (b"ZRANGE", keys.delay, 0, 0, b"WITHSCORES"),
        )
        if not due:
            connection.ask((b"UNWATCH",))
            return 0, _score(first)
        link.move(connection, [(b"LPUSH", keys.ready, *due)], [(b"ZREM", keys.delay, *due)])
        return len(due), _score(connection.ask((b"ZRANGE", keys.delay, 0, 0, b"WITHSCORES"))[0])

    first = link.ask((b"ZRANGE", keys.delay, 0, 0, b"WITHSCORES"))[0]
    if not first or _score(first) > now_ms:
        return 0, _score(first)
    return link.guarded(act)


def _score(first: Sequence[bytes]) -> int:
    return _ms(first[1]) if first else 0


def _ms(score: bytes) -> int:
    return int(min(max(float(score), 0.0), _LATEST_MS))


def replay(link: Link, topic: str, job_ids: Sequence[int]) -> int:
    """`Storage.replay`. The age begins anew too, or `max_age` would end the job at once."""
    keys = link.keys(topic)
    fields = [field(job_id) for job_id in dict.fromkeys(job_ids)]
    fresh = Record(first_due_ms=link.clock.now_ms()).encode()

    def act(connection: Connection) -> int:
        bodies = connection.ask((b"HMGET", keys.job, *fields))[0]
        good = [found for name, stored in zip(fields, bodies, strict=True) if (found := pointer_of(name, stored))]
        if not good:
            return 0
        _, _, *scores = connection.ask(
            (b"WATCH", keys.delay),
            (b"WATCH", keys.dead),
            *[(b"ZSCORE", key, found) for found in good for key in (keys.delay, keys.dead)],
        )
        waiting = [found for i, found in enumerate(good) if scores[2 * i : 2 * i + 2] != [None, None]]
        if not waiting:
            connection.ask((b"UNWATCH",))
            return 0
        copies: list[Command] = [(b"HSET", keys.att, found[:ID], fresh) for found in waiting]
        copies.append((b"LPUSH", keys.ready, *waiting))
        names = [found[:ID] for found in waiting]
        removals = [(b"ZREM", keys.delay, *waiting), (b"ZREM", keys.dead, *waiting), (b"HDEL", keys.why, *names)]
        link.move(connection, copies, removals)
        return len(waiting)

    return link.guarded(act) if fields else 0


def remove(link: Link, topic: str, job_ids: Sequence[int]) -> int:
    """`Storage.remove`: whoever takes the pointer out of its place may delete the body.

    Which ones are meant is noted in the first step. What a crash leaves, bodies without a pointer, `upkeep` removes again.
    """
    keys = link.keys(topic)
    fields = [field(job_id) for job_id in dict.fromkeys(job_ids)]
    if not fields:
        return 0
    with link.pool.borrow() as connection:
        bodies = connection.ask((b"HMGET", keys.job, *fields))[0]
        good = [found for name, stored in zip(fields, bodies, strict=True) if (found := pointer_of(name, stored))]
        if not good:
            connection.tell((b"SREM", keys.going, *fields))
            return 0
        noted = (b"SADD", keys.going, *[found[:ID] for found in good])
        taken = connection.together([noted, *_removals(keys, good)])[1:]
        ours = [found for i, found in enumerate(good) if any(taken[3 * i : 3 * i + 3])]
        orphans = _orphans(connection, keys, [found for found in good if found not in ours])
        ours += orphans
        last: list[Command] = [(b"SREM", keys.going, *fields)]
        if ours:
            names = [found[:ID] for found in ours]
            last = [(b"HDEL", key, *names) for key in (keys.job, keys.att, keys.why)] + last
        # An orphan may have been given back since we looked: its pointer goes with its body.
        done = connection.together([*last, *_removals(keys, orphans)])
        return int(done[0]) if ours else 0


def _removals(keys: Keys, pointers: Sequence[bytes]) -> list[Command]:
    """Out of whatever place of waiting they are in: three commands each."""
    return [
        command
        for found in pointers
        for command in ((b"ZREM", keys.delay, found), (b"ZREM", keys.dead, found), (b"LREM", keys.ready, 0, found))
    ]


def going(link: Link, topics: Sequence[str]) -> dict[str, set[int]]:
    """Topic -> jobs whose removal has begun and not ended."""
    sets = link.ask(*[(b"SMEMBERS", link.keys(topic).going) for topic in topics]) if topics else []
    return {
        topic: {int(one) for one in found if one.isdigit()} for topic, found in zip(topics, sets, strict=True) if found
    }


def _orphans(connection: Connection, keys: Keys, missed: Sequence[bytes]) -> list[bytes]:
    """Those of `missed` (found in no place of waiting) that no owner holds either."""
    if not missed:
        return []
    owners = connection.ask((b"SMEMBERS", keys.owners))[0]
    lists = (
        connection.ask(*[(b"LRANGE", keys.held(owner.decode(errors="replace")), 0, -1) for owner in owners])
        if owners
        else []
    )
    held = {found for one in lists for found in one}
    return [found for found in missed if found not in held]
