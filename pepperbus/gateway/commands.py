"""The table of RESP commands, and those that need neither a push nor a look into a storage.

A new command is one function `(session, args) -> Answer` and its line in `_TABLE` at the end. `args[0]` is the name as
typed. Commands never block: what needs a storage answers with `Later`, what must not be repeated at once with `Wait`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import gevent

from pepperbus import __version__
from pepperbus.gateway import keyspace, pops, pushes, reads, stream_claims, stream_looks, streams
from pepperbus.gateway.logins import TOO_MANY, log_in, log_in_slowly, needs_time
from pepperbus.gateway.popping import CALM_S
from pepperbus.gateway.session import Answer, Goodbye, Later, Session, Wait
from pepperbus.wire import resp

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")  # W3C Trace Context, version 00
REDIS_VERSION = "7.0.0"  # whose commands and words we speak; clients compare it


def execute(session: Session, args: resp.Command) -> Answer:
    """Carry out one command."""
    function = _TABLE.get(args[0]) or _TABLE.get(args[0].upper())
    if function is None:
        return _unknown(session, args)
    if session.transaction is not None and function not in _IN_MULTI:
        session.transaction.refuse()
        return resp.error(f"ERR {_typed(args)} is not allowed in MULTI: only pushes are")
    return function(session, args)


def _typed(args: resp.Command) -> str:
    return args[0][:128].decode(errors="backslashreplace")


def _unknown(session: Session, args: resp.Command) -> bytes:
    if session.transaction is not None:
        session.transaction.refuse()
    return resp.error(f"ERR unknown command '{_typed(args)}'")


def _arity(args: resp.Command) -> bytes:
    return resp.error(f"ERR wrong number of arguments for '{_typed(args)}' command")


# -- login ---------------------------------------------------------------------------------------------------


def auth(session: Session, args: resp.Command) -> Answer:
    """`AUTH queue:password`, `AUTH queue/topic:password`, `AUTH user password`. A failure drops the earlier login."""
    if len(args) in (2, 3):
        return _log_in(session, args[1] if len(args) == 3 else b"", args[-1], lambda: resp.OK)
    return _arity(args)


def _log_in(session: Session, user: bytes, password: bytes, welcome: Callable[[], bytes]) -> Answer:
    """`welcome()` when logged in, else the (slowed) refusal."""
    if user in (b"", b"default"):
        user, colon, password = password.partition(b":")
        user = user if colon else b""
    front = session.front
    session.login = log_in(front.routes.config, front.passwords, user, password)
    if session.login is not None:
        return welcome()
    if needs_time(front.routes.config):
        return Later(lambda: _log_in_slowly(session, user, password, welcome))
    return _refused(session, user)


def _log_in_slowly(session: Session, user: bytes, password: bytes, welcome: Callable[[], bytes]) -> bytes:
    """In a greenlet; the client's later commands wait."""
    session.login = log_in_slowly(session.front.routes.config, session.front.passwords, user, password)
    if session.login is not None:
        return welcome()
    refusal = _refused(session, user)
    gevent.sleep(refusal.seconds)
    return refusal.reply


def _refused(session: Session, user: bytes) -> Wait:
    front = session.front
    address = session.client.decode().rpartition(":")[0] or "unix"
    seconds, failures = front.throttle.failed(address, session.local, session.process.clock.monotonic())
    name = user[:64].decode(errors="replace")
    session.process.log.warning("login_failed", client=session.client.decode(), login=name, failures=failures)
    return Wait(seconds, resp.error("ERR too many attempts" if failures > TOO_MANY else "ERR invalid password"))


def hello(session: Session, args: resp.Command) -> Answer:
    """`HELLO [2|3 [AUTH user password] [SETNAME name]]`; before a login too, as clients open with it."""
    protocol, name, rest = session.protocol, session.name, args[2:]
    if len(args) > 1:
        if args[1] not in (b"2", b"3"):
            number = args[1].lstrip(b"-").isdigit()
            return resp.error(
                "NOPROTO unsupported protocol version"
                if number
                else "ERR Protocol version is not an integer or out of range"
            )
        protocol = int(args[1])
    credentials: tuple[bytes, bytes] | None = None
    while rest:
        word = rest[0].upper()
        if word == b"AUTH" and len(rest) >= 3:
            credentials, rest = (rest[1], rest[2]), rest[3:]
        elif word == b"SETNAME" and len(rest) >= 2:
            name, rest = rest[1], rest[2:]
        else:
            return resp.error(f"ERR Syntax error in HELLO option '{rest[0][:64].decode(errors='replace')}'")

    def welcome() -> bytes:
        session.protocol, session.name = protocol, name
        return _greeting(session)

    return welcome() if credentials is None else _log_in(session, *credentials, welcome)


