"""Changing the embedded storage inside one transaction: pushes and what operators do, upon leases and the line.

Floor 3. Several operations of several callers share one `Work` and are committed together; an operation that raises
spoils the transaction, and whoever runs it starts anew without it. Knows neither threads nor the environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pepperbus.storage.columns import as_lines
from pepperbus.storage.contract import Claim, Once, Push
from pepperbus.storage.embedded_layout import (
    DEAD,
    DELAYED,
    HELD,
    JOB,
    LINE,
    NUMBER,
    PLACE,
    READY,
    TOPIC,
    Track,
    pack_body,
)
from pepperbus.storage.embedded_lease import Leases


class Work(Leases):
    """One write transaction, whole: what operations may do in it."""

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
        lines = as_lines(batch)
        columns: dict[str, tuple[list[int], list[bytes]]] = {}
        for topics, ids, bodies in lines:
            records = [pack_body(job_id, body) for job_id, body in zip(ids, bodies, strict=True)]
            for topic in topics:
                if topic in columns:
                    return False
                columns[topic] = ids, records
        if not lines:
            return False
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
            if (
                limits
                and not push.dead
                and any(self._over(job_id, topic, limits.get(topic, 0)) for topic in push.topics)
            ):
                refused.append(index)
                continue
            record = pack_body(job_id, push.body)
            for topic in push.topics:
                number = self._topic_numbers.get(topic) or self._topic(topic)
                if not put(JOB.pack(number, job_id), record, overwrite=False, db=bodies):
                    continue
                if push.due_ms or push.front or push.dead or push.past:
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
        track = Track(*push.past) if push.past else Track(first_due_ms=push.due_ms)
        if push.dead:
            self._bury(number, push.job_id, track, push.dead)
        elif push.due_ms:
            self._put_line(number, DELAYED, push.due_ms, push.job_id, track.pack())
        elif push.front:
            self._to_front(number, [(push.job_id, track)])
        else:
            self._to_tail(number, push.job_id, track)

    def push_once(self, batch: Sequence[Once], limits: Mapping[str, int] | None) -> list[int]:
        return [self._push_once(one, limits) for one in batch]

    def _push_once(self, one: Once, limits: Mapping[str, int] | None) -> int:
        push, name, once = one.push, one.name.encode(), self.tables["once"]
        record = self.txn.get(name, db=once)
        holder, until_ms = HELD.unpack(record) if record else (0, 0)
        if until_ms > self.now_ms and (holder == push.job_id or not one.alive or self._waits(holder, push.topics)):
            return int(holder)
        if self.push([push], limits):
            return 0
        self._claim(Claim(one.name, push.job_id, one.ttl_ms))
        return push.job_id

    def _claim(self, claim: Claim) -> None:
        name, once, expiry = claim.name.encode(), self.tables["once"], self.tables["expiry"]
        if record := self.txn.get(name, db=once):
            self.txn.delete(NUMBER.pack(HELD.unpack(record)[1]) + name, db=expiry)
        until_ms = self.now_ms + claim.ttl_ms
        self.txn.put(name, HELD.pack(claim.job_id, until_ms), db=once)
        self.txn.put(NUMBER.pack(until_ms) + name, b"", db=expiry)

    def _waits(self, job_id: int, topics: Sequence[str]) -> bool:
        """Whether the job is in one of `topics` and not dead there."""
        for topic in topics:
            number = self.topic_number(topic)
            if number is not None and self.txn.get(JOB.pack(number, job_id), db=self.tables["bodies"]) is not None:
                place = self.txn.get(JOB.pack(number, job_id), db=self.tables["place"])
                if not place or PLACE.unpack(place)[0] != DEAD:
                    return True
        return False

    def sweep(self, n: int) -> int:
        """Take out up to `n` names that nobody holds any more. Returns how many."""
        count = 0
        while count < n and (key := self.first("expiry", b"")) is not None:
            if NUMBER.unpack_from(key)[0] > self.now_ms:
                break
            self.txn.delete(key, db=self.tables["expiry"])
            self.txn.delete(key[NUMBER.size :], db=self.tables["once"])
            count += 1
        return count

    def swap(self, name: str, old: str, new: str, batch: Sequence[Push], claims: Sequence[Claim]) -> str:
        found = self.text(name)
        if found != old or found == new:
            return found
        if batch:
            self.push(batch, None)
        for claim in claims:
            self._claim(claim)
        if new:
            self.txn.put(name.encode(), new.encode(), db=self.tables["texts"])
        else:
            self.txn.delete(name.encode(), db=self.tables["texts"])
        return new

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

    def touch(self) -> None:
        """Change something, so that the commit writes a new root of the file, whatever became of the last one."""
        self.txn.put(b"touched", NUMBER.pack(self.now_ms), db=self.tables["about"])

    def heartbeat(self, node: str) -> None:
        self.txn.put(node.encode(), NUMBER.pack(self.now_ms), db=self.tables["nodes"])

    def claim_shard(self, shard: int, node: str) -> str:
        """The node that holds `shard` now: `node`, unless another was first."""
        key = NUMBER.pack(shard)
        self.txn.put(key, node.encode(), overwrite=False, db=self.tables["shards"])
        holder: bytes = self.txn.get(key, db=self.tables["shards"])
        return holder.decode()
