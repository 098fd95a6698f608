"""`data_dir/alarms.db`: what must not be forgotten by a restart. The one module that opens the file.

Floor 3. The ticker writes tracks, incidents and messages; whoever silences writes silences; everybody reads. Each call opens
it anew, in a thread, and is one transaction: what was decided together is there together after a kill -9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from pepperbus.accounts.aside import aside
from pepperbus.alarms.board import Incident, Key
from pepperbus.alarms.message import Message
from pepperbus.alarms.track import Track
from pepperbus.errors import NotFound, PepperbusError

FILE = "alarms.db"
_SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS tracks (rule TEXT, subject TEXT, is_open INTEGER, leant REAL, PRIMARY KEY (rule, subject))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS incidents (id INTEGER PRIMARY KEY, began INTEGER, ended INTEGER, closed INTEGER, data BLOB);
CREATE INDEX IF NOT EXISTS incidents_open ON incidents (id) WHERE closed = 0;
CREATE INDEX IF NOT EXISTS incidents_began ON incidents (began);
CREATE TABLE IF NOT EXISTS silences (id INTEGER PRIMARY KEY AUTOINCREMENT, until INTEGER, data BLOB);
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT, made INTEGER, tries INTEGER,
    next INTEGER, error TEXT, data BLOB);
CREATE TABLE IF NOT EXISTS channels (name TEXT PRIMARY KEY, at INTEGER, error TEXT) WITHOUT ROWID;
"""
_decode = msgspec.msgpack.Decoder(Incident).decode
_encode = msgspec.msgpack.encode
_Result = TypeVar("_Result")


class Silence(msgspec.Struct):
    """Nobody is told of `rule` ("" = any) at `subject` ("" = any; a queue means all its topics) until then."""

    id: int
    rule: str
    subject: str
    until_ms: int
    who: str
    why: str = ""
    made_ms: int = 0

    def covers(self, rule: str, subject: str) -> bool:
        mine = self.subject in ("", subject) or subject.startswith(f"{self.subject}/")
        return mine and self.rule in ("", rule)


class Waiting(msgspec.Struct):
    """One message for one channel that was not taken yet."""

    id: int
    channel: str
    tries: int
    next_ms: int
    message: Message
    error: str = ""


class Spoken(msgspec.Struct):
    """When a channel last took a message (`error` ""), or last refused one and why."""

    at_ms: int
    error: str = ""