def _greeting(session: Session) -> bytes:
    facts = (
        (b"server", resp.bulk(b"pepperbus")),
        (b"version", resp.bulk(REDIS_VERSION.encode())),
        (b"proto", resp.integer(session.protocol)),
        (b"id", resp.integer(session.number)),
        (b"mode", resp.bulk(b"standalone")),
        (b"role", resp.bulk(b"master")),
        (b"modules", resp.array(())),
    )
    return resp.mapping(facts, session.protocol)


def ping(session: Session, args: resp.Command) -> Answer:
    return resp.PONG if session.trusted else resp.error(f"NOAUTH {pushes.NOAUTH}")


def reset(session: Session, args: resp.Command) -> Answer:
    session.reset()
    return resp.simple("RESET")


def quit_(session: Session, args: resp.Command) -> Answer:
    """The job that it had is done: who merely closes has not said so."""
    had = [one for one in session.holding if not one.kept]
    session.holding = [one for one in session.holding if one.kept]  # closing gives these back
    session.front.handout.end(had, f"{session.client.decode()} left with QUIT")
    return Goodbye(resp.OK)


# -- what client libraries say when they connect ----------------------------------------------------------------


def echo(session: Session, args: resp.Command) -> Answer:
    return resp.bulk(args[1]) if len(args) == 2 else _arity(args)


def select(session: Session, args: resp.Command) -> Answer:
    if len(args) != 2:
        return _arity(args)
    return resp.OK if args[1] == b"0" else resp.error("ERR DB index is out of range: there is only database 0")


def command(session: Session, args: resp.Command) -> Answer:
    """Nothing to tell: clients then send commands as they are."""
    what = args[1].upper() if len(args) > 1 else b""
    if what == b"COUNT":
        return resp.integer(len(set(_TABLE.values())))
    return resp.mapping((), session.protocol) if what == b"DOCS" else resp.array(())


