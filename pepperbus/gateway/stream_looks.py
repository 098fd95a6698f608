"""Looking at a topic as a stream, and moving what its readers have: XPENDING, X(AUTO)CLAIM, XINFO, XGROUP, XRANGE, XDEL.

Floor 4. Same rule as `streams`: the shapes of Redis 7. What readers have is what this gateway handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pepperbus.errors import StorageError
from pepperbus.gateway import entries
from pepperbus.gateway.entries import Id
from pepperbus.gateway.group import Pending
from pepperbus.gateway.handout import Place
from pepperbus.gateway.session import Answer, Later, Session
from pepperbus.gateway.streams import (
    BAD_ID,
    MOST,
    NOT_A_NUMBER,
    SYNTAX,
    arity,
    deliver_again,
    find,
    guarded,
)
from pepperbus.job import Job, State
from pepperbus.journal.contract import Row
from pepperbus.storage.contract import Stored
from pepperbus.wire import resp

CLAIMS = 100  # entries of one XAUTOCLAIM that names no COUNT
_LOOKED = (State.LEASED, State.READY, State.DELAYED)


def _number(word: bytes) -> int | None:
    return int(word) if word.removeprefix(b"-").isdigit() and len(word) < 20 else None


# -- what readers have ---------------------------------------------------------------------------------------------------


def xpending(session: Session, args: resp.Command) -> Answer:
    """`XPENDING key group [[IDLE ms] start end count [consumer]]`."""
    if len(args) < 3:
        return arity(args)
    place = find(session, args[1], args[2])
    if isinstance(place, bytes):
        return place
    if len(args) == 3:
        return _summary(session, place)
    words, idle = args[3:], 0
    if words[0].upper() == b"IDLE":
        number = _number(words[1]) if len(words) > 1 else None
        if number is None:
            return NOT_A_NUMBER
        words, idle = words[2:], number
    if len(words) not in (3, 4):
        return SYNTAX
    bounds, count = entries.parse_range(words[0], words[1]), _number(words[2])
    if count is None:
        return NOT_A_NUMBER
    if bounds is None:
        return BAD_ID
    now_ms = session.front.clock.now_ms()
    found = place.group.between(*bounds, words[3] if len(words) == 4 else None)
    shown = [one for one in found if now_ms - one.delivered_ms >= idle][: max(count, 0)]
    return resp.array([_row(one, now_ms) for one in shown])


def _summary(session: Session, place: Place) -> bytes:
    found = place.group.between(entries.LOWEST, entries.HIGHEST)
    if not found:
        none = resp.null(session.protocol)
        return resp.array((resp.integer(0), none, none, none if session.protocol == 3 else entries.NULL_ARRAY))
    readers = [
        resp.array((resp.bulk(one.name), resp.bulk(b"%d" % one.pending)))
        for one in sorted(place.group.consumers.values(), key=lambda one: one.name)
        if one.pending
    ]
    first, last = (resp.bulk(entries.spell(one.entry)) for one in (found[0], found[-1]))
    return resp.array((resp.integer(len(found)), first, last, resp.array(readers)))


def _row(one: Pending, now_ms: int) -> bytes:
    idle = resp.integer(max(now_ms - one.delivered_ms, 0))
    return resp.array(
        (resp.bulk(entries.spell(one.entry)), resp.bulk(one.consumer.name), idle, resp.integer(one.count))
    )


def xautoclaim(session: Session, args: resp.Command) -> Answer:
    """`XAUTOCLAIM key group consumer min-idle start [COUNT n] [JUSTID]`: entries that others have and do not finish."""
    if len(args) < 6:
        return arity(args)
    place = find(session, args[1], args[2])
    if isinstance(place, bytes):
        return place
    idle, bounds = _number(args[4]), entries.parse_range(args[5], b"+")
    if idle is None:
        return resp.error("ERR Invalid min-idle-time argument for XAUTOCLAIM")
    if bounds is None:
        return BAD_ID
    count, just_id, words = CLAIMS, False, args[6:]
    while words:
        word = words[0].upper()
        if word == b"JUSTID":
            just_id, words = True, words[1:]
        elif word == b"COUNT" and len(words) > 1:
            number = _number(words[1])
            if number is None or number < 1:
                return resp.error("ERR COUNT must be > 0")
            count, words = min(number, MOST), words[2:]
        else:
            return SYNTAX
    found = place.group.between(*bounds)
    looked, beyond = found[: count * 10], found[count * 10 :]
    claimed = _idle(session, looked, idle)
    if len(claimed) > count:
        beyond, claimed = [claimed[count]], claimed[:count]
    cursor = beyond[0].entry if beyond else entries.LOWEST
    replies = deliver_again(session, place, args[3], claimed, just_id)
    return resp.array((resp.bulk(entries.spell(cursor)), resp.array(replies), resp.array(())))


def _idle(session: Session, found: Sequence[Pending], idle_ms: int) -> list[Pending]:
    now_ms = session.front.clock.now_ms()
    return [one for one in found if now_ms - one.delivered_ms >= idle_ms]


def xclaim(session: Session, args: resp.Command) -> Answer:
    """`XCLAIM key group consumer min-idle id … [JUSTID]`; the other options are taken and change nothing."""
    if len(args) < 6:
        return arity(args)
    place = find(session, args[1], args[2])
    if isinstance(place, bytes):
        return place
    idle = _number(args[4])
    if idle is None:
        return resp.error("ERR Invalid min-idle-time argument for XCLAIM")
    words, ids = args[5:], []
    while words and (entry := entries.parse(words[0])) is not None:
        ids.append(entries.job_of(entry))
        words = words[1:]
    just_id = False
    while words:
        word = words[0].upper()
        just_id |= word == b"JUSTID"
        if word in (b"IDLE", b"TIME", b"RETRYCOUNT", b"LASTID") and len(words) > 1:
            words = words[2:]
        elif word in (b"JUSTID", b"FORCE"):
            words = words[1:]
        else:
            return BAD_ID if not ids else resp.error(f"ERR Unrecognized XCLAIM option '{word[:64].decode('latin-1')}'")
    found = [one for one in map(place.group.get, dict.fromkeys(ids)) if one is not None]
    return resp.array(deliver_again(session, place, args[3], _idle(session, found, idle), just_id))


# -- the group -------------------------------------------------------------------------------------------------------------


def xgroup(session: Session, args: resp.Command) -> Answer:
    """CREATE is always OK, CREATECONSUMER and DELCONSUMER as in Redis; a topic has one group and keeps it."""
    what = args[1].upper() if len(args) > 1 else b""
    if what not in _GROUP:
        return resp.error(f"ERR unknown subcommand '{args[1][:64].decode(errors='replace')}'") if what else arity(args)
    least, do = _GROUP[what]
    if len(args) < least:
        return arity(args)
    place = find(session, args[2], args[3])
    return place if isinstance(place, bytes) else do(session, place, args)


def _create(session: Session, place: Place, args: resp.Command) -> bytes:
    return resp.OK


def _create_consumer(session: Session, place: Place, args: resp.Command) -> bytes:
    known = args[4] in place.group.consumers
    place.group.consumer(args[4], session.front.clock.now_ms())
    return resp.integer(int(not known))


def _delete_consumer(session: Session, place: Place, args: resp.Command) -> bytes:
    """What it had goes back: nothing that was accepted is dropped."""
    group = place.group
    had = group.between(entries.LOWEST, entries.HIGHEST, args[4])
    session.front.handout.fail(group.drop_all(had), "its reader was deleted")
    group.consumers.pop(args[4], None)
    return resp.integer(len(had))


def _refused(session: Session, place: Place, args: resp.Command) -> bytes:
    return resp.error(f"NOPERM the group of {place.name} is the topic itself: it begins where the jobs do, and stays")


_GROUP: dict[bytes, tuple[int, Callable[[Session, Place, resp.Command], bytes]]] = {
    b"CREATE": (5, _create),
    b"CREATECONSUMER": (5, _create_consumer),
    b"DELCONSUMER": (5, _delete_consumer),
    b"DESTROY": (4, _refused),
    b"SETID": (5, _refused),
}


# -- the stream ------------------------------------------------------------------------------------------------------------


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
    if what == b"CONSUMERS":
        return _consumers(session, place)
    look = _stream if what == b"STREAM" else _groups
    return Later(lambda: guarded(lambda: look(session, place)))


def _consumers(session: Session, place: Place) -> bytes:
    now_ms = session.front.clock.now_ms()
    readers = sorted(place.group.consumers.values(), key=lambda one: one.name)
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
            for one in readers
        ]
    )


def _groups(session: Session, place: Place) -> bytes:
    depth = place.lane.storage.depth(place.name)
    facts = (
        (b"name", resp.bulk(place.topic.name.encode())),
        (b"consumers", resp.integer(len(place.group.consumers))),
        (b"pending", resp.integer(depth.leased)),
        (b"last-delivered-id", resp.bulk(entries.spell(place.group.last))),
        (b"entries-read", resp.null(session.protocol)),
        (b"lag", resp.integer(depth.ready + depth.delayed)),
    )
    return resp.array((resp.mapping(facts, session.protocol),))


def _stream(session: Session, place: Place) -> bytes:
    depth = place.lane.storage.depth(place.name)
    seen = _look(place, entries.LOWEST, entries.HIGHEST)
    none = resp.null(session.protocol)
    first, last = (_encoded(seen[0]), _encoded(seen[-1])) if seen else (none, none)
    highest = max([place.group.last, *(entries.entry_of(one.job_id) for one in seen[-1:])])
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
    count = MOST if len(args) == 4 else _number(args[5])
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
    front, count = session.front, 0
    for job_id in dict.fromkeys(jobs):
        try:
            removed = place.lane.storage.remove(place.name, [job_id])
        except StorageError:
            if not count:
                raise
            break
        if removed:
            count += 1
            row = Row("removed", job_id, place.name, front.clock.now_ms(), node=front.routes.config.bus.node)
            row.process, row.reason = front.process, f"XDEL by {session.client.decode()}"
            front.journal.add(row)
    return resp.integer(count)
