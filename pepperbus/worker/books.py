"""The accounts of exchanges that were handed on, which is nearly all of a busy topic's: done, every job of them.

Floor 4. They are made by the dozen, in one loop, shortly before they are stored: the words of `Exchange._account`, with a
third of its calls.
"""

from __future__ import annotations

from typing import Protocol

from pepperbus.delivery.contract import Answer
from pepperbus.delivery.target import Target
from pepperbus.delivery.verdict import DONE
from pepperbus.journal.contract import Row
from pepperbus.stats import Record
from pepperbus.storage.contract import Outcome, Settle
from pepperbus.worker.attempt import Parts
from pepperbus.worker.exchange import Exchange
from pepperbus.worker.lane import Account, Lane


class Keeper(Protocol):
    """Whose exchanges they are: a `Pump`."""

    name: str
    lane: Lane
    target: Target
    record: Record
    parts: Parts


class Books:
    """Of one topic in one worker."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._ended: list[tuple[Exchange, Answer, float]] = []

    def enter(self, exchange: Exchange, answer: Answer, took_s: float) -> None:
        """It is done. Its place is taken by another one, so that `in_flight` stays."""
        self._ended.append((exchange, answer, took_s))
        if len(self._ended) == 1:
            self._keeper.lane.answered(self._close, len(exchange.leased))
        else:
            self._keeper.lane.another(len(exchange.leased))

    def _close(self) -> Account:
        keeper, ended, self._ended = self._keeper, self._ended, []
        name, done = keeper.name, Outcome.DONE
        settles: list[Settle] = []
        marks: list[int] = []
        waits: list[float] = []
        for exchange, _, _ in ended:
            marks += exchange.marks
            began_ms = exchange.began_ms
            for job, _, first_due_ms in exchange.request.jobs:
                waits.append((began_ms - (first_due_ms or job.accepted_ms)) / 1000)
            settles += [Settle(name, one.job_id, done) for one in exchange.leased]
        record = keeper.record
        record.add("done", len(settles))
        record.observe_all("wait", waits)
        record.observe_all("run", [took_s for _, _, took_s in ended])
        keeper.target.counted(len(ended))
        try:
            self._remember(ended)
        except Exception as error:  # the jobs still wait for their fate
            keeper.parts.log.error("not_recorded", repr(error), topic=name)
        return settles, marks

    def _remember(self, ended: list[tuple[Exchange, Answer, float]]) -> None:
        parts, name, outcome, code = self._keeper.parts, self._keeper.name, Outcome.DONE.value, DONE.code
        node, process, add = parts.node, parts.process, parts.journal.add
        for exchange, answer, took_s in ended:
            trace, at_ms, run_ms = exchange.request.trace, exchange.began_ms, took_s * 1000
            for leased, (job, attempt, first_due_ms) in zip(exchange.leased, exchange.request.jobs, strict=True):
                wait_ms = float(at_ms - (first_due_ms or job.accepted_ms))
                add(
                    Row(
                        *("attempt", leased.job_id, name, at_ms, attempt, node, process, outcome, code, "", "", trace),
                        *(job.trace, job.client, job.accepted_ms, wait_ms, run_ms, answer.body, answer.stderr),
                        job.content,
                    ),
                    False,
                )
