"""One request and what becomes of its jobs: made, marked as begun, sent, answered, judged, settled, remembered.

Floor 4. Knows the contracts, never a back end, and never when to start: that is the pump's. The order keeps jobs safe: a mark
stands before the first byte is sent, and is wiped only when the outcome is in the storage.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import gevent

from pepperbus.config.model import Topic
from pepperbus.delivery.contract import (
    Act,
    Answer,
    Consumer,
    Delivered,
    Request,
    Sender,
    TargetEffect,
    Transport,
    Verdict,
)
from pepperbus.delivery.target import Target
from pepperbus.delivery.verdict import DONE, judge
from pepperbus.stats import Record
from pepperbus.storage.contract import Leased, Outcome, Settle
from pepperbus.worker.attempt import Parts, attempt_row, count_outcome, log_failure
from pepperbus.worker.due import Due
from pepperbus.worker.lane import Lane
from pepperbus.worker.outcome import decide

#: A job whose fate could not even be decided is tried again after this (ms).
_CONFUSED_MS = 60_000


class Starter(Protocol):
    """Whose jobs they are, who begins exchanges and hears of their ends: a `Pump`."""

    name: str
    topic: Topic
    lane: Lane
    target: Target
    consumer: Consumer
    relay: Callable[[Sender], None] | None  # the consumer's, if it is a `Relay`
    record: Record
    parts: Parts
    due: Due
    second_chance: set[int]  # jobs whose 404 cost nothing once

    def turn(self) -> None: ...
    def hand_on(self, exchange: Exchange, answer: Answer) -> Exchange | None: ...
    def ended(self, exchange: Exchange, answer: Answer, verdict: Verdict, took_s: float) -> None: ...


class Exchange:
    """Made by `Ahead`, begun by the pump, which hears of the end through `Starter.ended`."""

    __slots__ = (
        "_answer",
        "_pump",
        "_took",
        "_verdict",
        "began_ms",
        "bytes",
        "leased",
        "marks",
        "packed",
        "places",
        "request",
        "started",
    )

    def __init__(self, pump: Starter, leased: list[Leased], jobs: tuple[Delivered, ...], size: int = 0) -> None:
        """`size`: the jobs' bytes."""
        self._pump = pump
        self.leased = leased
        self.bytes = size
        self._make(jobs)

    def _make(self, jobs: tuple[Delivered, ...]) -> None:
        pump, topic = self._pump, self._pump.topic
        parts = pump.parts
        now_ms = parts.clock.now_ms()
        self.request = request = Request(topic.queue, topic.name, parts.trace(), jobs, False, topic.timeout, now_ms)
        self.packed = pump.consumer.pack(request)

    def begin(self, places: tuple[int, int]) -> None:
        """Send it. Whatever happens, `hand_on` takes it or `answered` is called, once, later."""
        pump = self._pump
        self.mark(places)
        pump.record.add("in_flight")
        try:
            if pump.relay is not None:
                pump.relay(self)
            else:
                pump.consumer.start(self.request, self.answered, self.packed)
        except Exception as error:  # a bug of ours: what was sent is not known, and the place must come back
            pump.parts.log.error("start_failed", repr(error), topic=pump.name)
            gevent.get_hub().loop.run_callback(self.answered, Answer(Transport.CUT, detail=repr(error)))

    def mark(self, places: tuple[int, int]) -> None:
        """It counts as begun from here on."""
        pump = self._pump
        parts, name = pump.parts, pump.name
        now_ms = parts.clock.now_ms()
        if now_ms // 1000 != self.request.now_ms // 1000:  # it tells the consumer the second it was sent in
            self._make(self.request.jobs)
        self.places = places
        begin = parts.inflight.begin
        self.marks = [begin(name, one.job_id) for one in self.leased]
        self.began_ms = now_ms
        self.started = parts.clock.monotonic()

    def hand_on(self, answer: Answer) -> Exchange | None:
        """See `delivery.contract.Sender`."""
        try:
            return self._pump.hand_on(self, answer)
        except Exception:  # a bug of ours: this one ends the plain way, but who was to follow may be in nobody's hands
            gevent.get_hub().handle_error(None, *sys.exc_info())
            return None

    def answered(self, answer: Answer) -> None:
        """Only what the next job waits for: the account of this one is made when it is stored."""
        pump = self._pump
        self._took = took = pump.parts.clock.monotonic() - self.started
        self._answer = answer
        self._verdict = verdict = self._judge(answer)
        pump.lane.answered(self._account, len(self.leased))
        pump.ended(self, answer, verdict, took)

    def _judge(self, answer: Answer) -> Verdict:
        pump = self._pump
        try:
            return judge(answer, self.request, pump.topic, dedicated=pump.consumer.dedicated)
        except Exception as error:  # a bug of ours must not keep the job leased and its place taken for ever
            pump.parts.log.error("judge_failed", repr(error), topic=pump.name)
            return Verdict(
                Act.RETRY, TargetEffect.NEUTRAL, True, 500, reason=f"the answer could not be judged: {error!r}"
            )

    def _account(self) -> tuple[list[Settle], list[int]]:
        """Count and remember the attempt, a row for each job; what becomes of them, and their marks."""
        pump, parts, verdict = self._pump, self._pump.parts, self._verdict
        waits = [(self.began_ms - (one.first_due_ms or one.job.accepted_ms)) / 1000 for one in self.request.jobs]
        pump.record.ended(waits[0], self._took)
        for wait_s in waits[1:]:
            pump.record.observe("wait", wait_s)
        if verdict is DONE:
            settles = [Settle(pump.name, one.job_id, Outcome.DONE) for one in self.leased]
            pump.record.add("done", len(settles))
        else:
            now_ms = parts.clock.now_ms()
            settles = [
                self._fate(one, delivered, now_ms)
                for one, delivered in zip(self.leased, self.request.jobs, strict=True)
            ]
            for settle in settles:
                count_outcome(pump.record, settle)
        for leased, delivered, settle in zip(self.leased, self.request.jobs, settles, strict=True):
            self._remember(leased, delivered, settle)
        return settles, self.marks

    def _remember(self, leased: Leased, delivered: Delivered, settle: Settle) -> None:
        parts, verdict = self._pump.parts, self._verdict
        try:
            mine = verdict if verdict is DONE else self._of_one(leased.job_id)
            row = attempt_row(
                parts, self.request, leased, delivered.job, self._answer, mine, settle, self.began_ms, self._took
            )
            parts.journal.add(row, False)
            if verdict is not DONE:
                log_failure(parts.log, row, self._answer, mine, settle)
        except Exception as error:  # the other jobs of this exchange still wait for their fate
            parts.log.error("not_recorded", repr(error), topic=self._pump.name, job=leased.job_id)

    def _of_one(self, job_id: int) -> Verdict:
        """The verdict on one job: those that `Failed-Jobs` does not name are done."""
        verdict = self._verdict
        if verdict.failed_ids and job_id not in verdict.failed_ids:
            return Verdict(Act.DONE, verdict.effect, False, verdict.code)
        return verdict

    def _fate(self, leased: Leased, delivered: Delivered, now_ms: int) -> Settle:
        pump = self._pump
        try:
            verdict = self._of_one(leased.job_id)
            if verdict.act is Act.UNREGISTERED:
                verdict = self._once_more(leased.job_id, verdict)
            else:
                pump.second_chance.discard(leased.job_id)
            if (
                verdict.spent and pump.target.halted
            ):  # the consumer fails whatever it gets: that is not this job's fault
                verdict = replace(verdict, act=Act.RETRY, spent=False)
            settle = decide(pump.topic, leased, delivered.job.accepted_ms, verdict, now_ms, random.random())
            if settle.outcome is Outcome.RETRY:
                pump.due.at(settle.due_ms)
            return settle
        except Exception as error:  # a bug of ours must not keep the job leased for ever
            pump.parts.log.error("decide_failed", repr(error), topic=pump.name, job=leased.job_id)
            return Settle(pump.name, leased.job_id, Outcome.RETRY, due_ms=now_ms + _CONFUSED_MS)

    def _once_more(self, job_id: int, verdict: Verdict) -> Verdict:
        """A 404 under `sdk` costs nothing once: the ping decides. When it listed the topic, a second 404 is a failure."""
        chances = self._pump.second_chance
        if job_id in chances:
            chances.discard(job_id)
            return replace(verdict, act=Act.RETRY, spent=True)
        chances.add(job_id)
        return replace(verdict, act=Act.BACK, spent=False)
