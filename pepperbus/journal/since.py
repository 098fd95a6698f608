"""The journal database from a position on: for whoever follows jobs over restarts, without missing or repeating a row.

Floor 3. A position is the number of the last row that was seen; rows are numbered as they come in. Waits for the disk: call
it in a pool thread.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import msgspec

from pepperbus.journal.contract import Row

_decode = msgspec.msgpack.Decoder(Row).decode


def end(database: Path) -> int:
    """The position behind everything that is in the database now."""
    if not database.exists():
        return 0
    with closing(_opened(database)) as connection:
        try:
            return _last(connection)
        except apsw.SQLError:  # the ticker is making the tables this moment
            return 0


def rows(database: Path, topic: str, position: int, limit: int = 5000) -> tuple[list[Row], int]:
    """At most `limit` rows of `topic` ("" = all) behind `position`, as they came in, and the position behind them."""
    if not database.exists():
        return [], position
    with closing(_opened(database)) as connection:
        try:
            last = _last(connection)
            if last < position:  # all rows were let go, or the file was deleted: numbers begin anew
                position = 0
            which = "topic = ? AND " if topic else ""
            query = f"SELECT rowid, data FROM rows WHERE {which}rowid > ? ORDER BY rowid LIMIT ?"
            values = (topic, position, limit) if topic else (position, limit)
            found: list[Any] = connection.execute(query, values).fetchall()
        except apsw.SQLError:
            return [], position
    return [_decode(data) for _, data in found], found[-1][0] if len(found) == limit else max(last, position)


def _last(connection: apsw.Connection) -> int:
    last: Any = connection.execute("SELECT max(rowid) FROM rows").get
    return int(last or 0)


def _opened(database: Path) -> apsw.Connection:
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(1000)
    return connection
