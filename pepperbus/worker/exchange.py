"""One request under way and what becomes of its jobs: marked as begun, sent, answered, judged, settled, remembered.

Floor 4. Knows the contracts, never a back end, and never when to start: that is the pump's. The order keeps jobs safe: a mark
stands before the first byte is sent, and is wiped only when the outcome is in the storage.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import gevent

from pepperbus.delivery.contract import Act, Answer, Delivered, Request, TargetEffect, Transport, Verdict
from pepperbus.delivery.verdict import DONE, judge
from pepperbus.storage.contract import Leased, Outcome, Settle
from pepperbus.worker.attempt import attempt_row, count_outcome, log_failure
from pepperbus.worker.outcome import decide

if TYPE_CHECKING:
    from pepperbus.worker.pump import Pump

#: A job whose fate could not even be decided is tried again after this (ms).
_CONFUSED_MS = 60_000


class Exchange:
    """Made and begun by its pump, which hears of the end through `Pump.ended`."""

    __slots__ = ("_leased", "_marks", "_pump", "_request", "places", "started")

    def __init__(self, pump: Pump, places: tuple[int, int], leased: list[Leased], jobs: list[Delivered]) -> None:
        parts, topic = pump.parts, pump.topic
        self.places = places
        self._pump = pump
        self._leased = leased
        now_ms = parts.clock.now_ms()
        self._request = Request(
            topic.queue, topic.name, parts.trace(), tuple(jobs), deadline_s=topic.timeout, now_ms=now_ms
        )
        begin, name = parts.inflight.begin, pump.name
        self._marks = [begin(name, one.job_id) for one in leased]
        self.started = parts.clock.monotonic()

    def begin(self) -> None:
        """Send it. Whatever happens, `ended` is called once, later."""
        pump, now_ms = self._pump, self._request.now_ms
        waits = [(now_ms - (one.first_due_ms or one.job.accepted_ms)) / 1000 for one in self._request.jobs]
        pump.record.began(waits[0])
        for wait_s in waits[1:]:
            pump.record.observe("wait", wait_s)
        try:
            pump.consumer.start(self._request, self._ended)
        except Exception as error:  # a bug of ours: what was sent is not known, and the place must come back
            pump.parts.log.error("start_failed", repr(error), topic=pump.name)
            gevent.get_hub().loop.run_callback(self._ended, Answer(Transport.CUT, detail=repr(error)))

    def _ended(self, answer: Answer) -> None:
        pump = self._pump
        took = pump.parts.clock.monotonic() - self.started
        verdict = self._judge(answer)
        pump.record.ended(took)
        self._settle(answer, verdict, took)
        pump.ended(self, answer, verdict, took)

    def _judge(self, answer: Answer) -> Verdict:
        pump = self._pump
        try:
            return judge(answer, self._request, pump.topic, dedicated=pump.consumer.dedicated)
        except Exception as error:  # a bug of ours must not keep the job leased and its place taken for ever
            pump.parts.log.error("judge_failed", repr(error), topic=pump.name)
            return Verdict(
                Act.RETRY, TargetEffect.NEUTRAL, True, 500, reason=f"the answer could not be judged: {error!r}"
            )

    def _settle(self, answer: Answer, verdict: Verdict, took: float) -> None:
        """Hand in each job's outcome, then remember the attempt: its row is written before the outcome is stored."""
        pump, parts = self._pump, self._pump.parts
        now_ms = 0 if verdict is DONE else parts.clock.now_ms()
        for leased, delivered, mark in zip(self._leased, self._request.jobs, self._marks, strict=True):
            mine = verdict
            if verdict is DONE:
                settle = Settle(pump.name, leased.job_id, Outcome.DONE)
                pump.record.add("done")
            else:
                if verdict.failed_ids and leased.job_id not in verdict.failed_ids:
                    mine = Verdict(Act.DONE, verdict.effect, False, verdict.code)
                settle = self._fate(leased, delivered, mine, now_ms)
                count_outcome(pump.record, settle)
            pump.lane.settle(settle, mark)
            try:
                row = attempt_row(parts, self._request, leased, delivered.job, answer, mine, settle, took)
                parts.journal.add(row, False)
                if mine is not DONE:
                    log_failure(parts.log, row, answer, mine, settle)
            except Exception as error:  # the other jobs of this exchange still wait for their fate
                parts.log.error("not_recorded", repr(error), topic=pump.name, job=leased.job_id)

    def _fate(self, leased: Leased, delivered: Delivered, verdict: Verdict, now_ms: int) -> Settle:
        pump = self._pump
        try:
            if verdict.act is Act.UNREGISTERED:
                verdict = self._once_more(leased.job_id, verdict)
            else:
                pump.second_chance.discard(leased.job_id)
            settle = decide(pump.topic, leased, delivered.job.accepted_ms, verdict, now_ms, random.random())
            if settle.outcome is Outcome.RETRY:
                pump.due_at(settle.due_ms)
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
