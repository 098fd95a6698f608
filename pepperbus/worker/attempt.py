"""What is remembered of one attempt: counters, the journal row, the log line of a failure. Floor 4."""

from __future__ import annotations

from dataclasses import dataclass

from pepperbus.clock import Clock
from pepperbus.delivery.contract import Act, Answer, Request, Transport, Verdict
from pepperbus.ids import IdGenerator
from pepperbus.job import Job
from pepperbus.journal.contract import JournalWriter, Row
from pepperbus.log import Log
from pepperbus.names import topic_name
from pepperbus.stats import Record
from pepperbus.storage.contract import Leased, Outcome, Settle
from pepperbus.worker.inflight import InFlight


@dataclass(frozen=True, slots=True)
class Parts:
    """What every pump of a worker shares."""

    node: str
    process: str  # node/name, as the journal shows it
    clock: Clock
    ids: IdGenerator
    inflight: InFlight
    journal: JournalWriter
    log: Log

    def trace(self) -> str:
        """A new trace id of one attempt."""
        return f"{self.ids.next()}-{self.process}"


def count_outcome(record: Record, settle: Settle) -> None:
    if settle.outcome is Outcome.DONE:
        record.add("done")
        return
    record.add("failed" if settle.spent else "returned")
    if settle.outcome is Outcome.DEAD:
        record.add("dead")
    elif settle.spent and settle.outcome is Outcome.RETRY:
        record.add("retried")


def attempt_row(
    parts: Parts,
    request: Request,
    leased: Leased,
    job: Job,
    answer: Answer,
    verdict: Verdict,
    settle: Settle,
    began_ms: int,
    took_s: float,
) -> Row:
    """The journal's row of one job of an exchange. `began_ms`: when it was sent; its request may be older."""
    return Row(
        "attempt",
        leased.job_id,
        topic_name(request.queue, request.topic),
        began_ms,
        leased.attempt,
        parts.node,
        parts.process,
        settle.outcome.value,
        verdict.code,
        verdict.error_code,
        settle.reason or verdict.reason,
        request.trace,
        job.trace,
        job.client,
        job.accepted_ms,
        float(began_ms - (leased.first_due_ms or job.accepted_ms)),
        took_s * 1000,
        answer.body,
        answer.stderr,
        job.content,
    )


def log_failure(log: Log, row: Row, answer: Answer, verdict: Verdict, settle: Settle) -> None:
    """The words that existing log alarms look for, once an attempt; nothing for a success or a mere refusal."""
    if settle.outcome is Outcome.DONE:
        return
    if verdict.act is Act.UNREGISTERED and not settle.spent:
        log.warning("unregistered", "topic no register", topic=row.topic, job=row.job_id)
    elif settle.spent or settle.outcome is Outcome.DEAD:
        text = "cannot be sent" if answer.transport is Transport.UNSENDABLE else "sendToCGI fail"
        facts = {"topic": row.topic, "job": row.job_id, "attempt": row.attempt, "outcome": row.outcome}
        log.warning("attempt_failed", f"{text}: {row.reason}", **facts)
