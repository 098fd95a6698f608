"""Sessions and API tokens: random secrets of which only the hash is kept. Floor 2.

A session ends after `idle_s` without a request, `longest_s` after the login whatever happens, and at once when the
password changes or the account is disabled or removed. A token ends at its own date and with its owner.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from contextlib import suppress

import apsw
import msgspec

from pepperbus.accounts.model import Account, Role, Session, Token
from pepperbus.accounts.store import Store, account_of, find
from pepperbus.errors import NotFound, PepperbusError

TOKEN_PREFIX = "pbt_"
_SEEN_EVERY_MS = 60_000
_ID_BYTES = 6  # of the hash: enough to tell one person's sessions apart
_OWNER = "a.name, a.roles, a.disabled, a.source, a.subject, a.created, a.changed, a.seen"
_TOKEN = "t.id, t.owner, t.name, t.role, t.systems, t.created, t.expires, t.seen"


def begin(store: Store, account: str, address: str) -> str:
    """A new session after a login; the secret for the cookie."""
    secret = secrets.token_urlsafe(32)
    now = store.clock.now_ms()

    def work(c: apsw.Connection) -> None:
        c.execute("INSERT INTO sessions VALUES (?,?,?,?,?)", (_hash(secret), account, now, now, address))
        c.execute("UPDATE accounts SET seen = ? WHERE name = ?", (now, account))

    store.run(work)
    return secret


def session(store: Store, secret: str, idle_s: float, longest_s: float) -> Session | None:
    """The session of that secret, None when it is over. Remembers, once a minute, that it was seen."""
    now = store.clock.now_ms()
    key = _hash(secret)

    def work(c: apsw.Connection) -> Session | None:
        sql = f"SELECT s.created, s.seen, s.address, {_OWNER} FROM sessions s JOIN accounts a ON a.name = s.account"
        row = c.execute(f"{sql} WHERE s.hash = ?", (key,)).fetchone()
        if row is None:
            return None
        created, seen, address = row[:3]
        account = account_of(row[3:])
        if account.disabled or now - seen > idle_s * 1000 or now - created > longest_s * 1000:
            c.execute("DELETE FROM sessions WHERE hash = ?", (key,))
            return None
        return Session(account, csrf_of(secret), created, seen, address, key[:_ID_BYTES].hex())

    found = store.run(work)
    if found and now - found.seen_ms > _SEEN_EVERY_MS:
        _remember(store, "UPDATE sessions SET seen = ? WHERE hash = ?", (now, key))
    return found


def _remember(store: Store, sql: str, values: tuple[object, ...]) -> None:
    """Not worth failing for: a full disk must not keep those out who come to free it."""
    with suppress(PepperbusError):
        store.run(lambda c: c.execute(sql, values).fetchall())


def csrf_of(secret: str) -> str:
    """What a session's forms carry: follows from its secret, and tells nothing of it."""
    return hashlib.sha256(b"csrf " + secret.encode()).hexdigest()[:43]


def end(store: Store, secret: str) -> None:
    store.run(lambda c: c.execute("DELETE FROM sessions WHERE hash = ?", (_hash(secret),)).fetchall())


def sessions(store: Store, account: Account, idle_s: float, longest_s: float) -> list[Session]:
    """Those of the account that are not over, latest first; without what their forms carry."""
    now = store.clock.now_ms()
    over = (account.name, now - int(idle_s * 1000), now - int(longest_s * 1000))

    def work(c: apsw.Connection) -> list[Session]:
        sql = "SELECT created, seen, address, hash FROM sessions WHERE account = ? AND seen >= ? AND created >= ?"
        rows = c.execute(f"{sql} ORDER BY seen DESC, created DESC", over)
        return [
            Session(account, "", created, seen, address, key[:_ID_BYTES].hex()) for created, seen, address, key in rows
        ]

    return store.run(work)