def client(session: Session, args: resp.Command) -> Answer:
    """SETNAME GETNAME ID SETINFO; TRACEPARENT: the W3C trace that the pushes from here on belong to, empty = none."""
    what = args[1].upper() if len(args) > 1 else b""
    if what == b"SETNAME" and len(args) == 3:
        if any(c <= 0x20 for c in args[2]):
            return resp.error("ERR Client names cannot contain spaces, newlines or special characters.")
        session.name = args[2][:255]
        return resp.OK
    if what == b"GETNAME" and len(args) == 2:
        return resp.bulk(session.name) if session.name else resp.null(session.protocol)
    if what == b"ID" and len(args) == 2:
        return resp.integer(session.number)
    if what == b"SETINFO" and len(args) == 4:
        return resp.OK
    if what == b"TRACEPARENT" and len(args) == 3:
        if args[2] and not _TRACEPARENT.match(args[2]):
            return resp.error("ERR not a traceparent, such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        session.traceparent = args[2]
        return resp.OK
    if not what:
        return _arity(args)
    return resp.error(
        f"ERR unknown subcommand or wrong number of arguments for '{args[1][:64].decode(errors='replace')}'"
    )


def info(session: Session, args: resp.Command) -> Answer:
    """Whatever section is asked for: ready checks of clients look for `loading:0`. Strangers get the server's only."""
    front = session.front
    lines: tuple[str, ...] = (
        "# Server",
        f"redis_version:{REDIS_VERSION}",
        "redis_mode:standalone",
        f"pepperbus_version:{__version__}",
        f"node:{front.routes.config.bus.node}",
        f"process:{front.process.name}",
        f"uptime_in_seconds:{int(front.process.clock.monotonic() - front.started)}",
        f"connected_clients:{front.clients()}",
        "loading:0",
        "",
    )
    if session.trusted:
        keys = keyspace.count(session)
        blocked = sum(len(place.waiters) for place in front.handout.places.values())
        lines += ("# Clients", f"connected_clients:{front.clients()}", f"blocked_clients:{blocked}", "")
        lines += ("# Replication", "role:master", "connected_slaves:0", "")
        lines += ("# Keyspace", *((f"db0:keys={keys},expires=0,avg_ttl=0",) if keys else ()), "")
    return resp.bulk("\r\n".join(lines).encode())


def blocking(session: Session, args: resp.Command) -> Answer:
    """Never at once: a loop around a refused blocking pop would spin thousands of times a second."""
    text = f"NOPERM {_typed(args)} is not offered: this bus brings jobs to their consumer"
    return Wait(CALM_S, resp.error(text if session.trusted else f"NOAUTH {pushes.NOAUTH}"))


def no_database(session: Session, args: resp.Command) -> Answer:
    return resp.error(f"ERR unknown command '{_typed(args)}': this is a job bus, it keeps no keys and values")


_Function = Callable[[Session, resp.Command], Answer]

_TABLE: dict[bytes, _Function] = {
    b"LPUSH": pushes.lpush,
    b"RPUSH": pushes.rpush,
    b"ZADD": pushes.zadd,
    b"MULTI": pushes.multi,
    b"EXEC": pushes.exec_,
    b"DISCARD": pushes.discard,
    b"AUTH": auth,
    b"HELLO": hello,
    b"PING": ping,
    b"RESET": reset,
    b"QUIT": quit_,
    b"ECHO": echo,
    b"SELECT": select,
    b"COMMAND": command,
    b"CLIENT": client,
    b"INFO": info,
    b"RPOP": pops.rpop,
    b"LPOP": pops.lpop,
    b"BRPOP": pops.brpop,
    b"BLPOP": pops.brpop,
    **dict.fromkeys((b"RPOPLPUSH", b"LMOVE"), pops.rpoplpush),
    **dict.fromkeys((b"BRPOPLPUSH", b"BLMOVE"), pops.brpoplpush),
    b"LLEN": reads.llen,
    b"LREM": pops.lrem,
    b"LRANGE": reads.lrange,
    b"HGETALL": reads.hgetall,
    b"XREADGROUP": streams.xreadgroup,
    b"XACK": streams.xack,
    b"XPENDING": stream_claims.xpending,
    b"XCLAIM": stream_claims.xclaim,
    b"XAUTOCLAIM": stream_claims.xautoclaim,
    b"XGROUP": stream_claims.xgroup,
    b"XINFO": stream_looks.xinfo,
    b"XLEN": stream_looks.xlen,
    b"XRANGE": stream_looks.xrange,
    b"XREVRANGE": stream_looks.xrevrange,
    b"XDEL": stream_looks.xdel,
    b"SET": no_database,
    b"SCAN": keyspace.scan,
    b"KEYS": keyspace.keys,
    b"TYPE": keyspace.type_,
    b"DBSIZE": keyspace.dbsize,
    b"EXISTS": keyspace.exists,
    b"OBJECT": keyspace.object_,
    b"MEMORY": keyspace.memory,
    b"LINDEX": keyspace.lindex,
    b"CONFIG": keyspace.config,
    **dict.fromkeys((b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME"), keyspace.ttl),
    **dict.fromkeys(
        (b"GET", b"STRLEN", b"HLEN", b"SCARD", b"ZCARD", b"HSCAN", b"SSCAN", b"ZSCAN"), keyspace.wrong_type
    ),
    **dict.fromkeys((b"MODULE", b"SLOWLOG"), keyspace.nothing),
    **dict.fromkeys(
        (b"BLMPOP", b"BZPOPMIN", b"BZPOPMAX", b"XREAD"),
        blocking,
    ),
}
_TABLE.update({name.lower(): function for name, function in _TABLE.items()})

_IN_MULTI = frozenset(
    (pushes.lpush, pushes.rpush, pushes.zadd, pushes.multi, pushes.exec_, pushes.discard, quit_, reset)
)
