"""`data_dir/accounts.db`: accounts, sessions and API tokens. The one module that opens the file.

Floor 2. The sidecar and the command line both write it: every call opens it anew, in a thread, and is one transaction.
The file is made with the first account and not before: its being there says that there are logins (`config` looks).
Secrets never lie in it: passwords are argon2 hashes, session ids and tokens SHA-256 of 256 random bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from pepperbus.accounts.aside import aside
from pepperbus.accounts.model import EVERYWHERE, Account, Role, Roles, account_name
from pepperbus.clock import Clock, SystemClock
from pepperbus.errors import NotFound, PepperbusError

FILE = "accounts.db"
BUSY_MS = 3000
_SCHEMA = """
PRAGMA foreign_keys = ON;
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY, hash TEXT NOT NULL, roles BLOB NOT NULL, disabled INTEGER NOT NULL DEFAULT 0,
    source TEXT NOT NULL DEFAULT 'local', subject TEXT NOT NULL DEFAULT '',
    created INTEGER NOT NULL, changed INTEGER NOT NULL, seen INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS accounts_subject ON accounts (source, subject) WHERE subject != '';
CREATE TABLE IF NOT EXISTS sessions (
    hash BLOB PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    created INTEGER NOT NULL, seen INTEGER NOT NULL, address TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
    id TEXT PRIMARY KEY, hash BLOB NOT NULL, owner TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    name TEXT NOT NULL, role TEXT NOT NULL, systems BLOB NOT NULL,
    created INTEGER NOT NULL, expires INTEGER NOT NULL, seen INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
"""
_ACCOUNT = "name, roles, disabled, source, subject, created, changed, seen"
_Result = TypeVar("_Result")


class Store:
    """The file. Raises NotFound for what is not there, PepperbusError for what must not be or cannot be written."""

    def __init__(self, data_dir: Path, clock: Clock | None = None) -> None:
        self.path = data_dir / FILE
        self.clock = clock or SystemClock()

    def run(self, work: Callable[[apsw.Connection], _Result], make: bool = False) -> _Result:
        """`work` in one transaction, in a thread. Without the file (and `make`) it is as if nobody had an account."""
        return aside(lambda: self._run(work, make))

    def _run(self, work: Callable[[apsw.Connection], _Result], make: bool) -> _Result:
        try:
            with _opened(self.path, make) as connection:
                connection.execute("BEGIN IMMEDIATE")  # a reader that then writes must not find itself too late
                result = work(connection)
                connection.execute("COMMIT")  # else closing rolls back
                return result
        except apsw.ConstraintError as error:
            raise PepperbusError(f"that account exists already ({error})") from error
        except (apsw.Error, OSError) as error:
            raise PepperbusError(f"{self.path}: {error}; nothing was changed") from error

    # -- accounts --------------------------------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Whether nobody has an account yet."""
        return not self.path.exists() or not self.run(lambda c: _one(c, "SELECT 1 FROM accounts LIMIT 1"))

    def accounts(self) -> list[Account]:
        def work(c: apsw.Connection) -> list[Account]:
            return [account_of(row) for row in c.execute(f"SELECT {_ACCOUNT} FROM accounts ORDER BY name")]

        return self.run(work)

    def find(self, name: str) -> Account | None:
        return self.run(lambda c: find(c, name))

    def account(self, name: str) -> Account:
        """Raises NotFound."""
        found = self.find(name)
        if found is None:
            raise NotFound(f"no account {name!r}")
        return found

    def by_subject(self, source: str, subject: str) -> Account | None:
        """The account that is `subject` at a sign-on service."""

        def work(c: apsw.Connection) -> Account | None:
            row = _one(c, f"SELECT {_ACCOUNT} FROM accounts WHERE source = ? AND subject = ?", (source, subject))
            return account_of(row) if row else None

        return self.run(work)

    def hash_of(self, name: str) -> str:
        """The password's hash; empty when there is no such account, or it has none here."""
        row = self.run(lambda c: _one(c, "SELECT hash FROM accounts WHERE name = ?", (name,)))
        return row[0] if row else ""

    def add(
        self, name: str, kept: str, roles: Roles, source: str = "local", subject: str = "", first: bool = False
    ) -> None:
        """A new account. `first`: only if there is none yet (two setup pages at once make one administrator)."""
        now = self.clock.now_ms()

        def work(c: apsw.Connection) -> None:
            if first and _one(c, "SELECT 1 FROM accounts LIMIT 1"):
                raise PepperbusError("there is an account already: log in with it")
            if find(c, name):
                raise PepperbusError(f"account {name!r} exists already")
            c.execute(
                f"INSERT INTO accounts (hash, {_ACCOUNT}) VALUES (?,?,?,0,?,?,?,?,0)",
                (kept, account_name(name), _packed(roles), source, subject, now, now),
            )
            _keep_an_administrator(c, "the first account must be an administrator of everything: role admin")

        try:
            self.run(work, make=True)
        finally:
            self._unmake()

    def _unmake(self) -> None:
        """A file without an account would say that there are logins."""
        if self.path.exists() and self.is_empty():
            self.path.unlink()

    def set_roles(self, name: str, roles: Roles) -> None:
        self._change(name, "roles = ?", _packed(roles))

    def set_disabled(self, name: str, disabled: bool) -> None:
        """A disabled account cannot log in, and its sessions and tokens stop at once."""
        self._change(name, "disabled = ?", disabled, end_sessions=disabled)

    def set_hash(self, name: str, kept: str) -> None:
        """A new password ends every session of the account."""
        self._change(name, "changed = ?, hash = ?", self.clock.now_ms(), kept, end_sessions=True)

    def remove(self, name: str) -> None:
        def work(c: apsw.Connection) -> None:
            _existing(c, name)
            c.execute("DELETE FROM accounts WHERE name = ?", (name,))
            _keep_an_administrator(c)

        self.run(work)

    def _change(self, name: str, what: str, *values: Any, end_sessions: bool = False) -> None:
        def work(c: apsw.Connection) -> None:
            _existing(c, name)
            c.execute(f"UPDATE accounts SET {what} WHERE name = ?", (*values, name))
            if end_sessions:
                c.execute("DELETE FROM sessions WHERE account = ?", (name,))
            _keep_an_administrator(c)

        self.run(work)


def find(connection: apsw.Connection, name: str) -> Account | None:
    row = _one(connection, f"SELECT {_ACCOUNT} FROM accounts WHERE name = ?", (name,))
    return account_of(row) if row else None


def account_of(row: Any) -> Account:
    name, roles, disabled, source, subject, created, changed, seen = row
    return Account(name, _unpacked(roles), bool(disabled), source, subject, created, changed, seen)


def _existing(connection: apsw.Connection, name: str) -> None:
    if find(connection, name) is None:
        raise NotFound(f"no account {name!r}")


def _keep_an_administrator(
    connection: apsw.Connection,
    else_: str = "this is the last account with the role admin: give another one that role first",
) -> None:
    """The transaction is undone when nobody would be left who can give rights."""
    rows = connection.execute("SELECT roles FROM accounts WHERE NOT disabled")
    if not any(_unpacked(roles).get(EVERYWHERE) is Role.ADMIN for (roles,) in rows):
        raise PepperbusError(else_)


def _packed(roles: Roles) -> bytes:
    return msgspec.json.encode(dict(roles))


def _unpacked(data: bytes) -> dict[str, Role]:
    return msgspec.json.decode(data, type=dict[str, Role])


def _one(connection: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> Any:
    return connection.execute(sql, values).fetchone()


@contextmanager
def _opened(path: Path, make: bool) -> Iterator[apsw.Connection]:
    real = path.exists()
    if make and not real:
        _made(path)
        real = True
    with closing(apsw.Connection(str(path) if real else ":memory:")) as connection:
        connection.set_busy_timeout(BUSY_MS)
        connection.execute(_SCHEMA).fetchall()
        yield connection


def _made(path: Path) -> None:
    """An empty file that only the bus can read; made by root it belongs to whom the data belongs to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    owner = path.parent.stat()
    if os.geteuid() == 0 and owner.st_uid:
        os.chown(path, owner.st_uid, owner.st_gid)
