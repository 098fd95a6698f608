"""Redis: pushes under a name that only one job may hold, and small texts that change together with a push.

Floor 3. Both watch their keys, look, and write in one transaction, so that whoever was quicker is seen. The pushes stand
before the names: a Pika killed in the middle may leave a job whose name is free, so that at worst it runs twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pepperbus import names
from pepperbus.storage.contract import Claim, Once, Push
from pepperbus.storage.redis_keys import field
from pepperbus.storage.redis_link import Link
from pepperbus.storage.redis_pack import Command
from pepperbus.storage.redis_push import Batch, Pushes, over_limit, stored, undo_repeated
from pepperbus.storage.redis_wire import Connection


def push_once(link: Link, pushes: Pushes, batch: Sequence[Once], limits: Mapping[str, int] | None) -> list[int]:
    """`Storage.push_once`. The limits are looked at just before, as with any push."""
    if not batch:
        return []
    keys = [names.redis_once(one.name) for one in batch]

    def act(connection: Connection) -> list[int]:
        pushes.check_memory(connection)
        _, held = connection.ask((b"WATCH", *keys), (b"MGET", *keys))
        holders = _holders(link, connection, batch, held)
        fresh = [i for i, one in enumerate(batch) if holders[i] == one.push.job_id and not _is_ours(held[i], one)]
        if limits:
            refused = over_limit(link, connection, [batch[i].push for i in fresh], limits)
            lost = {batch[fresh[i]].push.job_id for i in refused}
            holders = [0 if holder in lost else holder for holder in holders]
            fresh = [i for i in fresh if holders[i]]
        if not fresh:
            connection.ask((b"UNWATCH",))
            return holders
        claims: list[Command] = [(b"SET", keys[i], b"%d" % batch[i].push.job_id, b"PX", batch[i].ttl_ms) for i in fresh]
        names_free: list[Command] = [(b"DEL", keys[i]) for i in fresh]
        _store(link, connection, [batch[i].push for i in fresh], claims, lambda whole: names_free if whole else ())
        return holders

    return link.guarded(act)


def _holders(link: Link, connection: Connection, batch: Sequence[Once], held: Sequence[bytes | None]) -> list[int]:
    """Who holds each name once the batch is stored: another job, or the push's own."""
    taken: dict[str, int] = {}
    found = []
    for one, record in zip(batch, held, strict=True):
        holder = taken.get(one.name, 0)
        if not holder and record and record.isdigit():
            other = int(record)
            if other == one.push.job_id or not one.alive or _waits(link, connection, other, one.push.topics):
                holder = other
        taken[one.name] = holder = holder or one.push.job_id
        found.append(holder)
    return found


def _is_ours(record: bytes | None, one: Once) -> bool:
    return record is not None and record.isdigit() and int(record) == one.push.job_id


def _waits(link: Link, connection: Connection, job_id: int, topics: Sequence[str]) -> bool:
    """Whether the job is in one of `topics` and not dead there: the dead have a reason."""
    every = [link.keys(topic) for topic in topics]
    name = field(job_id)
    found = connection.ask(*[(b"HEXISTS", key, name) for keys in every for key in (keys.job, keys.why)])
    return any(there and not died for there, died in zip(found[::2], found[1::2], strict=True))


def recall(link: Link, name: str) -> str:
    """`Storage.recall`."""
    found = link.ask((b"GET", names.redis_text(name)))[0]
    return found.decode() if found else ""


def swap(
    link: Link, pushes: Pushes, name: str, old: str, new: str, batch: Sequence[Push], claims: Sequence[Claim]
) -> str:
    """`Storage.swap`."""
    key = names.redis_text(name)

    def act(connection: Connection) -> str:
        if batch:
            pushes.check_memory(connection)
        _, record = connection.ask((b"WATCH", key), (b"GET", key))
        found = record.decode() if record else ""
        if found != old or found == new:
            connection.ask((b"UNWATCH",))
            return found
        texts: list[Command] = [(b"SET", key, new) if new else (b"DEL", key)]
        texts += [(b"SET", names.redis_once(one.name), b"%d" % one.job_id, b"PX", one.ttl_ms) for one in claims]
        before: Command = (b"SET", key, old) if old else (b"DEL", key)
        _store(link, connection, batch, texts, lambda whole: [before])
        return new

    return link.guarded(act)


def _store(
    link: Link,
    connection: Connection,
    batch: Sequence[Push],
    claims: Sequence[Command],
    undo: Callable[[bool], Sequence[Command]],
) -> None:
    commands = Batch()
    for one in batch:
        for topic in one.topics:
            commands.add(link.keys(topic), one)
    stores = commands.commands() if commands.bodies else []
    results = stored(connection, [*stores, *claims], lambda: commands.stores, undo)
    undo_repeated(link, connection, commands.stores, results)
