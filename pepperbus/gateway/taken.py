"""A job that a client of the gateway has: what becomes of it, and what is remembered of the attempt.

Floor 4. Knows the storage contract and the verdicts, nothing of RESP or of how the client asked. The attempt counts from the
lease; whoever is told that it is done has heard so from the storage.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import gevent

from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Act, TargetEffect, Verdict
from pepperbus.errors import StorageError
from pepperbus.gateway.commit import Lane
from pepperbus.gateway.process import Process
from pepperbus.job import Job, State
from pepperbus.journal.contract import Row
from pepperbus.stats import Record
from pepperbus.storage.contract import Leased, Outcome, Settle, Stored
from pepperbus.worker.attempt import count_outcome
from pepperbus.worker.outcome import decide

_AGAIN_S, _LONGEST_S = 0.2, 2.0  # waits between tries to store what must be stored
_BUGS = 3  # an engine that raises what the contract does not know so often does so for one of those ends
_End = TypeVar("_End")


class Origin(Protocol):
    """Where a job was taken from, as far as its end concerns it: a `Place`."""

    topic: Topic
    lane: Lane
    record: Record
    in_hand: int  # jobs that clients have

    def lane_of(self, storage: str) -> Lane: ...
    def given_back(self, settle: Settle) -> None: ...


@dataclass(slots=True, eq=False)
class Taken:
    """One job in a client's hands. `client` is who, `trace` the attempt's own id; times as in the storage contract."""

    place: Origin
    leased: Leased
    job: Job
    client: str
    trace: str
    taken_ms: int
    taken: float  # monotonic s
    storage: str  # that it was leased from: its topic may move to another one meanwhile
    further: int = 0  # attempts since, under the same lease: it was read again
    kept: bool = False  # only LREM says that it is done, not the next pop

    @property
    def lane(self) -> Lane:
        """The way to where its end is to be stored."""
        return self.place.lane_of(self.storage)

    @property
    def waited_ms(self) -> float:
        return float(max(self.taken_ms - (self.leased.first_due_ms or self.job.accepted_ms), 0))

    def done(self) -> Settle:
        return Settle(self.leased.topic, self.leased.job_id, Outcome.DONE)

    def failed(self, reason: str, now_ms: int) -> Settle:
        """An attempt was spent and nobody said that it is done: tried again by the topic's schedule, or dead."""
        verdict = Verdict(Act.RETRY, TargetEffect.NEUTRAL, True, 0, reason=reason)
        fate = decide(self.place.topic, self.leased, self.job.accepted_ms, verdict, now_ms, random.random())
        return fate._replace(spent=1 + self.further)


#: How an attempt ended, and why.
End = tuple[Taken, Settle, str]


def take(process: Process, place: Origin, leased: Leased, job: Job, client: str) -> Taken:
    """`leased` goes to `client`: counted as under way."""
    place.record.add("in_flight")
    place.in_hand += 1
    trace = f"{process.ids.next()}-{process.full_name}"
    now_ms, now, storage = process.clock.now_ms(), process.clock.monotonic(), place.lane.config.name
    return Taken(place, leased, job, client, trace, now_ms, now, storage)


def forget(taken: Taken) -> None:
    """Somebody else's account of it is the right one."""
    taken.place.in_hand -= 1
    taken.place.record.add("in_flight", -1)


def remember(process: Process, taken: Taken, settle: Settle, reason: str) -> None:
    """The attempt has ended as `settle` says and the storage knows: count it, write it down."""
    place, leased, job = taken.place, taken.leased, taken.job
    ran_s = process.clock.monotonic() - taken.taken
    place.in_hand -= 1
    place.record.ended(taken.waited_ms / 1000, ran_s)
    count_outcome(place.record, settle)
    row = Row(
        "attempt",
        leased.job_id,
        leased.topic,
        taken.taken_ms,
        leased.attempt,
        process.node,
        process.full_name,
        settle.outcome.value,
        reason=settle.reason or reason,
        out_trace=taken.trace,
        in_trace=job.trace,
        client=job.client,
        accepted_ms=job.accepted_ms,
        wait_ms=taken.waited_ms,
        run_ms=ran_s * 1000,
        content=job.content,
    )
    process.journal.add(row)
    if settle.outcome is not Outcome.DONE:
        facts = {"topic": leased.topic, "job": leased.job_id, "attempt": leased.attempt, "outcome": row.outcome}
        process.log.warning("attempt_failed", row.reason, **facts)


def remember_elsewhere(process: Process, place: Origin, stored: Stored, reason: str) -> None:
    """A job that this process did not hand out, or no longer holds, is done and the storage knows."""
    place.record.add("done")
    now_ms = process.clock.now_ms()
    try:
        job = Job.decode(stored.body)
    except ValueError:
        return
    attempt = stored.attempts + (stored.state is State.LEASED)
    row = Row("attempt", stored.job_id, stored.topic, now_ms, attempt, process.node, process.full_name)
    row.outcome, row.reason, row.content = "done", reason, job.content
    row.in_trace, row.client, row.accepted_ms = job.trace, job.client, job.accepted_ms
    process.journal.add(row)


def settle_surely(process: Process, ends: list[End]) -> None:
    """A greenlet's work: store ends of attempts, repeated until the storage says yes. All are of jobs from one storage."""

    def store(lane: Lane, ends: list[End]) -> None:
        count = lane.storage.settle(process.owner, [settle for _, settle, _ in ends])
        lost = _done_elsewhere(lane, ends) if count < len(ends) else set()
        for taken, settle, reason in ends:
            if taken in lost:
                forget(taken)
            else:
                remember(process, taken, settle, reason)
                taken.place.given_back(settle)

    def give_up(end: End, why: str) -> None:
        taken = end[0]
        process.log.error("settle_gave_up", why, topic=taken.leased.topic, job=taken.leased.job_id)
        forget(taken)

    surely(process, ends, lambda: ends[0][0].lane, store, give_up)


def surely(
    process: Process,
    ends: list[_End],
    lane_of: Callable[[], Lane],
    store: Callable[[Lane, list[_End]], None],
    give_up: Callable[[_End, str], None],
) -> None:
    """Call `store` until the storage has `ends`; settling twice is harmless.

    What an engine cannot take (it raises what the contract does not know, again and again) holds up no other end: it stays
    leased until this gateway is replaced, and is given up. What is left when the lane closes comes back by itself.
    """
    wait, bugs = _AGAIN_S, 0
    while not (lane := lane_of()).closed:
        try:
            store(lane, ends)
        except Exception as error:
            known = isinstance(error, StorageError)
            text = str(error) if known else repr(error)
            if wait == _AGAIN_S:
                process.log.warning("settle_failed", text, storage=lane.config.name, jobs=len(ends))
            bugs += not known
            if bugs >= _BUGS and len(ends) == 1:
                give_up(ends[0], text)
                return
            if bugs >= _BUGS:
                for end in ends:
                    surely(process, [end], lane_of, store, give_up)
                return
            gevent.sleep(wait)
            wait = min(_LONGEST_S, wait * 2)
        else:
            return


def _done_elsewhere(lane: Lane, ends: list[End]) -> set[Taken]:
    """Those that another gateway was told are done: its account of them is the right one."""
    return {
        taken
        for taken, settle, _ in ends
        if settle.outcome is not Outcome.DONE and not lane.storage.find(settle.job_id, [settle.topic])
    }
