"""Topics as keys, for tools that look into a Redis: SCAN, KEYS, TYPE, DBSIZE, EXISTS, TTL, OBJECT, MEMORY USAGE and their like.

Floor 4. Reading only, and each login sees what it may push to or take from. A topic is a list, or a stream when it is read as
one; its key is `queue/topic`. Knows sessions and routes; the storage is asked by `Later`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import translate

from pepperbus.gateway import reads
from pepperbus.gateway.pushes import NOAUTH
from pepperbus.gateway.route import Target
from pepperbus.gateway.session import Answer, Session
from pepperbus.job import Job, State, job_json
from pepperbus.names import topic_name
from pepperbus.wire import resp

MOST_KEYS = 10_000  # of one KEYS or SCAN
_LONGEST_PATTERN = 1024
_JOB_OVERHEAD = 100  # bytes that a job costs beside its own, roughly
_SAMPLE = 10  # jobs whose size stands for all


def _arity(args: resp.Command) -> bytes:
    return resp.error(f"ERR wrong number of arguments for '{args[0].decode(errors='replace').lower()}' command")


def _stranger(session: Session) -> bytes | None:
    return None if session.trusted else resp.error(f"NOAUTH {NOAUTH}")


def visible(session: Session) -> Iterator[tuple[str, str]]:
    """Every key that this client may see, and what kind it is; sorted."""
    routes, login = session.front.routes, session.login
    for name in sorted(routes.queues):
        queue = routes.queues[name].queue
        is_open = session.local and queue.open
        pushes = is_open or (login is not None and login.may_push(name))
        for topic in sorted(queue.topics):
            if pushes or (login is not None and login.may_pop(name, topic)):
                yield topic_name(name, topic), _kind(session, name, topic)


def _kind(session: Session, queue: str, topic: str) -> str:
    found = session.front.routes.queues[queue].queue.topics[topic]
    return "stream" if found.pulled and found.pop == "once" else "list"


def _type_of(session: Session, key: bytes) -> str:
    """`none` for what is not there, or not for this client."""
    target = session.front.routes.target(key)
    if target.route is None or not (session.may_push(target) or session.may_pop(target)):
        return "none"
    if not target.topic:
        return "list"
    return _kind(session, target.queue, target.topic) if target.topic in target.route.queue.topics else "none"


def matcher(pattern: bytes) -> re.Pattern[str] | None:
    """Redis' patterns: `*`, `?`, `[abc]`, `[^a]`, and a backslash before what stands for itself. None: too long."""
    if len(pattern) > _LONGEST_PATTERN:
        return None
    words = re.findall(r"\\.|\[\^|.", pattern.decode(errors="replace"), re.DOTALL)
    ours = {"[^": "[!"}
    return re.compile(
        translate("".join(f"[{w[1]}]" if len(w) == 2 and w[0] == "\\" else ours.get(w, w) for w in words))
    )


def scan(session: Session, args: resp.Command) -> Answer:
    """`SCAN cursor [MATCH pattern] [COUNT n] [TYPE list|stream]`; the cursor is a place in the sorted keys."""
    if refusal := _stranger(session):
        return refusal
    if len(args) < 2:
        return _arity(args)
    if not args[1].isdigit() or len(args[1]) > 18:
        return resp.error("ERR invalid cursor")
    options = dict(zip((word.upper() for word in args[2::2]), args[3::2], strict=False))
    if len(args) % 2 or not options.keys() <= {b"MATCH", b"COUNT", b"TYPE"}:
        return resp.error("ERR syntax error")
    count = options.get(b"COUNT", b"10")
    if not count.isdigit() or not int(count[:18]):
        return resp.error("ERR value is not an integer or out of range")
    pattern = matcher(options.get(b"MATCH", b"*"))
    if pattern is None:
        return resp.error("ERR the pattern is too long")
    at, n, wanted = int(args[1]), min(int(count[:18]), MOST_KEYS), options.get(b"TYPE", b"").decode("latin-1").lower()
    keys = list(visible(session))
    page = [key for key, kind in keys[at : at + n] if wanted in ("", kind) and pattern.match(key)]
    cursor = at + n if at + n < len(keys) else 0
    return resp.array((resp.bulk(b"%d" % cursor), resp.array([resp.bulk(key.encode()) for key in page])))


def keys(session: Session, args: resp.Command) -> Answer:
    if refusal := _stranger(session):
        return refusal
    if len(args) != 2:
        return _arity(args)
    pattern = matcher(args[1])
    if pattern is None:
        return resp.error("ERR the pattern is too long")
    found = [resp.bulk(key.encode()) for key, _ in visible(session) if pattern.match(key)]
    return resp.array(found[:MOST_KEYS])


def dbsize(session: Session, args: resp.Command) -> Answer:
    return _stranger(session) or resp.integer(count(session))


