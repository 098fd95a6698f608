"""Looking at a topic as a stream: XLEN, XINFO, XRANGE, XREVRANGE; and XDEL of what nobody has read.

Floor 4. The shapes of Redis 7, as in `streams`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pepperbus.errors import StorageError
from pepperbus.gateway import entries
from pepperbus.gateway.entries import Id
from pepperbus.gateway.place import Place
from pepperbus.gateway.session import Answer, Later, Session
from pepperbus.gateway.streams import BAD_ID, MOST, NOT_A_NUMBER, SYNTAX, arity, find, guarded, number
from pepperbus.job import Job, State
from pepperbus.journal.contract import Row
from pepperbus.storage.contract import Stored
from pepperbus.wire import resp

_LOOKED = (State.LEASED, State.READY, State.DELAYED)


def xlen(session: Session, args: resp.Command) -> Answer:
    """Jobs that are not done: ready, delayed and read."""
    if len(args) != 2:
        return arity(args)
    place = find(session, args[1])
    return place if isinstance(place, bytes) else Later(lambda: guarded(lambda: resp.integer(_length(place))))


def _length(place: Place) -> int:
    depth = place.lane.storage.depth(place.name)
    return depth.ready + depth.delayed + depth.leased


def xinfo(session: Session, args: resp.Command) -> Answer:
    """`XINFO STREAM|GROUPS key`, `XINFO CONSUMERS key group`."""
    what = args[1].upper() if len(args) > 1 else b""
    if what not in (b"STREAM", b"GROUPS", b"CONSUMERS"):
        return resp.error(f"ERR unknown subcommand '{args[1][:64].decode(errors='replace')}'") if what else arity(args)
    if len(args) != (4 if what == b"CONSUMERS" else 3):
        if what == b"STREAM" and len(args) > 3:
            return resp.error("ERR XINFO STREAM … FULL is not offered: XINFO GROUPS and XPENDING say it")
        return arity(args)
    place = find(session, args[2], args[3] if what == b"CONSUMERS" else None)
    if isinstance(place, bytes):
        return place
    look = {b"CONSUMERS": _consumers, b"STREAM": _stream, b"GROUPS": _groups}[what]
    return Later(lambda: guarded(lambda: look(session, place)))


def _consumers(session: Session, place: Place) -> bytes:
    now_ms = session.process.clock.now_ms()
    return resp.array(
        [
            resp.mapping(
                (
                    (b"name", resp.bulk(one.name)),
                    (b"pending", resp.integer(one.pending)),
                    (b"idle", resp.integer(max(now_ms - one.seen_ms, 0))),
                ),
                session.protocol,
            )
            for one in session.front.circle.company(place).readers
        ]
    )


def _groups(session: Session, place: Place) -> bytes:
    depth, company = place.lane.storage.depth(place.name), session.front.circle.company(place)
    facts = (
        (b"name", resp.bulk(place.topic.name.encode())),
        (b"consumers", resp.integer(len(company.readers))),
        (b"pending", resp.integer(depth.leased)),
        (b"last-delivered-id", resp.bulk(entries.spell(company.last))),
        (b"entries-read", resp.null(session.protocol)),
        (b"lag", resp.integer(depth.ready + depth.delayed)),
    )
    return resp.array((resp.mapping(facts, session.protocol),))


def _stream(session: Session, place: Place) -> bytes:
    depth = place.lane.storage.depth(place.name)
    seen = _look(place, entries.LOWEST, entries.HIGHEST)
    none = resp.null(session.protocol)
    first, last = (_encoded(seen[0]), _encoded(seen[-1])) if seen else (none, none)
    highest = max([session.front.circle.company(place).last, *(entries.entry_of(one.job_id) for one in seen[-1:])])
    lowest = entries.entry_of(seen[0].job_id) if seen else entries.LOWEST
    facts = (
        (b"length", resp.integer(depth.ready + depth.delayed + depth.leased)),
        (b"radix-tree-keys", resp.integer(1)),
        (b"radix-tree-nodes", resp.integer(2)),
        (b"last-generated-id", resp.bulk(entries.spell(highest))),
        (b"max-deleted-entry-id", resp.bulk(entries.spell(entries.LOWEST))),
        (b"entries-added", resp.integer(depth.ready + depth.delayed + depth.leased)),
        (b"recorded-first-entry-id", resp.bulk(entries.spell(lowest))),
        (b"groups", resp.integer(1)),
        (b"first-entry", first),
        (b"last-entry", last),
    )
    return resp.mapping(facts, session.protocol)


def xrange(session: Session, args: resp.Command) -> Answer:
    return _range(session, args, False)


def xrevrange(session: Session, args: resp.Command) -> Answer:
    return _range(session, args, True)


def _range(session: Session, args: resp.Command, down: bool) -> Answer:
    """Look, change nothing: of the first 1000 jobs that are not done."""
    if len(args) not in (4, 6):
        return arity(args) if len(args) < 4 else SYNTAX
    place = find(session, args[1])
    if isinstance(place, bytes):
        return place
    bounds = entries.parse_range(args[3], args[2]) if down else entries.parse_range(args[2], args[3])
    count = MOST if len(args) == 4 else number(args[5])
    if len(args) == 6 and args[4].upper() != b"COUNT":
        return SYNTAX
    if bounds is None:
        return BAD_ID
    if count is None:
        return NOT_A_NUMBER

    def look() -> bytes:
        seen = _look(place, *bounds)
        return resp.array([_encoded(one) for one in (reversed(seen) if down else seen)][: max(count, 0)])

    return Later(lambda: guarded(look))


def _look(place: Place, low: Id, high: Id) -> list[Stored]:
    """Up to MOST jobs that are not done, lowest id first."""
    found: list[Stored] = []
    for state in _LOOKED:
        cursor = ""
        while len(found) < MOST:
            page = place.lane.storage.peek(place.name, state, cursor, 100)
            found += [one for one in page.jobs if low <= entries.entry_of(one.job_id) <= high]
            cursor = page.cursor
            if not cursor:
                break
    return sorted(found, key=lambda one: one.job_id)


def _encoded(stored: Stored) -> bytes:
    try:
        job = Job.decode(stored.body)
    except ValueError:
        job = Job(stored.job_id, "", b"")
    return entries.encode(job, stored.attempts + (stored.state is State.LEASED))


def xdel(session: Session, args: resp.Command) -> Answer:
    """`XDEL key id …`: delete jobs that nobody has read."""
    if len(args) < 3:
        return arity(args)
    place = find(session, args[1])
    if isinstance(place, bytes):
        return place
    parsed = [entries.parse(word) for word in args[2:]]
    if None in parsed:
        return BAD_ID
    jobs = [entries.job_of(entry) for entry in parsed if entry is not None]
    return Later(lambda: guarded(lambda: _delete(session, place, [job_id for job_id in jobs if job_id])))


def _delete(session: Session, place: Place, jobs: Sequence[int]) -> bytes:
    process, count = session.process, 0
    for job_id in dict.fromkeys(jobs):
        try:
            removed = place.lane.storage.remove(place.name, [job_id])
        except StorageError:
            if not count:
                raise
            break
        if removed:
            count += 1
            row = Row("removed", job_id, place.name, process.clock.now_ms(), node=process.node)
            row.process, row.reason = process.name, f"XDEL by {session.client.decode()}"
            process.journal.add(row)
    return resp.integer(count)
