"""What readers of a stream have and did not acknowledge: XPENDING, XCLAIM, XAUTOCLAIM, XGROUP.

Floor 4. The shapes of Redis 7, as in `streams`. What readers have is asked of all gateways of this node (`circle`).
"""

from __future__ import annotations

from collections.abc import Callable

from pepperbus.gateway import entries
from pepperbus.gateway.circle import Give, Held, ListThem
from pepperbus.gateway.place import Place
from pepperbus.gateway.session import Answer, Later, Session
from pepperbus.gateway.streams import BAD_ID, MOST, NOT_A_NUMBER, SYNTAX, arity, find, guarded, number
from pepperbus.wire import resp

CLAIMS = 100  # entries of one XAUTOCLAIM that names no COUNT


def xpending(session: Session, args: resp.Command) -> Answer:
    """`XPENDING key group [[IDLE ms] start end count [consumer]]`."""
    if len(args) < 3:
        return arity(args)
    place = find(session, args[1], args[2])
    if isinstance(place, bytes):
        return place
    if len(args) == 3:
        return Later(lambda: guarded(lambda: _summary(session, place)))
    words, idle = args[3:], 0
    if words[0].upper() == b"IDLE":
        least = number(words[1]) if len(words) > 1 else None
        if least is None:
            return NOT_A_NUMBER
        words, idle = words[2:], least
    if len(words) not in (3, 4):
        return SYNTAX
    bounds, count = entries.parse_range(words[0], words[1]), number(words[2])
    if count is None:
        return NOT_A_NUMBER
    if bounds is None:
        return BAD_ID
    wish = ListThem(place.name, *bounds, words[3] if len(words) == 4 else None, idle, max(count, 0))
    return Later(lambda: guarded(lambda: _rows(session, place, wish)))


def _summary(session: Session, place: Place) -> bytes:
    company = session.front.circle.company(place)
    having = [one for one in company.readers if one.pending]
    if company.lowest is None or company.highest is None:
        none = resp.null(session.protocol)
        return resp.array((resp.integer(0), none, none, none if session.protocol == 3 else entries.NULL_ARRAY))
    readers = [resp.array((resp.bulk(one.name), resp.bulk(b"%d" % one.pending))) for one in having]
    first, last = (resp.bulk(entries.spell(entry)) for entry in (company.lowest, company.highest))
    return resp.array((resp.integer(sum(one.pending for one in having)), first, last, resp.array(readers)))


def _rows(session: Session, place: Place, wish: ListThem) -> bytes:
    now_ms = session.process.clock.now_ms()
    return resp.array([_row(one, now_ms) for one in session.front.circle.held(place, wish)])


def _row(one: Held, now_ms: int) -> bytes:
    idle = resp.integer(max(now_ms - one.delivered_ms, 0))
    return resp.array((resp.bulk(entries.spell(one.entry)), resp.bulk(one.consumer), idle, resp.integer(one.times)))


def xautoclaim(session: Session, args: resp.Command) -> Answer:
    """`XAUTOCLAIM key group consumer min-idle start [COUNT n] [JUSTID]`: entries that others have and do not finish."""
    if len(args) < 6:
        return arity(args)
    place = find(session, args[1], args[2])
    if isinstance(place, bytes):
        return place
    idle, bounds = number(args[4]), entries.parse_range(args[5], b"+")
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
            wanted = number(words[1])
            if wanted is None or wanted < 1:
                return resp.error("ERR COUNT must be > 0")
            count, words = min(wanted, MOST), words[2:]
        else:
            return SYNTAX
    wish = ListThem(place.name, *bounds, None, max(idle, 0), count + 1)
    return Later(lambda: guarded(lambda: _claim_idle(session, place, args[3], wish, just_id)))


def _claim_idle(session: Session, place: Place, name: bytes, wish: ListThem, just_id: bool) -> bytes:
    circle, count = session.front.circle, wish.n - 1
    found = circle.held(place, wish)
    cursor = found[count].entry if len(found) > count else entries.LOWEST
    jobs = [one.job_id for one in found[:count]]
    replies = circle.give(place, Give(place.name, name, jobs, wish.idle_ms, None, just_id), session)
    return resp.array((resp.bulk(entries.spell(cursor)), resp.array(replies), resp.array(())))


def xclaim(session: Session, args: resp.Command) -> Answer:
    """`XCLAIM key group consumer min-idle id … [JUSTID]`; the other options are taken and change nothing."""
    if len(args) < 6:
        return arity(args)
    place = find(session, args[1], args[2])
    if isinstance(place, bytes):
        return place
    idle = number(args[4])
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
    give = Give(place.name, args[3], list(dict.fromkeys(ids)), max(idle, 0), None, just_id)
    return Later(lambda: guarded(lambda: resp.array(session.front.circle.give(place, give, session))))


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


def _create(session: Session, place: Place, args: resp.Command) -> Answer:
    return resp.OK


def _create_consumer(session: Session, place: Place, args: resp.Command) -> Answer:
    def create() -> bytes:
        known = any(one.name == args[4] for one in session.front.circle.company(place).readers)
        place.group.consumer(args[4], session.process.clock.now_ms())
        return resp.integer(int(not known))

    return Later(lambda: guarded(create))


def _delete_consumer(session: Session, place: Place, args: resp.Command) -> Answer:
    """What it had goes back: nothing that was accepted is dropped."""
    return Later(lambda: guarded(lambda: resp.integer(session.front.circle.dismiss(place, args[4]))))


def _refused(session: Session, place: Place, args: resp.Command) -> Answer:
    return resp.error(f"NOPERM the group of {place.name} is the topic itself: it begins where the jobs do, and stays")


_GROUP: dict[bytes, tuple[int, Callable[[Session, Place, resp.Command], Answer]]] = {
    b"CREATE": (5, _create),
    b"CREATECONSUMER": (5, _create_consumer),
    b"DELCONSUMER": (5, _delete_consumer),
    b"DESTROY": (4, _refused),
    b"SETID": (5, _refused),
}
