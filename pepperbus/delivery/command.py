"""`run = command`: jobs to processes of our own. `feed` decides: exec, stdin; pull and none are only kept alive.

Floor 3. Judges nothing: exit statuses and verdict lines become an `Answer` in the words of `delivery.verdict`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import gevent

from pepperbus.config.model import Config, Topic
from pepperbus.delivery.command_crew import Crew
from pepperbus.delivery.command_process import GRACE_S, Process
from pepperbus.delivery.command_seats import Seats
from pepperbus.delivery.command_start import Command
from pepperbus.delivery.contract import Answer, Consumer, Request, Transport
from pepperbus.job import is_traceparent
from pepperbus.log import Log

#: After a timeout the process has this long to leave by itself.
TIMEOUT_GRACE_S = 2.0
#: Exit statuses with a meaning (sysexits.h): EX_TEMPFAIL.
RETRY_LATER = 75
#: A worker that leaves cuts what still runs: seconds between SIGINT and SIGKILL.
_CUT_S = 0.5


def consumer(topic: Topic, config: Config) -> Consumer:
    """The way to the processes of a topic with feed = stdin or exec."""
    if topic.feed == "exec":
        return ExecConsumer(topic, config)
    from pepperbus.delivery.command_stdin import StdinConsumer

    return StdinConsumer(topic, config)


def pinged(command: Command, request: Request) -> Answer:
    """There is nobody to ask: the answer says whether it could be started."""
    if trouble := command.trouble():
        return Answer(Transport.FORBIDDEN, detail=trouble)
    return Answer(Transport.ANSWERED, 200, {"code": "200", "consume-topics": f"{request.queue}/{request.topic}"})


class ExecConsumer:
    """One process for each job: its content on standard input, its exit status the verdict."""

    dedicated = True

    def __init__(self, topic: Topic, config: Config) -> None:
        self._command = Command(topic, config)
        self.address = self._command.shown
        self._running: dict[Process, str] = {}
        self._closed = False
        self._ended = 0

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
            self._ended += 1

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
        self.end(_CUT_S)

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


class Keeper:
    """`feed = pull` and `none`: processes that are kept alive and find their work themselves."""

    def __init__(self, topic: Topic, config: Config) -> None:
        command = Command(topic, config)
        self.address = command.shown
        self._crew = Crew(
            topic.full_name, lambda: Process(command, lines=False, stdin=False), command.trouble, 0, topic.max_memory
        )
        self.facts = self._crew.facts
        self.end = self._crew.end
        self.gone = self._crew.gone
        self._most = topic.concurrency

    def keep(self, seats: Path, wanted: Callable[[], int], log: Log) -> None:
        self._crew.keep(Seats(seats, self._most), wanted, log)

    def leave(self) -> None:
        """SIGINT to each: the bus cannot see whether it is at work."""
        self._crew.leave()


def not_started(address: str, error: OSError) -> Answer:
    """The system would not start it: out of processes or memory, or the program is not one."""
    busy = error.errno in (11, 12, 23, 24)  # EAGAIN, ENOMEM, ENFILE, EMFILE
    where = Transport.BUSY if busy else Transport.FORBIDDEN
    return Answer(where, detail=f"{address}: cannot be started: {error.strerror or error}")


def timed_out(address: str, process: Process, deadline_s: float) -> Answer:
    said = process.take_output()
    return Answer(Transport.TIMEOUT, stderr=said, detail=f"{address}: not done within {deadline_s:g} s; killed")


def _feed(process: Process, content: bytes) -> None:
    process.send(content)
    process.end_input()


__all__ = ["GRACE_S", "ExecConsumer", "Keeper", "consumer"]
