"""Reading the embedded storage inside one transaction: depth, listings, finding a job. Changes nothing.

Floor 3. Knows the layout and a transaction; knows neither threads nor the environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pepperbus.ids import id_time_ms
from pepperbus.job import State
from pepperbus.names import split_owner
from pepperbus.storage.contract import Depth, Page, Stored
from pepperbus.storage.embedded_layout import (
    COUNTS,
    DEAD,
    DELAYED,
    JOB,
    LEASE,
    LEASED,
    LINE,
    NUMBER,
    OWNER,
    PLACE,
    POSITION,
    READY,
    STATES,
    TOPIC,
    dead_reason,
    unpack_body,
    unpack_track,
)

_END = b"\xff" * 8


class Look:
    """What can be seen in one transaction. `tables`: name -> the open LMDB database."""

    def __init__(self, txn: Any, tables: Mapping[str, Any]) -> None:
        self.txn = txn
        self.tables = tables
        self._topic_numbers: dict[str, int] = {}

    def topic_number(self, topic: str) -> int | None:
        """None: nothing was ever pushed to it."""
        number = self._topic_numbers.get(topic)
        if number is None:
            packed = self.txn.get(topic.encode(), db=self.tables["topics"])
            if packed is None:
                return None
            number = self._topic_numbers[topic] = TOPIC.unpack(packed)[0]
        return number

    def counts(self, number: int) -> list[int]:
        packed = self.txn.get(TOPIC.pack(number), db=self.tables["counts"])
        return list(COUNTS.unpack(packed)) if packed else [0, 0, 0, 0]

    def first(self, table: str, prefix: bytes) -> bytes | None:
        """The lowest key that begins with `prefix`."""
        cursor = self.txn.cursor(self.tables[table])
        found = cursor.set_range(prefix) and cursor.key().startswith(prefix)
        return cursor.key() if found else None

    def last(self, table: str, prefix: bytes) -> bytes | None:
        """The highest key that begins with `prefix`, which is shorter than any key of the table."""
        cursor = self.txn.cursor(self.tables[table])
        found = cursor.prev() if cursor.set_range(prefix + _END * 3) else cursor.last()
        return cursor.key() if found and cursor.key().startswith(prefix) else None

    def depth(self, topic: str) -> Depth:
        number = self.topic_number(topic)
        if number is None:
            return Depth()
        ready, delayed, leased, dead = self.counts(number)
        head = self.first("ready", TOPIC.pack(number)) if ready else None
        return Depth(ready, delayed, leased, dead, id_time_ms(LINE.unpack(head)[2]) if head else 0)

    def has_ready(self, topic: str) -> bool:
        number = self.topic_number(topic)
        return number is not None and self.counts(number)[READY] > 0

    def next_due(self, topic: str) -> int:
        """When the first delayed job is due, 0 if there is none."""
        number = self.topic_number(topic)
        key = self.first("delayed", TOPIC.pack(number)) if number is not None else None
        return LINE.unpack(key)[1] if key else 0

    def topics(self) -> list[str]:
        """Sorted by name, as the table is."""
        rows = self.txn.cursor(self.tables["topics"])
        return [name.decode() for name, number in rows if any(self.counts(TOPIC.unpack(number)[0]))]

    def text(self, name: str) -> str:
        found = self.txn.get(name.encode(), db=self.tables["texts"])
        return found.decode() if found else ""

    def paused(self) -> set[str]:
        return {name.decode() for name in self.txn.cursor(self.tables["paused"]).iternext(values=False)}

    def owners(self) -> list[tuple[str, int, int]]:
        """(name, number, since ms) of each, sorted by name."""
        rows = self.txn.cursor(self.tables["owners"])
        return [(name.decode(), *OWNER.unpack(record)) for name, record in rows]

    def last_signs(self) -> dict[str, int]:
        """Node -> ms of its last sign of life."""
        return {name.decode(): NUMBER.unpack(ms)[0] for name, ms in self.txn.cursor(self.tables["nodes"])}

    def lost_nodes(self, before_ms: int) -> list[str]:
        """Nodes with leases that last gave a sign of life before that. An owner's first lease is a sign too."""
        signs = self.last_signs()
        seen: dict[str, int] = {}
        for owner, _, since in self.owners():
            node = split_owner(owner)[0]
            seen[node] = max(seen.get(node, 0), signs.get(node, 0), since)
        return sorted(node for node, ms in seen.items() if ms < before_ms)

    def locate(self, number: int, job_id: int) -> tuple[int, bytes] | None:
        """Where a job is: index of its state and its key in that state's table. None: it is not there."""
        place = self.txn.get(JOB.pack(number, job_id), db=self.tables["place"])
        if place:
            state, position = PLACE.unpack(place)
            return state, LINE.pack(number, position, job_id)
        if self.txn.get(JOB.pack(number, job_id), db=self.tables["bodies"]) is None:
            return None
        key = LINE.pack(number, job_id, job_id)
        if self.txn.get(key, db=self.tables["ready"]) is not None:
            return READY, key
        for _, owner, _ in self.owners():
            key = LEASE.pack(owner, number, job_id)
            if self.txn.get(key, db=self.tables["leased"]) is not None:
                return LEASED, key
        return None

    def find(self, job_id: int, topics: Sequence[str]) -> list[Stored]:
        found = []
        for topic in topics:
            number = self.topic_number(topic)
            at = self.locate(number, job_id) if number is not None else None
            if at:
                found.append(self._stored(topic, *at))
        return found

    def _stored(self, topic: str, state: int, key: bytes) -> Stored:
        value = self.txn.get(key, db=self.tables[STATES[state]])
        if state == LEASED:
            owner, number, job_id = LEASE.unpack(key)
            position = 0
            track = unpack_track(value, NUMBER.size)
            holder = next(name for name, one, _ in self.owners() if one == owner)
        else:
            number, position, job_id = LINE.unpack(key)
            track = unpack_track(value)
            holder = ""
        body, _ = unpack_body(job_id, self.txn.get(JOB.pack(number, job_id), db=self.tables["bodies"]))
        return Stored(
            topic,
            job_id,
            STATES[state],
            body,
            track.attempts,
            track.crashes,
            due_ms=position if state == DELAYED else 0,
            reason=dead_reason(value) if state == DEAD else "",
            dead_ms=position if state == DEAD else 0,
            owner=holder,
            first_due_ms=track.first_due_ms,
        )

    def peek(self, topic: str, state: State, cursor: str, n: int) -> Page:
        number = self.topic_number(topic)
        if number is None:
            return Page([], "")
        index = STATES.index(state)
        after = bytes.fromhex(cursor)
        if index == LEASED:
            keys = self._leased_keys(number, after)
        else:
            keys = ((key[TOPIC.size :], key) for key in self._line_keys(number, state, after))
        jobs: list[Stored] = []
        seen = b""
        for position, key in keys:
            if len(jobs) == n:
                return Page(jobs, seen.hex())
            jobs.append(self._stored(topic, index, key))
            seen = position
        return Page(jobs, "")

    def _line_keys(self, number: int, state: State, after: bytes) -> Iterator[bytes]:
        """Keys behind the position `after`: rising, of the dead falling."""
        prefix = TOPIC.pack(number)
        cursor = self.txn.cursor(self.tables[state])
        if state is State.DEAD:
            start = prefix + (after or _END * 3)
            found = cursor.prev() if cursor.set_range(start) else cursor.last()
            keys = cursor.iterprev(values=False)
        else:
            found = cursor.set_range(prefix + after + b"\0" if after else prefix)
            keys = cursor.iternext(values=False)
        if not found:
            return
        for key in keys:
            if not key.startswith(prefix):
                return
            yield key

    def _leased_keys(self, number: int, after: bytes) -> Iterator[tuple[bytes, bytes]]:
        """In the order of the line they came from. All are read: leases are few, they are what runs."""
        found = []
        for _, owner, _ in self.owners():
            prefix = LEASE.pack(owner, number, 0)[:8]
            cursor = self.txn.cursor(self.tables["leased"])
            if not cursor.set_range(prefix):
                continue
            for key, value in cursor:
                if not key.startswith(prefix):
                    break
                position = POSITION.pack(NUMBER.unpack_from(value)[0], LEASE.unpack(key)[2])
                if position > after:
                    found.append((position, key))
        return iter(sorted(found))
