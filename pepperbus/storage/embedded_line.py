"""Where jobs lie in the embedded storage, while a transaction changes it: the lines, the counts, the numbers.

Floor 3. The ground on which `embedded_lease` and `embedded_work` stand; knows neither pushes nor verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pepperbus.storage.embedded_layout import (
    COUNTS,
    DEAD,
    JOB,
    LEASED,
    LINE,
    MIDDLE,
    NUMBER,
    OWNER,
    PLACE,
    READY,
    STATES,
    TOPIC,
    Track,
    pack_dead,
    unpack_track,
)
from pepperbus.storage.embedded_look import Look


class Line(Look):
    """One write transaction. `now_ms` is its time; `make_room` raises when there is no space for more jobs."""

    def __init__(self, txn: Any, tables: Mapping[str, Any], now_ms: int, make_room: Callable[[Any], None]) -> None:
        super().__init__(txn, tables)
        self.now_ms = now_ms
        self._make_room = make_room
        self._counts: dict[int, list[int]] = {}
        self._heads: dict[int, int] = {}
        self._tails: dict[int, int] = {}

    def finish(self) -> None:
        """Write what was only counted. Called once, before the commit."""
        for number, counts in self._counts.items():
            if counts != super().counts(number):
                self.txn.put(TOPIC.pack(number), COUNTS.pack(*counts), db=self.tables["counts"])

    def counts(self, number: int) -> list[int]:
        """The counts as they will be; the list may be changed."""
        counts = self._counts.get(number)
        if counts is None:
            counts = self._counts[number] = super().counts(number)
        return counts

    def _topic(self, topic: str) -> int:
        """The number of a topic, given to it now if it has none."""
        number = self.topic_number(topic)
        if number is None:
            number = self.txn.stat(self.tables["topics"])["entries"] + 1  # topics are never taken out of the table
            self.txn.put(topic.encode(), TOPIC.pack(number), db=self.tables["topics"])
            self._topic_numbers[topic] = number
        return number

    def _owner(self, owner: str) -> int:
        """The number of an owner. Numbers of owners that are gone may come again: they hold nothing any more."""
        name = owner.encode()
        record = self.txn.get(name, db=self.tables["owners"])
        if record:
            return int(OWNER.unpack(record)[0])
        number = max((number for _, number, _ in self.owners()), default=0) + 1
        self.txn.put(name, OWNER.pack(number, self.now_ms), db=self.tables["owners"])
        return number

    # -- the line ------------------------------------------------------------------------------------------------

    def _tail_rank(self, number: int, job_id: int) -> int:
        """The rank at the end of the line: the job's own id unless the line ends behind that."""
        tail = self._tails.get(number)
        if tail is None:
            last = self.last("ready", TOPIC.pack(number))
            tail = LINE.unpack(last)[1] if last else 0
        rank = self._tails[number] = max(job_id, tail + 1)
        return rank

    def _head_rank(self, number: int) -> int:
        head = self._heads.get(number)
        if head is None:
            first = self.first("ready", TOPIC.pack(number))
            head = min(LINE.unpack(first)[1], MIDDLE) if first else MIDDLE
        rank = self._heads[number] = head - 1
        return rank

    def _put_line(self, number: int, state: int, position: int, job_id: int, value: bytes) -> None:
        """Enter a job among the ready, delayed or dead."""
        self.txn.put(LINE.pack(number, position, job_id), value, db=self.tables[STATES[state]])
        if state != READY or position != job_id:
            self.txn.put(JOB.pack(number, job_id), PLACE.pack(state, position), db=self.tables["place"])
        self.counts(number)[state] += 1

    def _take(self, number: int, job_id: int, state: int, key: bytes) -> Track:
        """Take a job out of its state; its body stays. Returns what is known of it."""
        value = self.txn.pop(key, db=self.tables[STATES[state]])
        self.counts(number)[state] -= 1
        if state == LEASED:
            return unpack_track(value, NUMBER.size)
        self.txn.delete(JOB.pack(number, job_id), db=self.tables["place"])
        return unpack_track(value)

    def _drop(self, number: int, job_id: int, state: int, key: bytes) -> None:
        self._take(number, job_id, state, key)
        self.txn.delete(JOB.pack(number, job_id), db=self.tables["bodies"])

    def _to_front(self, number: int, jobs: Iterable[tuple[int, Track]]) -> None:
        """Ahead of everything that waits, the first of `jobs` foremost."""
        for job_id, track in reversed(list(jobs)):
            self._put_line(number, READY, self._head_rank(number), job_id, track.pack())

    def _to_tail(self, number: int, job_id: int, track: Track) -> None:
        self._put_line(number, READY, self._tail_rank(number, job_id), job_id, track.pack())

    def _bury(self, number: int, job_id: int, track: Track, reason: str) -> None:
        self._put_line(number, DEAD, self.now_ms, job_id, pack_dead(track, reason))