class Store:
    """The file. Raises PepperbusError when it cannot be read or written."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE

    def run(self, work: Callable[[apsw.Connection], _Result]) -> _Result:
        """One transaction that writes."""
        return aside(lambda: self._run(work, "BEGIN IMMEDIATE"))

    def look(self, work: Callable[[apsw.Connection], _Result]) -> _Result:
        """One that only reads: it waits for nobody who writes, and keeps nobody from it."""
        return aside(lambda: self._run(work, "BEGIN"))

    def _run(self, work: Callable[[apsw.Connection], _Result], begin: str) -> _Result:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(apsw.Connection(str(self.path))) as connection:
                connection.set_busy_timeout(5000)
                connection.execute(_SCHEMA).fetchall()
                connection.execute(begin)
                result = work(connection)
                connection.execute("COMMIT")
                return result
        except (apsw.Error, OSError) as error:
            raise PepperbusError(f"{self.path}: {error}") from error

    def load(self) -> tuple[dict[Key, Track], list[Incident], int]:
        """Tracks, incidents of which something is left to do or to be told, and the highest id ever given."""

        def work(c: apsw.Connection) -> tuple[dict[Key, Track], list[Incident], int]:
            tracks = {
                (rule, subject): Track(bool(is_open), leant)
                for rule, subject, is_open, leant in c.execute("SELECT rule, subject, is_open, leant FROM tracks")
            }
            incidents = [_decode(data) for (data,) in c.execute("SELECT data FROM incidents WHERE closed = 0")]
            return tracks, incidents, c.execute("SELECT coalesce(max(id), 0) FROM incidents").get

        return self.look(work)

    def save(self, tracks: dict[Key, Track], incidents: Iterable[Incident], messages: Iterable[Waiting] = ()) -> None:
        """All tracks as they are, these incidents, and these new messages."""

        def work(c: apsw.Connection) -> None:
            c.execute("DELETE FROM tracks")
            rows = [(rule, subject, track.is_open, track.leant_s) for (rule, subject), track in tracks.items()]
            c.executemany("INSERT INTO tracks VALUES (?, ?, ?, ?)", rows)
            _put(c, incidents)
            c.executemany(
                "INSERT INTO outbox (channel, made, tries, next, error, data) VALUES (?, ?, 0, ?, '', ?)",
                [(one.channel, one.message.at_ms, one.next_ms, _encode(one.message)) for one in messages],
            )

        self.run(work)

    # -- messages --------------------------------------------------------------------------------------------------

    def waiting(self) -> list[Waiting]:
        """Messages that were not taken yet, the oldest first."""

        def work(c: apsw.Connection) -> list[Waiting]:
            rows = c.execute("SELECT id, channel, tries, next, error, data FROM outbox ORDER BY id")
            return [
                Waiting(number, channel, tries, next_ms, msgspec.msgpack.decode(data, type=Message), error)
                for number, channel, tries, next_ms, error, data in rows
            ]

        return self.look(work)

    def sent(self, waiting: Waiting, now_ms: int, error: str, next_ms: int) -> None:
        """It was taken (`error` ""), given up (`next_ms` 0), or is tried again then."""

        def work(c: apsw.Connection) -> None:
            if error and next_ms:
                query = "UPDATE outbox SET tries = tries + 1, next = ?, error = ? WHERE id = ?"
                c.execute(query, (next_ms, error, waiting.id))
            else:
                c.execute("DELETE FROM outbox WHERE id = ?", (waiting.id,))
            c.execute("INSERT OR REPLACE INTO channels VALUES (?, ?, ?)", (waiting.channel, now_ms, error))

        self.run(work)

    def spoken(self) -> dict[str, Spoken]:
        return self.look(
            lambda c: {name: Spoken(at, error) for name, at, error in c.execute("SELECT name, at, error FROM channels")}
        )

    # -- silences --------------------------------------------------------------------------------------------------

    def silences(self, now_ms: int) -> list[Silence]:
        """Those in force."""

        def work(c: apsw.Connection) -> list[Silence]:
            rows = c.execute("SELECT id, data FROM silences WHERE until > ? ORDER BY until", (now_ms,))
            return [msgspec.structs.replace(_silence(data), id=number) for number, data in rows]

        return self.look(work)

    def silence(self, made: Silence) -> Silence:
        def work(c: apsw.Connection) -> Silence:
            c.execute("INSERT INTO silences (until, data) VALUES (?, ?)", (made.until_ms, _encode(made)))
            return msgspec.structs.replace(made, id=c.last_insert_rowid())

        return self.run(work)

    def find_silence(self, number: int) -> Silence:
        """Raises NotFound."""
        if number >= 1 << 63:  # more than the file can name
            raise NotFound(f"no silence {number}")
        row = self.look(lambda c: c.execute("SELECT data FROM silences WHERE id = ?", (number,)).get)
        if row is None:
            raise NotFound(f"no silence {number}")
        return msgspec.structs.replace(_silence(row), id=number)

    def end_silence(self, number: int, now_ms: int) -> None:
        self.run(lambda c: c.execute("UPDATE silences SET until = ? WHERE id = ?", (now_ms, number)) and None)

    # -- history ---------------------------------------------------------------------------------------------------

    def history(self, before: int, limit: int, rule: str = "", subject: str = "") -> list[Incident]:
        """Incidents with a lower id than `before` (0: the newest), newest first. `subject`: itself or its queue."""

        def work(c: apsw.Connection) -> list[Incident]:
            found: list[Incident] = []
            query = "SELECT data FROM incidents WHERE id < ? ORDER BY id DESC"
            for (data,) in c.execute(query, (before or 1 << 62,)):
                one = _decode(data)
                mine = subject in ("", one.subject) or one.subject.startswith(f"{subject}/")
                if mine and rule in ("", one.rule):
                    found.append(one)
                    if len(found) == limit:
                        break
            return found

        return self.look(work)

    def retain(self, oldest_ms: int) -> None:
        """Forget what was over before that."""

        def work(c: apsw.Connection) -> None:
            c.execute("DELETE FROM incidents WHERE closed = 1 AND ended > 0 AND ended < ?", (oldest_ms,))
            c.execute("DELETE FROM silences WHERE until < ?", (oldest_ms,))

        self.run(work)


def _put(c: apsw.Connection, incidents: Iterable[Incident]) -> None:
    rows = [(one.id, one.began_ms, one.ended_ms, one.closed, _encode(one)) for one in incidents]
    c.executemany("INSERT OR REPLACE INTO incidents VALUES (?, ?, ?, ?, ?)", rows)


def _silence(data: Any) -> Silence:
    return msgspec.msgpack.decode(data, type=Silence)
