"""`feed = exec`: a process for each job, its content on standard input, its exit status the verdict.

Floor 3. Judges nothing: exit statuses become an `Answer` in the words of `delivery.verdict`; docs/COMMAND.md has them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import gevent

from pepperbus.config.model import Config, Topic
from pepperbus.delivery.command_answers import CUT_S, TIMEOUT_GRACE_S, not_started, pinged, timed_out
from pepperbus.delivery.command_process import Process
from pepperbus.delivery.command_start import Command
from pepperbus.delivery.contract import Answer, Request, Transport
from pepperbus.job import is_traceparent
from pepperbus.log import Log

#: Exit statuses with a meaning (sysexits.h): EX_TEMPFAIL.
RETRY_LATER = 75


class ExecConsumer:
    """The processes of one topic as a consumer: each lives as long as its job."""

    dedicated = True

    def __init__(self, topic: Topic, config: Config) -> None:
        self._command = Command(topic, config)
        self.address = self._command.shown
        self._running: dict[Process, str] = {}

    def pack(self, request: Request) -> object:
        return None

    def start(self, request: Request, done: Callable[[Answer], None], packed: object = None) -> None:
        gevent.spawn(lambda: done(self.call(request)))

    def call(self, request: Request) -> Answer:
        began = monotonic()
        try:
            answer = pinged(self._command, request) if request.ping else self._run(request)
        except Exception as error:  # a bug of ours must not leave the job's place taken for ever
            answer = Answer(Transport.CUT, detail=f"{self.address}: {error!r}")
        answer.total_ms = (monotonic() - began) * 1000
        return answer

    def _run(self, request: Request) -> Answer:
        (delivered,) = request.jobs
        variables = {
            "PEPPERBUS_JOB_ID": str(delivered.job.id),
            "PEPPERBUS_ATTEMPT": str(delivered.attempt),
            "PEPPERBUS_TRACE_ID": request.trace,
            "PEPPERBUS_DEADLINE": str(request.now_ms // 1000 + int(request.deadline_s)),
        }
        if is_traceparent(delivered.job.trace):
            variables["TRACEPARENT"] = delivered.job.trace  # where OpenTelemetry's libraries look for it in a process
        if trouble := self._command.trouble():
            return Answer(Transport.FORBIDDEN, detail=trouble)
        try:
            process = Process(self._command, lines=False, stdin=True, more=variables)
        except OSError as error:
            return not_started(self.address, error)
        self._running[process] = str(delivered.job.id)
        try:
            return self._attend(process, delivered.job.content, request.deadline_s)
        finally:
            del self._running[process]

    def _attend(self, process: Process, content: bytes, deadline_s: float) -> Answer:
        gevent.spawn(_feed, process, content)
        if not process.ended.wait(deadline_s):
            process.stop("timeout", TIMEOUT_GRACE_S)
            return timed_out(self.address, process, deadline_s)
        if process.leaving:
            return Answer(Transport.CUT, stderr=process.take_output(), detail=f"{self.address}: {process.leaving}")
        how, said = process.how, process.take_output()
        if process.status == 0:
            return Answer(Transport.ANSWERED, 200, stderr=said)
        if process.status == RETRY_LATER:
            return Answer(Transport.ANSWERED, 503, {"error-code": "75"}, how.encode(), said)
        headers = {"x-pepperbus-verdict": "retry", "error-code": str(process.status)}
        return Answer(Transport.ANSWERED, 200, headers, how.encode(), said)

    def reachable(self) -> bool:
        return not self._command.trouble()

    def close(self) -> None:
        self.end(CUT_S)

    # -- Staff -----------------------------------------------------------------------------------------------------

    def keep(self, seats: Path, wanted: Callable[[], int], log: Log) -> None:
        """Nothing: they live as long as their jobs, and the topic's places bound their number."""

    def facts(self) -> dict[str, Any]:
        return {
            "restarts": 0,
            "why": "",
            "next_start_s": 0.0,
            "processes": [one.facts(job) for one, job in self._running.items()],
        }

    def leave(self) -> None:
        """They go when their jobs are over."""

    def end(self, grace_s: float) -> None:
        for process in list(self._running):
            gevent.spawn(process.stop, "the worker leaves", grace_s)

    def gone(self, timeout: float) -> bool:
        until = monotonic() + timeout
        return all(one.ended.wait(max(0.0, until - monotonic())) for one in list(self._running))


def _feed(process: Process, content: bytes) -> None:
    process.send(content)
    process.end_input()
