"""Handing out jobs of the embedded storage and taking verdicts about them, inside one transaction.

Floor 3. Batches of first attempts, the commonest, go by the column; a test holds that way against the other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice, repeat

from pepperbus.storage.contract import CRASH_LIMIT, Leased, Outcome, Released, Settle
from pepperbus.storage.embedded_layout import (
    DELAYED,
    JOB,
    LEASE,
    LEASED,
    LINE,
    NEW,
    NUMBER,
    OWNER,
    READY,
    TOPIC,
    Track,
    unpack_bodies,
    unpack_body,
    unpack_track,
)
from pepperbus.storage.embedded_line import Line

DONE = Outcome.DONE  # looked up once: an Enum's members cost a third of a microsecond each time
DAMAGED = "its bytes in the storage are damaged (checksum)"


#: Where in a ready key the topic ends and the id begins; the rank is between.
_TOPIC, _ID = TOPIC.size, TOPIC.size + NUMBER.size


class Leases(Line):
    """What one transaction does with leases."""

    def lease(self, topic: str, n: int, owner: str) -> list[Leased]:
        number = self.topic_number(topic)
        jobs: list[Leased] = []
        while number is not None and len(jobs) < n:
            wanted = n - len(jobs)
            rows = self._take_first(number, wanted)
            if rows:
                jobs += self._lease_many(topic, rows, owner) or self._lease_each(topic, rows, owner)
            if len(rows) < wanted:
                break
        if number is not None:
            self.counts(number)[LEASED] += len(jobs)
        return jobs

    def _take_first(self, number: int, n: int) -> list[tuple[bytes, bytes]]:
        """Up to `n` from the front of the line, out of it: (key, value) of each."""
        prefix = TOPIC.pack(number)
        cursor = self.txn.cursor(self.tables["ready"])
        if not cursor.set_range(prefix):
            return []
        rows = list(islice(cursor.iternext(), n))
        while rows and not rows[-1][0].startswith(prefix):
            rows.pop()
        cursor.set_range(prefix)
        for _ in rows:
            cursor.delete()  # and on to the next
        self.counts(number)[READY] -= len(rows)
        return rows

    def _lease_many(self, topic: str, rows: list[tuple[bytes, bytes]], owner: str) -> list[Leased]:
        """First attempts at the rank of their ids, by the column. Nothing is written when they are not."""
        keys, tracks = zip(*rows, strict=True)
        _, ranks, ids = zip(*LINE.iter_unpack(b"".join(keys)), strict=True)
        if any(tracks) or ranks != ids:
            return []
        wanted = [key[:_TOPIC] + key[_ID:] for key in keys]
        found = self.txn.cursor(self.tables["bodies"]).getmulti(wanted)
        bodies = unpack_bodies(ids, [record for _, record in found]) if len(found) == len(rows) else None
        if bodies is None:
            return []
        holder = TOPIC.pack(self._owner(owner))
        entries = [(holder + job, key[_TOPIC:_ID]) for job, key in zip(wanted, keys, strict=True)]
        self.txn.cursor(self.tables["leased"]).putmulti(entries)
        return list(map(Leased._make, zip(repeat(topic), ids, bodies, repeat(1), repeat(0), repeat(0), strict=False)))

    def _lease_each(self, topic: str, rows: list[tuple[bytes, bytes]], owner: str) -> list[Leased]:
        jobs: list[Leased] = []
        entries = []
        holder = b""
        for key, value in rows:
            number, rank, job_id = LINE.unpack(key)
            job_key = JOB.pack(number, job_id)
            if rank != job_id:
                self.txn.delete(job_key, db=self.tables["place"])
            track = unpack_track(value) if value else NEW
            body, whole = unpack_body(job_id, self.txn.get(job_key, db=self.tables["bodies"]))
            if not whole:
                self._bury(number, job_id, track, DAMAGED)
                continue
            holder = holder or TOPIC.pack(self._owner(owner))
            entries.append((holder + job_key, key[_TOPIC:_ID] + value))
            jobs.append(Leased(topic, job_id, body, track.attempts + 1, track.crashes, track.first_due_ms))
        self.txn.cursor(self.tables["leased"]).putmulti(entries)
        return jobs

    def settle(self, owner: str, batch: Sequence[Settle]) -> int:
        record = self.txn.get(owner.encode(), db=self.tables["owners"])
        holder = OWNER.unpack(record)[0] if record else 0
        back: dict[int, list[tuple[int, Track]]] = {}
        count = 0
        pop = self.txn.cursor(self.tables["leased"]).pop
        body = self.txn.cursor(self.tables["bodies"])
        for topic, job_id, outcome, due_ms, reason, spent in batch:
            number = self._topic_numbers.get(topic) or self.topic_number(topic)
            if number is None:
                continue
            value = pop(LEASE.pack(holder, number, job_id))
            if value is None:
                count += outcome is DONE and self._done_elsewhere(number, job_id)
                continue
            count += 1
            self.counts(number)[LEASED] -= 1
            if outcome is DONE:
                if body.set_key(JOB.pack(number, job_id)):
                    body.delete()
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
