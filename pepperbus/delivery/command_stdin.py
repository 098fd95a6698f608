"""`feed = stdin`: a line of JSON for each job to a process that lives on, a line of JSON with the verdict back.

Floor 3. The line is the job as every consumer gets it (`job.job_json`) with queue, topic, outTraceId and deadline behind it;
docs/COMMAND.md has both formats. A process that ends without having read the line has provably not begun.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import gevent
import msgspec

from pepperbus.config.model import Config, Topic
from pepperbus.delivery.command_answers import CUT_S, TIMEOUT_GRACE_S, pinged, timed_out
from pepperbus.delivery.command_crew import Crew
from pepperbus.delivery.command_process import Process
from pepperbus.delivery.command_seats import Seats
from pepperbus.delivery.command_start import Command
from pepperbus.delivery.contract import Answer, Request, Transport
from pepperbus.delivery.form import residue_s
from pepperbus.job import job_json
from pepperbus.log import Log

#: A process that was started for a probe and still lives after this takes jobs again.
_SETTLED_S = 1.0


class _Line(msgspec.Struct):
    """What a process writes on descriptor 3. `id`, when given, must be that of the job it has."""

    verdict: str
    id: str | int = ""
    after: float = 0.0
    reason: str = ""
    code: str | int = ""


class StdinConsumer:
    """The processes of one topic as a consumer: as many at work as there are exchanges."""

    dedicated = True

    def __init__(self, topic: Topic, config: Config) -> None:
        self._topic = topic
        self._command = Command(topic, config)
        self.address = self._command.shown
        self._crew = Crew(topic.full_name, self._hire, self._command.trouble, topic.max_task, topic.max_memory)
        self.facts = self._crew.facts
        self.leave = self._crew.leave
        self.end = self._crew.end
        self.gone = self._crew.gone
        names = {"queue": topic.queue, "topic": topic.name}
        self._tail = json.dumps(names, separators=(",", ":")).encode()[1:-1]

    def _hire(self) -> Process:
        return Process(self._command, lines=True, stdin=True)

    def keep(self, seats: Path, wanted: Callable[[], int], log: Log) -> None:
        self._crew.keep(
            Seats(seats, self._topic.concurrency), lambda: self._topic.least or self._topic.concurrency, log
        )

    def pack(self, request: Request) -> object:
        return self._encode(request) if request.jobs else None

    def start(self, request: Request, done: Callable[[Answer], None], packed: object = None) -> None:
        gevent.spawn(lambda: done(self._call(request, packed if isinstance(packed, bytes) else b"")))

    def call(self, request: Request) -> Answer:
        return self._call(request, b"")

    def _call(self, request: Request, line: bytes) -> Answer:
        began = monotonic()
        try:
            answer = pinged(self._command, request) if request.ping else self._run(request, line)
        except Exception as error:  # a bug of ours must not leave the job's place taken for ever
            answer = Answer(Transport.CUT, detail=f"{self.address}: {error!r}")
        answer.total_ms = (monotonic() - began) * 1000
        return answer

    def _run(self, request: Request, line: bytes) -> Answer:
        process = self._crew.take(str(request.jobs[0].job.id))
        if process is None:
            return self._nobody()
        answer = None
        try:
            answer = self._exchange(process, request, line or self._encode(request))
        finally:
            self._crew.give(process, answer is not None and answer.transport is Transport.ANSWERED)
        return answer

    def _nobody(self) -> Answer:
        if trouble := self._command.trouble():
            return Answer(Transport.FORBIDDEN, detail=trouble)
        if wait_s := self._crew.wait_s():
            return Answer(
                Transport.NO_LISTENER, detail=f"{self.address}: {self._crew.why}; next start in {wait_s:.1f} s"
            )
        return Answer(Transport.BUSY, detail=f"{self.address}: all its processes are taken or leaving")

    def _exchange(self, process: Process, request: Request, line: bytes) -> Answer:
        if not process.lines.empty():
            self._crew.dismiss(process, "it wrote a verdict that nobody had asked for")
            return Answer(Transport.BUSY, detail=f"{self.address}: {process.leaving}")
        process.take_output()
        with gevent.Timeout(request.deadline_s, False):  # type: ignore[arg-type]
            process.send(line)
            got = process.lines.get()
            return self._died(process) if got is None else self._answered(process, got, request)
        process.stop("timeout", TIMEOUT_GRACE_S)
        return timed_out(self.address, process, request.deadline_s)

    def _died(self, process: Process) -> Answer:
        how, said = process.leaving or process.how, process.take_output()
        if process.never_read:
            return Answer(
                Transport.NO_LISTENER, stderr=said, detail=f"{self.address}: ended before it took a job: {how}"
            )
        return Answer(Transport.CUT, stderr=said, detail=f"{self.address}: ended in the middle of a job: {how}")

    def _answered(self, process: Process, got: bytes, request: Request) -> Answer:
        said = process.take_output()
        try:
            line = msgspec.json.decode(got, type=_Line)
        except msgspec.MsgspecError as error:
            return self._confused(process, f"descriptor 3: {got[:200].decode(errors='replace')!r}: {error}", said)
        if line.id and str(line.id) != str(request.jobs[0].job.id):
            return self._confused(
                process, f"descriptor 3: the verdict is for job {line.id}, which it does not have", said
            )
        if line.verdict == "done":
            return Answer(Transport.ANSWERED, 200, stderr=said)
        headers = {"x-pepperbus-verdict": line.verdict, "error-code": str(line.code)}
        if line.after > 0:
            headers["retry-after"] = str(int(line.after + 0.999))
        return Answer(Transport.ANSWERED, 200, headers, line.reason.encode(), said)

    def _confused(self, process: Process, why: str, said: bytes) -> Answer:
        """What it says makes no sense: nobody knows which job it speaks of next."""
        self._crew.dismiss(process, why)
        return Answer(Transport.ANSWERED, 200, {"x-pepperbus-verdict": "retry"}, why.encode(), said)

    def _encode(self, request: Request) -> bytes:
        (delivered,) = request.jobs
        topic, now_ms = self._topic, request.now_ms
        residue = residue_s(delivered, now_ms, topic)
        job = job_json(delivered.job, delivered.attempt, now_ms // 1000, topic.attempts > 1, residue)
        deadline = now_ms // 1000 + int(request.deadline_s)
        return b'%b,%b,"outTraceId":"%b","deadline":%d}\n' % (job[:-1], self._tail, request.trace.encode(), deadline)

    def reachable(self) -> bool:
        """Whether one lives that has got over its start; with none, one is started to find out."""
        if not self._crew.staying():
            self._crew.hire()
        return any(monotonic() - one.since > _SETTLED_S for one in self._crew.staying())

    def close(self) -> None:
        self._crew.end(CUT_S)