def count(session: Session) -> int:
    return sum(1 for _ in visible(session))


def type_(session: Session, args: resp.Command) -> Answer:
    if refusal := _stranger(session):
        return refusal
    return resp.simple(_type_of(session, args[1])) if len(args) == 2 else _arity(args)


def exists(session: Session, args: resp.Command) -> Answer:
    if refusal := _stranger(session):
        return refusal
    if len(args) < 2:
        return _arity(args)
    return resp.integer(sum(_type_of(session, key) != "none" for key in args[1:]))


def ttl(session: Session, args: resp.Command) -> Answer:
    """TTL, PTTL and EXPIRETIME: a topic never expires."""
    if refusal := _stranger(session):
        return refusal
    if len(args) != 2:
        return _arity(args)
    return resp.integer(-2 if _type_of(session, args[1]) == "none" else -1)


def object_(session: Session, args: resp.Command) -> Answer:
    """ENCODING, REFCOUNT, IDLETIME, FREQ: something plausible for the tools that show it."""
    if refusal := _stranger(session):
        return refusal
    if len(args) != 3:
        return _arity(args)
    kind = _type_of(session, args[2])
    if kind == "none":
        return resp.null(session.protocol)
    match args[1].upper():
        case b"ENCODING":
            return resp.bulk(b"stream" if kind == "stream" else b"quicklist")
        case b"REFCOUNT":
            return resp.integer(1)
        case b"IDLETIME" | b"FREQ":
            return resp.integer(0)
    return resp.error(f"ERR unknown subcommand '{args[1][:64].decode(errors='replace')}'")


def memory(session: Session, args: resp.Command) -> Answer:
    """`MEMORY USAGE key [SAMPLES n]`: what its jobs take, guessed from the first few."""
    if refusal := _stranger(session):
        return refusal
    if len(args) not in (3, 5) or args[1].upper() != b"USAGE":
        return resp.error("ERR only MEMORY USAGE key [SAMPLES n] is known here")
    target = session.front.routes.target(args[2])
    if _type_of(session, args[2]) == "none" or target.route is None:
        return resp.null(session.protocol)
    topics = [target.topic] if target.topic else list(target.route.queue.topics)
    return reads.guarded(lambda: resp.integer(sum(_size(session, target, topic) for topic in topics)))


def _size(session: Session, target: Target, topic: str) -> int:
    storage, name = reads.storage_of(session, target, topic), topic_name(target.queue, topic)
    depth = storage.depth(name)
    bodies = [len(job.body) for state in State for job in storage.peek(name, state, "", _SAMPLE).jobs]
    jobs = depth.ready + depth.delayed + depth.leased + depth.dead
    return jobs * (sum(bodies) // len(bodies) + _JOB_OVERHEAD) if bodies else _JOB_OVERHEAD


def lindex(session: Session, args: resp.Command) -> Answer:
    """One job's JSON, as LRANGE shows it."""
    if len(args) != 3:
        return _arity(args)
    target = session.front.routes.target(args[1])
    if (refusal := reads.readable(session, target, pop_only=True)) is not None:
        return refusal
    try:
        index = int(args[2])
    except ValueError:
        return resp.error("ERR value is not an integer or out of range")

    def read() -> bytes:
        found = reads.jobs_of(session, target, index, index)
        return (
            resp.bulk(job_json(Job.decode(found[0].body), found[0].attempts)) if found else resp.null(session.protocol)
        )

    return reads.guarded(read)


def wrong_type(session: Session, args: resp.Command) -> Answer:
    """Commands for strings, sets and hashes that tools try on a key."""
    if refusal := _stranger(session):
        return refusal
    if len(args) > 1 and _type_of(session, args[1]) != "none":
        return resp.error("WRONGTYPE Operation against a key holding the wrong kind of value")
    name = args[0][:64].decode(errors="backslashreplace")
    return resp.error(f"ERR unknown command '{name}': this is a job bus, it keeps no keys and values")


def config(session: Session, args: resp.Command) -> Answer:
    """`CONFIG GET pattern`: only `databases` is known, and there is one."""
    if refusal := _stranger(session):
        return refusal
    if len(args) < 3 or args[1].upper() != b"GET":
        return resp.error("ERR CONFIG is not offered: the bus is configured by its files")
    wanted = [pattern for word in args[2:] if (pattern := matcher(word.lower())) is not None]
    facts = [(b"databases", resp.bulk(b"1"))] if any(pattern.match("databases") for pattern in wanted) else []
    return resp.mapping(facts, session.protocol)


def nothing(session: Session, args: resp.Command) -> Answer:
    """`MODULE LIST`, `SLOWLOG GET`: tools ask, and there is none."""
    return _stranger(session) or resp.array(())
