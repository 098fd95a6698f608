"""Changing the embedded storage inside one transaction: push, lease, settle, release and what operators do.

Floor 3. Several operations of several callers share one `Work` and are committed together; an operation that raises
spoils the transaction, and whoever runs it starts anew without it. Knows neither threads nor the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from pepperbus.storage.contract import CRASH_LIMIT, Leased, Outcome, Push, Released, Settle
from pepperbus.storage.embedded_layout import (
    COUNTS,
    DEAD,
    DELAYED,
    JOB,
    LEASE,
    LEASED,
    LINE,
    MIDDLE,
    NEW,
    NUMBER,
    OWNER,
    PLACE,
    READY,
    STATES,
    TOPIC,
    Track,
    pack_body,
    pack_dead,
    unpack_body,
    unpack_track,
)
from pepperbus.storage.embedded_look import Look

DONE = Outcome.DONE  # looked up once: an Enum's members cost a third of a microsecond each time
DAMAGED = "its bytes in the storage are damaged (checksum)"


class Work(Look):
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

    # -- operations, as the contract says --------------------------------------------------------------------------

    def push(self, batch: Sequence[Push], limits: Mapping[str, int] | None) -> list[int]:
        self._make_room(self.txn)
        if not limits and self._push_many(batch):
            return []
        return self._push_each(batch, limits)

    def _push_many(self, batch: Sequence[Push]) -> bool:
        """The quick way for the commonest batch: new jobs with rising ids that all join the end of their lines.

        `_push_each` says what the result must be (a test holds the two against each other). False: it is another
        batch, and nothing was written.
        """
        columns: dict[str, tuple[list[int], list[bytes]]] = {}
        for job_id, body, topics, due_ms, front in batch:
            if due_ms or front:
                return False
            record = pack_body(job_id, body)
            for topic in topics:
                column = columns.get(topic)
                if column is None:
                    columns[topic] = [job_id], [record]
                elif job_id <= column[0][-1]:
                    return False
                else:
                    column[0].append(job_id)
                    column[1].append(record)
        numbered = [
            (self._topic_numbers.get(topic) or self._topic(topic), *column) for topic, column in columns.items()
        ]
        if not all(self._all_new(number, ids) for number, ids, _ in numbered):
            return False
        for number, ids, records in numbered:
            self._append(number, ids, records)
        return True

    def _all_new(self, number: int, ids: Sequence[int]) -> bool:
        """Whether none of the rising `ids` is stored."""
        last = self.last("bodies", TOPIC.pack(number))
        if last is None or JOB.unpack(last)[1] < ids[0]:
            return True
        get, bodies = self.txn.get, self.tables["bodies"]
        return all(get(JOB.pack(number, job_id), db=bodies) is None for job_id in ids)

    def _append(self, number: int, ids: list[int], records: list[bytes]) -> None:
        """New jobs with rising ids to the end of a topic's line."""
        keys = [JOB.pack(number, job_id) for job_id in ids]
        self.txn.cursor(self.tables["bodies"]).putmulti(list(zip(keys, records, strict=True)))
        ranks = [self._tail_rank(number, ids[0])]
        if ranks[0] == ids[0]:
            ranks = ids
            self._tails[number] = ids[-1]
        else:  # the line ends behind these ids, another gateway's were quicker
            ranks += [self._tail_rank(number, job_id) for job_id in ids[1:]]
            moved = [(key, rank) for key, rank, job_id in zip(keys, ranks, ids, strict=True) if rank != job_id]
            places = [(key, PLACE.pack(READY, rank)) for key, rank in moved]
            self.txn.cursor(self.tables["place"]).putmulti(places)
        lines = [(LINE.pack(number, rank, job_id), b"") for rank, job_id in zip(ranks, ids, strict=True)]
        self.txn.cursor(self.tables["ready"]).putmulti(lines)
        self.counts(number)[READY] += len(ids)

    def _push_each(self, batch: Sequence[Push], limits: Mapping[str, int] | None) -> list[int]:
        refused = []
        bodies, put = self.tables["bodies"], self.txn.put
        for index, push in enumerate(batch):
            job_id = push.job_id
            if limits and any(self._over(job_id, topic, limits.get(topic, 0)) for topic in push.topics):
                refused.append(index)
                continue
            record = pack_body(job_id, push.body)
            for topic in push.topics:
                number = self._topic_numbers.get(topic) or self._topic(topic)
                if not put(JOB.pack(number, job_id), record, overwrite=False, db=bodies):
                    continue
                if push.due_ms or push.front:
                    self._enter(number, push)
                else:
                    self._put_line(number, READY, self._tail_rank(number, job_id), job_id, b"")
        return refused

    def _over(self, job_id: int, topic: str, limit: int) -> bool:
        number = self.topic_number(topic)
        if limit <= 0 or number is None:
            return False
        counts = self.counts(number)
        known = self.txn.get(JOB.pack(number, job_id), db=self.tables["bodies"])
        return known is None and counts[READY] + counts[DELAYED] >= limit

    def _enter(self, number: int, push: Push) -> None:
        """Enter a job that does not just join the line."""
        if push.due_ms:
            track = Track(first_due_ms=push.due_ms)
            self._put_line(number, DELAYED, push.due_ms, push.job_id, track.pack())
        else:
            self._to_front(number, [(push.job_id, NEW)])

    def lease(self, topic: str, n: int, owner: str) -> list[Leased]:
        number = self.topic_number(topic)
        prefix = TOPIC.pack(number or 0)
        cursor = self.txn.cursor(self.tables["ready"])
        if number is None or not cursor.set_range(prefix):
            return []
        jobs: list[Leased] = []
        entries = []
        holder = b""
        item, delete, get, bodies = cursor.item, cursor.delete, self.txn.get, self.tables["bodies"]
        size, before = len(prefix), len(prefix) + NUMBER.size  # of a ready key, in front of rank and job id
        taken = 0
        while len(jobs) < n:
            key, value = item()
            if key[:size] != prefix:
                break
            delete()
            taken += 1
            job_key = prefix + key[before:]
            _, rank, job_id = LINE.unpack(key)
            if rank != job_id:
                self.txn.delete(job_key, db=self.tables["place"])
            track = unpack_track(value) if value else NEW
            body, whole = unpack_body(job_id, get(job_key, db=bodies))
            if not whole:
                self._bury(number, job_id, track, DAMAGED)
                continue
            holder = holder or TOPIC.pack(self._owner(owner))
            entries.append((holder + job_key, key[size:before] + value))
            jobs.append(Leased(topic, job_id, body, track.attempts + 1, track.crashes, track.first_due_ms))
        self.txn.cursor(self.tables["leased"]).putmulti(entries)
        counts = self.counts(number)
        counts[READY] -= taken
        counts[LEASED] += len(jobs)
        return jobs

    def _bury(self, number: int, job_id: int, track: Track, reason: str) -> None:
        self._put_line(number, DEAD, self.now_ms, job_id, pack_dead(track, reason))

    def settle(self, owner: str, batch: Sequence[Settle]) -> int:
        record = self.txn.get(owner.encode(), db=self.tables["owners"])
        holder = OWNER.unpack(record)[0] if record else 0
        back: dict[int, list[tuple[int, Track]]] = {}
        count = 0
        pop, delete, leased, bodies = self.txn.pop, self.txn.delete, self.tables["leased"], self.tables["bodies"]
        for topic, job_id, outcome, due_ms, reason, spent in batch:
            number = self._topic_numbers.get(topic) or self.topic_number(topic)
            if number is None:
                continue
            value = pop(LEASE.pack(holder, number, job_id), db=leased)
            if value is None:
                count += outcome is DONE and self._done_elsewhere(number, job_id)
                continue
            count += 1
            self.counts(number)[LEASED] -= 1
            if outcome is DONE:
                delete(JOB.pack(number, job_id), db=bodies)
                continue
            track = unpack_track(value, NUMBER.size)
            track = track._replace(attempts=track.attempts + spent)
            if outcome is Outcome.RETRY:
                self._put_line(number, DELAYED, due_ms, job_id, track.pack())
            elif outcome is Outcome.DEAD:
                self._bury(number, job_id, track, reason)
            else:
                back.setdefault(number, []).append((job_id, track))
        for number, jobs in back.items():
            self._to_front(number, jobs)
        return count

    def _done_elsewhere(self, number: int, job_id: int) -> bool:
        """The job was done by an owner that no longer held it: wherever it is now, it leaves."""
        at = self.locate(number, job_id)
        if at:
            self._drop(number, job_id, *at)
        return at is not None

    def release(self, owner: str, started: Collection[tuple[str, int]] | None) -> list[Released]:
        record = self.txn.get(owner.encode(), db=self.tables["owners"])
        if not record:
            return []
        held = self._held(OWNER.unpack(record)[0])
        names = {TOPIC.unpack(number)[0]: name.decode() for name, number in self.txn.cursor(self.tables["topics"])}
        ran_jobs = None if started is None else set(started)
        released: list[Released] = []
        back: dict[int, list[tuple[int, Track]]] = {}
        for number, _, job_id, track in sorted(held):
            topic = names[number]
            ran = ran_jobs is None or (topic, job_id) in ran_jobs
            track = track._replace(attempts=track.attempts + ran, crashes=track.crashes + ran)
            dead = ran and track.crashes >= CRASH_LIMIT
            released.append(Released(topic, job_id, track.attempts + (not ran), ran, dead))
            self.counts(number)[LEASED] -= 1
            if dead:
                self._bury(number, job_id, track, f"its worker died {track.crashes} times while it ran")
            else:
                back.setdefault(number, []).append((job_id, track))
        for number, jobs in back.items():
            self._to_front(number, jobs)
        self.txn.delete(owner.encode(), db=self.tables["owners"])
        return released

    def _held(self, holder: int) -> list[tuple[int, int, int, Track]]:
        """Take all leases of an owner: (topic number, rank, job id, track) of each."""
        prefix = TOPIC.pack(holder)
        cursor = self.txn.cursor(self.tables["leased"])
        held = []
        cursor.set_range(prefix)
        while (key := cursor.key()).startswith(prefix) and key:
            _, number, job_id = LEASE.unpack(key)
            value = cursor.value()
            held.append((number, NUMBER.unpack_from(value)[0], job_id, unpack_track(value, NUMBER.size)))
            cursor.delete()
        return held

    def promote(self, topic: str, now_ms: int, n: int) -> tuple[int, int]:
        number = self.topic_number(topic)
        count = 0
        while number is not None and count < n:
            key = self.first("delayed", TOPIC.pack(number))
            if key is None or LINE.unpack(key)[1] > now_ms:
                break
            job_id = LINE.unpack(key)[2]
            self._to_tail(number, job_id, self._take(number, job_id, DELAYED, key))
            count += 1
        return count, self.next_due(topic)

    def replay(self, topic: str, job_ids: Sequence[int]) -> int:
        count = 0
        for number, job_id, state, key in self._among(topic, job_ids, (DEAD, DELAYED)):
            self._take(number, job_id, state, key)
            # The age starts anew too, or `max_age` would end a replayed job at once.
            self._to_tail(number, job_id, Track(first_due_ms=self.now_ms))
            count += 1
        return count

    def remove(self, topic: str, job_ids: Sequence[int]) -> int:
        count = 0
        for found in self._among(topic, job_ids, (READY, DELAYED, DEAD)):
            self._drop(*found)
            count += 1
        return count

    def _among(
        self, topic: str, job_ids: Sequence[int], states: tuple[int, ...]
    ) -> Iterable[tuple[int, int, int, bytes]]:
        number = self.topic_number(topic)
        if number is None:
            return
        for job_id in dict.fromkeys(job_ids):
            at = self.locate(number, job_id)
            if at and at[0] in states:
                yield number, job_id, *at

    def set_paused(self, topic: str, paused: bool) -> None:
        if paused:
            self.txn.put(topic.encode(), b"", db=self.tables["paused"])
        else:
            self.txn.delete(topic.encode(), db=self.tables["paused"])

    def heartbeat(self, node: str) -> None:
        self.txn.put(node.encode(), NUMBER.pack(self.now_ms), db=self.tables["nodes"])

    def claim_shard(self, shard: int, node: str) -> str:
        """The node that holds `shard` now: `node`, unless another was first."""
        key = NUMBER.pack(shard)
        self.txn.put(key, node.encode(), overwrite=False, db=self.tables["shards"])
        holder: bytes = self.txn.get(key, db=self.tables["shards"])
        return holder.decode()
