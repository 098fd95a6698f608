"""The reference model of a storage: plain lists and dicts, obviously right, gone when the process ends.

Floor 3. The other engines are tested beside it, and tests of callers use it. It must stay simple: every operation
works on whole sorted lists and never yields, so each is atomic for greenlets.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pepperbus.clock import Clock, SystemClock
from pepperbus.config.model import StorageConfig
from pepperbus.errors import StorageRefused
from pepperbus.ids import id_time_ms
from pepperbus.job import State
from pepperbus.log import Log
from pepperbus.names import split_owner
from pepperbus.storage.contract import (
    CRASH_LIMIT,
    MEMORY,
    Claim,
    Depth,
    Health,
    Leased,
    Once,
    Outcome,
    Page,
    Past,
    Push,
    Released,
    Settle,
    Stored,
)


@dataclass(eq=False)
class _Job:
    """One job of one topic. `place` sorts it among its state: rank in line, due time or time of death."""

    id: int
    body: bytes
    state: State
    place: int
    attempts: int = 0
    crashes: int = 0
    first_due_ms: int = 0
    reason: str = ""
    owner: str = ""


@dataclass
class _Topic:
    jobs: dict[int, _Job] = field(default_factory=dict)
    lines: dict[State, list[tuple[int, int]]] = field(default_factory=lambda: {state: [] for state in State})

    def put(self, job: _Job, state: State, place: int) -> None:
        """Move `job` (new or not) to where `state` and `place` say."""
        self.drop(job.id)
        job.state, job.place = state, place
        if state is not State.LEASED:
            job.owner = ""
        self.jobs[job.id] = job
        insort(self.lines[state], (place, job.id))

    def drop(self, job_id: int) -> bool:
        job = self.jobs.pop(job_id, None)
        if job:
            self.lines[job.state].remove((job.place, job.id))
        return job is not None

    def to_tail(self, job: _Job) -> None:
        line = self.lines[State.READY]
        self.put(job, State.READY, max(job.id, line[-1][0] + 1 if line else 0))

    def to_front(self, jobs: Iterable[_Job]) -> None:
        """Ahead of everything, the first of `jobs` foremost."""
        for job in reversed(list(jobs)):
            line = self.lines[State.READY]
            self.put(job, State.READY, min(1 << 63, line[0][0] if line else 1 << 63) - 1)

    def waiting(self) -> int:
        return len(self.lines[State.READY]) + len(self.lines[State.DELAYED])


class MemoryStorage:
    """All of the contract in one process's memory."""

    def __init__(self, config: StorageConfig, clock: Clock | None = None, log: Log | None = None) -> None:
        self.name = config.name
        self.durability = MEMORY
        self._clock = clock or SystemClock()
        self._topics: dict[str, _Topic] = {}
        self._owners: set[str] = set()
        self._seen: dict[str, int] = {}
        self._left: set[str] = set()
        self._shards: dict[int, str] = {}
        self._paused: set[str] = set()
        self._held: dict[str, tuple[int, int]] = {}  # name -> job id that holds it, until when (ms)
        self._texts: dict[str, str] = {}

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def push(self, batch: Sequence[Push], limits: Mapping[str, int] | None = None) -> Collection[int]:
        refused = []
        for index, push in enumerate(batch):
            if limits and any(self._over(push, topic, limits.get(topic, 0)) for topic in push.topics):
                refused.append(index)
                continue
            for name in push.topics:
                topic = self._topics.setdefault(name, _Topic())
                if push.job_id not in topic.jobs:
                    self._store(topic, push)
        return refused

    def _over(self, push: Push, name: str, limit: int) -> bool:
        topic = self._topics.get(name)
        return (
            limit > 0
            and topic is not None
            and not push.dead
            and push.job_id not in topic.jobs
            and topic.waiting() >= limit
        )

    def _store(self, topic: _Topic, push: Push) -> None:
        past = push.past or Past(first_due_ms=push.due_ms)
        job = _Job(push.job_id, bytes(push.body), State.READY, 0, past.attempts, past.crashes, past.first_due_ms)
        if push.dead:
            self._bury(topic, job, push.dead)
        elif push.due_ms:
            topic.put(job, State.DELAYED, push.due_ms)
        elif push.front:
            topic.to_front([job])
        else:
            topic.to_tail(job)

    def push_once(self, batch: Sequence[Once], limits: Mapping[str, int] | None = None) -> list[int]:
        return [self._push_once(one, limits) for one in batch]

    def _push_once(self, one: Once, limits: Mapping[str, int] | None) -> int:
        push, now_ms = one.push, self._clock.now_ms()
        holder, until_ms = self._held.get(one.name, (0, 0))
        if (
            holder
            and until_ms > now_ms
            and (holder == push.job_id or not one.alive or self._waits(holder, push.topics))
        ):
            return holder
        if self.push([push], limits):
            return 0
        self._held[one.name] = push.job_id, now_ms + one.ttl_ms
        return push.job_id

    def _waits(self, job_id: int, topics: Sequence[str]) -> bool:
        """Whether the job is in one of `topics` and not dead there."""
        return any(found.state is not State.DEAD for found in self.find(job_id, topics))

    def recall(self, name: str) -> str:
        return self._texts.get(name, "")

    def swap(self, name: str, old: str, new: str, batch: Sequence[Push] = (), claims: Sequence[Claim] = ()) -> str:
        found = self.recall(name)
        if found != old or found == new:
            return found
        self.push(batch)
        for claim in claims:
            self._held[claim.name] = claim.job_id, self._clock.now_ms() + claim.ttl_ms
        if new:
            self._texts[name] = new
        else:
            del self._texts[name]
        return new

    def lease(self, topic: str, n: int, owner: str) -> list[Leased]:
        found = self._topics.get(topic)
        if not found or not found.lines[State.READY] or n < 1:
            return []
        if owner not in self._owners:
            self._owners.add(owner)
            self.heartbeat(split_owner(owner)[0])
        leased = []
        for place, job_id in found.lines[State.READY][:n]:
            job = found.jobs[job_id]
            found.put(job, State.LEASED, place)
            job.owner = owner
            leased.append(Leased(topic, job_id, job.body, job.attempts + 1, job.crashes, job.first_due_ms))
        return leased

    def settle(self, owner: str, batch: Sequence[Settle]) -> int:
        count = 0
        back: dict[str, list[_Job]] = {}
        for one in batch:
            topic = self._topics.get(one.topic)
            job = topic.jobs.get(one.job_id) if topic else None
            if not topic or not job or job in back.get(one.topic, ()):
                continue
            if one.outcome is Outcome.DONE:
                count += topic.drop(job.id)
            elif job.state is State.LEASED and job.owner == owner:
                job.attempts += one.spent
                count += 1
                if one.outcome is Outcome.BACK:
                    back.setdefault(one.topic, []).append(job)
                elif one.outcome is Outcome.RETRY:
                    topic.put(job, State.DELAYED, one.due_ms)
                else:
                    self._bury(topic, job, one.reason)
        for name, jobs in back.items():
            self._topics[name].to_front(jobs)
        return count

    def _bury(self, topic: _Topic, job: _Job, reason: str) -> None:
        job.reason = reason
        topic.put(job, State.DEAD, self._clock.now_ms())

    def settle_and_lease(
        self, owner: str, batch: Sequence[Settle], topic: str, n: int
    ) -> tuple[int, list[Leased] | None]:
        return self.settle(owner, batch), self.lease(topic, n, owner)

    def release(self, owner: str, started: Collection[tuple[str, int]] | None) -> list[Released]:
        released = []
        for name, topic in self._topics.items():
            back = []
            for _, job_id in list(topic.lines[State.LEASED]):
                job = topic.jobs[job_id]
                if job.owner != owner:
                    continue
                ran = started is None or (name, job_id) in started
                job.attempts += ran
                job.crashes += ran
                dead = ran and job.crashes >= CRASH_LIMIT
                released.append(Released(name, job_id, job.attempts + (not ran), ran, dead))
                if dead:
                    self._bury(topic, job, f"its worker died {job.crashes} times while it ran")
                else:
                    back.append(job)
            topic.to_front(back)
        self._owners.discard(owner)
        return released

    def owners(self) -> list[str]:
        return sorted(self._owners)

    def heartbeat(self, node: str) -> None:
        self._seen[node] = self._clock.now_ms()
        self._left.discard(node)

    def leave(self, node: str) -> None:
        self._left.add(node)

    def nodes(self) -> dict[str, int]:
        now_ms = self._clock.now_ms()
        return {node: now_ms - seen for node, seen in self._seen.items() if node not in self._left}

    def lost_nodes(self, older_ms: int) -> list[str]:
        border = self._clock.now_ms() - older_ms
        nodes = {split_owner(owner)[0] for owner in self._owners}
        return sorted(node for node in nodes if self._seen[node] < border)

    def claim_shard(self, shard: int, node: str) -> None:
        holder = self._shards.setdefault(shard, node)
        if holder != node:
            raise StorageRefused(
                f"storage {self.name}: shard {shard} belongs to node {holder}; give node {node} another `shard`"
            )

    def promote(self, topic: str, now_ms: int, n: int = 1000) -> tuple[int, int]:
        found = self._topics.get(topic)
        if not found:
            return 0, 0
        line = found.lines[State.DELAYED]
        due = line[: bisect_left(line, (now_ms + 1, 0))][:n]
        for _, job_id in due:
            found.to_tail(found.jobs[job_id])
        return len(due), line[0][0] if line else 0

    def depth(self, topic: str) -> Depth:
        found = self._topics.get(topic)
        if not found:
            return Depth()
        ready, delayed, leased, dead = (
            found.lines[state] for state in (State.READY, State.DELAYED, State.LEASED, State.DEAD)
        )
        return Depth(len(ready), len(delayed), len(leased), len(dead), id_time_ms(ready[0][1]) if ready else 0)

    def depths(self, topics: Collection[str]) -> dict[str, Depth]:
        return {topic: self.depth(topic) for topic in topics}

    def topics(self) -> list[str]:
        return sorted(name for name, topic in self._topics.items() if topic.jobs)

    def peek(self, topic: str, state: State, cursor: str = "", n: int = 100) -> Page:
        found = self._topics.get(topic)
        line = list(found.lines[state]) if found else []
        if state is State.DEAD:
            line.reverse()
        if cursor:
            after = int(cursor[:16], 16), int(cursor[16:], 16)
            line = [at for at in line if (at < after if state is State.DEAD else at > after)]
        jobs = [self._stored(topic, found.jobs[job_id]) for _, job_id in line[:n]] if found else []
        more = len(line) > n
        return Page(jobs, "%016x%016x" % line[n - 1] if more else "")

    def find(self, job_id: int, topics: Sequence[str]) -> list[Stored]:
        return [
            self._stored(name, self._topics[name].jobs[job_id])
            for name in topics
            if name in self._topics and job_id in self._topics[name].jobs
        ]

    def _stored(self, topic: str, job: _Job) -> Stored:
        return Stored(
            topic,
            job.id,
            job.state,
            job.body,
            job.attempts,
            job.crashes,
            due_ms=job.place if job.state is State.DELAYED else 0,
            reason=job.reason if job.state is State.DEAD else "",
            dead_ms=job.place if job.state is State.DEAD else 0,
            owner=job.owner,
            first_due_ms=job.first_due_ms,
        )

    def replay(self, topic: str, job_ids: Sequence[int]) -> int:
        jobs = self._among(topic, job_ids, State.DEAD, State.DELAYED)
        for job in jobs:
            job.attempts = job.crashes = 0
            job.first_due_ms = self._clock.now_ms()  # the age starts anew too, or `max_age` would end it at once
            self._topics[topic].to_tail(job)
        return len(jobs)

    def remove(self, topic: str, job_ids: Sequence[int]) -> int:
        jobs = self._among(topic, job_ids, State.READY, State.DELAYED, State.DEAD)
        return sum(self._topics[topic].drop(job.id) for job in jobs)

    def _among(self, topic: str, job_ids: Sequence[int], *states: State) -> list[_Job]:
        found = self._topics.get(topic, _Topic())
        wanted = dict.fromkeys(job_ids)
        return [found.jobs[job_id] for job_id in wanted if job_id in found.jobs and found.jobs[job_id].state in states]

    def set_paused(self, topic: str, paused: bool) -> None:
        (self._paused.add if paused else self._paused.discard)(topic)

    def paused(self) -> set[str]:
        return set(self._paused)

    def health(self) -> Health:
        jobs = Counter(state for topic in self._topics.values() for state in (j.state for j in topic.jobs.values()))
        used = sum(len(job.body) for topic in self._topics.values() for job in topic.jobs.values())
        return Health(True, "1", MEMORY, used, 0, f"{jobs.total()} jobs in memory")

    def advice(self, level: str) -> str:
        return "" if level == MEMORY else "a memory storage keeps nothing: use type = embedded"

    def upkeep(self) -> None:
        now_ms = self._clock.now_ms()
        self._held = {name: held for name, held in self._held.items() if held[1] > now_ms}

    def watch(self, topics: Sequence[str], wake: Callable[[str], None]) -> None:
        pass