def end_one(store: Store, account: str, session_id: str) -> None:
    """Raises NotFound, also for somebody else's."""

    def work(c: apsw.Connection) -> None:
        c.execute("DELETE FROM sessions WHERE account = ? AND lower(hex(hash)) LIKE ? || '%'", (account, session_id))
        if not c.changes():
            raise NotFound(f"no session {session_id!r}")

    store.run(work)


def sweep(store: Store, idle_s: float, longest_s: float) -> None:
    """Take out sessions that are over."""
    now = store.clock.now_ms()
    over = (now - int(idle_s * 1000), now - int(longest_s * 1000))
    store.run(lambda c: c.execute("DELETE FROM sessions WHERE seen < ? OR created < ?", over).fetchall())


# -- tokens --------------------------------------------------------------------------------------------------------


def add_token(
    store: Store, owner: str, name: str, role: Role, systems: Iterable[str], expires_ms: int
) -> tuple[Token, str]:
    """A new token and its secret text, which nobody sees again. Raises NotFound, PepperbusError."""
    now = store.clock.now_ms()
    token = Token(secrets.token_hex(6), owner, name, role, tuple(systems), now, expires_ms)
    secret = secrets.token_urlsafe(32)

    def work(c: apsw.Connection) -> None:
        account = find(c, owner)
        if account is None:
            raise NotFound(f"no account {owner!r}")
        if account.disabled:
            raise PepperbusError(f"account {owner!r} is disabled")
        packed = msgspec.json.encode(token.systems)
        c.execute(
            "INSERT INTO tokens VALUES (?,?,?,?,?,?,?,?,0)",
            (token.id, _hash(secret), owner, name, str(role), packed, now, expires_ms),
        )

    store.run(work)
    return token, f"{TOKEN_PREFIX}{token.id}_{secret}"


def tokens(store: Store, owner: str = "") -> list[Token]:
    """All of them, or one account's; also those that have run out."""

    def work(c: apsw.Connection) -> list[Token]:
        sql = f"SELECT {_TOKEN} FROM tokens t WHERE ? IN ('', t.owner) ORDER BY t.owner, t.created"
        return [_token(row) for row in c.execute(sql, (owner,))]

    return store.run(work)


def drop_token(store: Store, token_id: str) -> None:
    """Raises NotFound."""

    def work(c: apsw.Connection) -> None:
        c.execute("DELETE FROM tokens WHERE id = ?", (token_id,))
        if not c.changes():
            raise NotFound(f"no token {token_id!r}")

    store.run(work)


def token(store: Store, text: str) -> tuple[Token, Account] | None:
    """The token behind `text` and its owner; None when it is wrong, has run out, or its owner is disabled."""
    token_id, _, secret = text.removeprefix(TOKEN_PREFIX).partition("_")
    if not text.startswith(TOKEN_PREFIX) or not secret:
        return None
    now = store.clock.now_ms()

    def work(c: apsw.Connection) -> tuple[Token, Account] | None:
        sql = f"SELECT t.hash, {_TOKEN}, {_OWNER} FROM tokens t JOIN accounts a ON a.name = t.owner WHERE t.id = ?"
        row = c.execute(sql, (token_id,)).fetchone()
        if row is None or not hmac.compare_digest(row[0], _hash(secret)):
            return None
        found, owner = _token(row[1:9]), account_of(row[9:])
        if owner.disabled or now >= found.expires_ms:
            return None
        return found, owner

    found = store.run(work)
    if found and now - found[0].seen_ms > _SEEN_EVERY_MS:
        _remember(store, "UPDATE tokens SET seen = ? WHERE id = ?", (now, token_id))
    return found


def _token(row: tuple[object, ...]) -> Token:
    token_id, owner, name, role, systems, created, expires, seen = row
    assert isinstance(systems, bytes)
    scope = msgspec.json.decode(systems, type=tuple[str, ...])
    return msgspec.convert(
        {
            "id": token_id,
            "owner": owner,
            "name": name,
            "role": role,
            "systems": scope,
            "created_ms": created,
            "expires_ms": expires,
            "seen_ms": seen,
        },
        Token,
    )


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
