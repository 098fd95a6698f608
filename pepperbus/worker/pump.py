"""One topic's loop: lease, deliver, settle. The heart of the bus.

Floor 4: knows the contracts, never a back end. Everything runs as callbacks in the hub, except leasing (a storage call), which
has a greenlet of its own. The order that keeps jobs safe: leased in the storage, marked as begun, sent, answered, judged,
settled in the storage; a crash between any two steps leaves a lease that `reclaim` gives back.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, replace
from functools import partial

import gevent
from gevent.event import Event

from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Act, Answer, Consumer, Delivered, Request, TargetEffect, Transport, Verdict
from pepperbus.delivery.target import Closed, Target
from pepperbus.delivery.verdict import judge
from pepperbus.errors import StorageError
from pepperbus.job import Job
from pepperbus.stats import Record
from pepperbus.storage.contract import Leased, Outcome, Settle
from pepperbus.worker.attempt import Parts, attempt_row, count_outcome, log_failure
from pepperbus.worker.lane import Lane
from pepperbus.worker.outcome import decide

#: Never more than this many jobs leased ahead, and only as many as will start within _AHEAD_S: a job held here
#: cannot be run by another worker.
_MOST_AHEAD = 64
_AHEAD_S = 0.05
#: And no more bytes than these, as large as jobs were of late; one exchange's jobs always.
_AHEAD_BYTES = 16 << 20
#: A job whose fate could not even be decided is tried again after this (ms).
_CONFUSED_MS = 60_000
#: Once nothing has ended or begun for this long, what is held goes back.
_DRAGS_S = 0.3
_STATES = {Closed.BUSY: 1, Closed.UNREGISTERED: 5, Closed.DOWN: 4, Closed.STRAINED: 4, Closed.ABSENT: 5}


@dataclass(slots=True)
class Exchange:
    """One request under way."""

    places: tuple[int, int]
    marks: list[int]
    jobs: list[tuple[Leased, Job]]
    request: Request
    started: float


class Pump:
    """Drives one topic in one worker."""

    def __init__(
        self, topic: Topic, lane: Lane, target: Target, consumer: Consumer, record: Record, owner: str, parts: Parts
    ) -> None:
        self.topic = topic
        self.name = topic.full_name
        self.target = target
        self.lane = lane
        self.consumer = consumer
        self.draining = False
        self.next_due_ms = 0
        self._record = record
        self._owner = owner
        self._parts = parts
        self._ahead: deque[Leased] = deque()
        self._exchanges: dict[int, Exchange] = {}
        self._count = 0
        self._run_s = 0.0  # how long exchanges take, a moving average; 0: none has ended yet
        self._job_bytes = 1.0  # how large jobs are: as the largest of late
        self._may_hold_more = True
        self._leasing = False
        self._lease_failed = False
        self._timer_set = False
        self._look_for_due = True
        self._due_timer: gevent.Greenlet | None = None
        self.was_closed = False
        self.was_paused = False
        self._hungry = Event()
        self._second_chance: set[int] = set()
        self._greenlet = gevent.spawn(self._lease_loop)
        self.idle = Event()
        self.idle.set()

    # -- waking --------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There may be something to do: a push, a due job, an opened target."""
        self._may_hold_more = True
        self.turn()

    def pushed(self) -> None:
        """Something was pushed, or became due, or may have: look into the storage."""
        self._look_for_due = True
        self.wake()
        if not self._leasing and not self.draining and self.lane.healthy:
            self._leasing = True  # delayed jobs must be seen even while nothing may start
            self._hungry.set()

    def turn(self) -> None:
        """Start what may start, then see that enough is leased ahead."""
        most = self.target.topic.n  # with so many under way their ends ask again: no need to look for a place
        while self._ahead and len(self._exchanges) < most and self._startable():
            places = self.target.take(self.turn)
            if places is None:
                if not self._exchanges:  # other processes hold the places and cannot call us
                    self._later(random.uniform(0.004, 0.012))
                break
            self._start(places)
        self._feed()

    def _later(self, seconds: float) -> None:
        """One turn from now on, however often it is asked for."""
        if not self._timer_set:
            self._timer_set = True
            gevent.spawn_later(seconds, self._timed_turn)

    def _timed_turn(self) -> None:
        self._timer_set = False
        self.turn()

    def _startable(self) -> bool:
        closed = self.target.closed()
        if closed and not (self.target.trial and not self._exchanges):
            if closed is Closed.BUSY:  # it opens by itself, and nobody says so when another process found it full
                self._later(self.target.probe_in() + 0.001)
            return False
        if self._parts.inflight.free < self.topic.chunk:
            return False
        return self.lane.open and not self.draining and self.name not in self.lane.paused

    def _feed(self) -> None:
        """Ask for jobs when the target could take twice as many as are held: a lease is a round trip, so half a room at once.

        Asking whenever one place was free made a lease of every third job.
        """
        wanting = self._may_hold_more and not self._leasing and self._startable()
        if wanting and self._room() >= max(1, 2 * len(self._ahead)):
            self._leasing = True
            self._hungry.set()

    def _room(self) -> int:
        """How many jobs to hold beyond those under way: the free places, and what will start within _AHEAD_S."""
        if self.target.trial:
            return 1
        free = max(0, min(self.target.topic.window, self.target.pool.window) - len(self._exchanges))
        return min((free + self._soon()) * self.topic.chunk, max(self.topic.chunk, int(_AHEAD_BYTES / self._job_bytes)))

    def _soon(self) -> int:
        """How many exchanges will find a place within _AHEAD_S. While even the youngest one drags on: none."""
        if not self._run_s:
            return 0
        places = min(self.target.topic.n, self.target.pool.n)
        return min(_MOST_AHEAD, int(places * _AHEAD_S / max(self._run_s, self._youngest_s())))

    def _youngest_s(self) -> float:
        if not self._exchanges:
            return 0.0
        return self._parts.clock.monotonic() - self._exchanges[next(reversed(self._exchanges))].started

    def let_others(self) -> None:
        """Give back what was leased ahead and cannot start soon after all: a slow job came in between."""
        if self._ahead and self._exchanges and self._youngest_s() > _DRAGS_S:
            self.return_ahead()

    def _lease_loop(self) -> None:
        while True:
            self._hungry.wait()
            self._hungry.clear()
            leased: list[Leased] = []
            try:
                leased = self._lease()
                self._lease_failed = False
            except Exception as error:  # StorageError, or a bug of an engine: this loop is the topic's life
                if not self._lease_failed:  # once an outage, not three times a second
                    text = str(error) if isinstance(error, StorageError) else repr(error)
                    self._parts.log.warning("lease_failed", text, topic=self.name)
                self._lease_failed = True
                gevent.sleep(random.uniform(0.2, 0.5))
                self._may_hold_more = True
            self._leasing = False
            if self.draining:
                self._give_back(leased)
                if not self._exchanges:
                    self.idle.set()
                continue
            self._ahead.extend(leased)
            if leased:
                self.idle.clear()
            self.turn()
            if not self._ahead and not self._exchanges:
                self.idle.set()

    def _lease(self) -> list[Leased]:
        """As many jobs as there is room for, of those that are ready or due."""
        if self._look_for_due:
            self._promote()
        wanted = min(self._room() - len(self._ahead), _MOST_AHEAD * self.topic.chunk)
        if wanted <= 0 or not self._startable():
            return []
        self._may_hold_more = False  # a push from here on says so again
        leased = self.lane.storage.lease(self.name, wanted, self._owner)
        self._may_hold_more |= len(leased) >= wanted
        if leased:
            largest = max(len(one.body) for one in leased)
            self._job_bytes = max(largest, self._job_bytes + (largest - self._job_bytes) * 0.1)
        return leased

    def _promote(self) -> None:
        """Make due jobs ready, and know when to look again."""
        self._look_for_due = False
        moved, self.next_due_ms = self.lane.storage.promote(self.name, self._parts.clock.now_ms())
        if moved:
            self._may_hold_more = True
        self._set_due_timer()

    def _set_due_timer(self) -> None:
        if self._due_timer is not None:
            self._due_timer.kill()
            self._due_timer = None
        if self.next_due_ms:
            wait_s = max(0.0, (self.next_due_ms - self._parts.clock.now_ms()) / 1000)
            self._due_timer = gevent.spawn_later(min(wait_s, 3600.0), self.pushed)

    # -- one exchange ----------------------------------------------------------------------------------------------

    def _start(self, places: tuple[int, int]) -> None:
        parts, topic = self._parts, self.topic
        now_ms = parts.clock.now_ms()
        jobs: list[tuple[Leased, Job]] = []
        while self._ahead and len(jobs) < topic.chunk:
            leased = self._ahead.popleft()
            try:
                jobs.append((leased, Job.decode(leased.body)))
            except ValueError as error:  # damaged in the storage: kept and named, never dropped
                self.lane.settle(
                    Settle(self.name, leased.job_id, Outcome.DEAD, reason=f"stored bytes are damaged: {error}")
                )
        if not jobs:
            self.target.give(places)
            return
        delivered = tuple(Delivered(job, leased.attempt, leased.first_due_ms) for leased, job in jobs)
        request = Request(
            topic.queue,
            topic.name,
            f"{parts.ids.next()}-{parts.process}",
            delivered,
            deadline_s=topic.timeout,
            now_ms=now_ms,
        )
        marks = [parts.inflight.begin(self.name, leased.job_id) for leased, _ in jobs]
        exchange = Exchange(places, marks, jobs, request, parts.clock.monotonic())
        self._count += 1
        number = self._count
        self._exchanges[number] = exchange
        self.target.trial = False
        self._record.add("in_flight")
        for leased, job in jobs:
            self._record.observe("wait", (now_ms - (leased.first_due_ms or job.accepted_ms)) / 1000)
        try:
            self.consumer.start(request, partial(self._done, number))
        except Exception as error:  # a bug of ours: what was sent is not known, and the place must come back
            parts.log.error("start_failed", repr(error), topic=self.name)
            gevent.get_hub().loop.run_callback(self._done, number, Answer(Transport.CUT, detail=repr(error)))

    def _done(self, number: int, answer: Answer) -> None:
        exchange = self._exchanges.pop(number)
        took = self._parts.clock.monotonic() - exchange.started
        self._run_s += (max(took, 1e-5) - self._run_s) * (0.05 if self._run_s else 1.0)
        verdict = self._judge(exchange, answer)
        self._record.add("in_flight", -1)
        self._record.observe("run", took)
        self._settle(exchange, answer, verdict, took)
        self._report(answer, verdict)
        if verdict.zombie and self.topic.zombie_grace > 0 and not self.draining:
            # The script may still run: its place stays taken, or the next job would find no free child.
            gevent.spawn_later(self.topic.zombie_grace, self._free, exchange.places)
            self.turn()
        else:
            self._free(exchange.places)
        if not self._ahead and not self._exchanges:
            self.idle.set()

    def _judge(self, exchange: Exchange, answer: Answer) -> Verdict:
        try:
            return judge(answer, exchange.request, self.topic, dedicated=self.consumer.dedicated)
        except Exception as error:  # a bug of ours must not keep the job leased and its place taken for ever
            self._parts.log.error("judge_failed", repr(error), topic=self.name)
            return Verdict(
                Act.RETRY, TargetEffect.NEUTRAL, True, 500, reason=f"the answer could not be judged: {error!r}"
            )

    def _free(self, places: tuple[int, int]) -> None:
        self.target.give(places)
        self.turn()

    def _report(self, answer: Answer, verdict: Verdict) -> None:
        if verdict.effect is TargetEffect.FINE and not (answer.reconnected or verdict.pause):
            self.target.report(verdict.effect)
            return
        log = self._parts.log
        was = self.target.closed()
        if verdict.act is Act.UNREGISTERED:
            self.target.unregister(verdict.reason)
        else:
            self.target.report(verdict.effect, verdict.reason)
        now = self.target.closed()
        if now is Closed.BUSY:
            self._may_hold_more = True
        if now and now is not was and now not in (Closed.BUSY, Closed.UNREGISTERED):
            log.warning("target_closed", verdict.reason, topic=self.name, why=now.name.lower())
        if now not in (Closed.OPEN, Closed.BUSY):
            self.was_closed = True
            self.return_ahead()
        if answer.reconnected:
            log.warning("reconnected", "request to cgi fail eof retry", topic=self.name)
        if verdict.pause:
            log.warning("paused_by_consumer", topic=self.name)
            gevent.spawn(self._pause)

    def _pause(self) -> None:
        self.lane.paused.add(self.name)
        try:
            self.lane.storage.set_paused(self.name, True)
        except StorageError as error:
            self._parts.log.warning("pause_failed", str(error), topic=self.name)

    # -- what becomes of the jobs ------------------------------------------------------------------------------------

    def _settle(self, exchange: Exchange, answer: Answer, verdict: Verdict, took: float) -> None:
        now_ms = self._parts.clock.now_ms()
        for (leased, job), mark in zip(exchange.jobs, exchange.marks, strict=True):
            mine = verdict
            if verdict.failed_ids and leased.job_id not in verdict.failed_ids:
                mine = Verdict(Act.DONE, verdict.effect, False, verdict.code)
            settle = self._fate(leased, job, mine, now_ms)
            self.lane.settle(settle, mark)
            count_outcome(self._record, settle)
            try:
                row = attempt_row(self._parts, exchange.request, leased, job, answer, mine, settle, took)
                self._parts.journal.add(row)
                log_failure(self._parts.log, row, answer, mine, settle)
            except Exception as error:  # the other jobs of this exchange still wait for their fate
                self._parts.log.error("not_recorded", repr(error), topic=self.name, job=leased.job_id)

    def _fate(self, leased: Leased, job: Job, verdict: Verdict, now_ms: int) -> Settle:
        try:
            return self._decide(leased, job, verdict, now_ms)
        except Exception as error:  # a bug of ours must not keep the job leased for ever
            self._parts.log.error("decide_failed", repr(error), topic=self.name, job=leased.job_id)
            return Settle(self.name, leased.job_id, Outcome.RETRY, due_ms=now_ms + _CONFUSED_MS)

    def _decide(self, leased: Leased, job: Job, verdict: Verdict, now_ms: int) -> Settle:
        if verdict.act is Act.UNREGISTERED:
            verdict = self._once_more(leased.job_id, verdict)
        else:
            self._second_chance.discard(leased.job_id)
        settle = decide(self.topic, leased, job.accepted_ms, verdict, now_ms, random.random())
        if settle.outcome is Outcome.RETRY and (not self.next_due_ms or settle.due_ms < self.next_due_ms):
            self.next_due_ms = settle.due_ms
            self._set_due_timer()
        return settle

    def _once_more(self, job_id: int, verdict: Verdict) -> Verdict:
        """A 404 under `sdk` costs nothing once: the ping decides. When it listed the topic, a second 404 is a failure."""
        if job_id in self._second_chance:
            self._second_chance.discard(job_id)
            return replace(verdict, act=Act.RETRY, spent=True)
        self._second_chance.add(job_id)
        return replace(verdict, act=Act.BACK, spent=False)

    @property
    def paused(self) -> bool:
        return self.name in self.lane.paused

    @property
    def resting(self) -> bool:
        """Nothing to do, nothing closed, and paused or not as when it was last attended to."""
        busy = self._ahead or self._exchanges or self.was_closed or self.target.closed()
        return not busy and self.was_paused == self.paused

    def state(self) -> int:
        """The `state` gauge of stats.COUNTERS."""
        if self.name in self.lane.paused:
            return 2
        closed = self.target.closed()
        if closed is Closed.OPEN:
            return 1 if self._exchanges else 0
        return _STATES.get(closed, 3)

    # -- leaving ----------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take nothing new and give back what was not begun; what runs goes on. `idle` is set when all is settled."""
        self.draining = True
        self.return_ahead()
        if self._leasing or self._exchanges:
            self.idle.clear()
        else:
            self.idle.set()

    def return_ahead(self) -> None:
        """What is held but not begun goes back to the storage: others may run it, or nobody while the target is closed."""
        if self._ahead:
            self._give_back(list(self._ahead))
            self._ahead.clear()
            self._may_hold_more = True

    def _give_back(self, jobs: list[Leased]) -> None:
        for leased in reversed(jobs):  # the first of the line is given back last, so that it is first again
            self.lane.settle(Settle(self.name, leased.job_id, Outcome.BACK, spent=False))

    @property
    def under_way(self) -> int:
        return len(self._exchanges)
