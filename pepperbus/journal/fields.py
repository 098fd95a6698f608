"""Fields of a job's JSON by which it is found: `index = order_id, user.id` of its queue, kept with each of its rows.

Floor 3. Whoever writes rows of such queues writes through `Indexing`; where no queue has an index nothing of this runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from pepperbus.config.model import Config
from pepperbus.journal.contract import JournalWriter, Row

VALUE_CAP = 128  # characters of a value
MOST_EACH = 8  # values of one path, where it leads through lists
MOST_BYTES = 256 << 10  # a larger content is not looked into: it would hold up others

_decode = msgspec.json.Decoder().decode


class Fields:
    """What is looked for in the jobs of a queue. Paths are names with dots between; a list means each of its members."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._paths = [(path, path.split(".")) for path in paths]

    def of(self, content: bytes) -> tuple[str, ...]:
        """`path=value` for all that is there; empty for what is not JSON."""
        if len(content) > MOST_BYTES:
            return ()
        try:
            document = _decode(content)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return ()
        found: dict[str, None] = {}
        for path, words in self._paths:
            for count, value in enumerate(_values(document, words)):
                if count == MOST_EACH:
                    break
                found[f"{path}={value[:VALUE_CAP]}"] = None
        return tuple(found)


def _values(value: Any, words: list[str]) -> Iterator[str]:
    if isinstance(value, list):
        for one in value[:MOST_EACH]:
            yield from _values(one, words)
    elif words:
        if isinstance(value, dict) and words[0] in value:
            yield from _values(value[words[0]], words[1:])
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float):
        yield msgspec.json.encode(value).decode()


def key_of(field: str) -> int:
    """What the database knows a field by: few bytes, and nothing that a reader of the file could read."""
    return int.from_bytes(blake2b(field.encode(), digest_size=8).digest(), "big", signed=True)


class Indexing:
    """A `JournalWriter` before another one: adds the fields to rows of queues with an index."""

    def __init__(self, journal: JournalWriter, config: Config) -> None:
        self._journal = journal
        self.take(config)

    def take(self, config: Config) -> None:
        """Go by a new configuration."""
        self._fields = {
            topic.full_name: Fields(queue.index)
            for queue in config.queues.values()
            for topic in queue.topics.values()
            if queue.index
        }

    @property
    def dropped(self) -> int:
        return self._journal.dropped

    def add(self, row: Row, soon: bool = True) -> None:
        fields = self._fields.get(row.topic)
        if fields is not None and row.content:
            row.fields = fields.of(row.content)
        self._journal.add(row, soon)

    def flush(self) -> None:
        self._journal.flush()

    def close(self) -> None:
        self._journal.close()
