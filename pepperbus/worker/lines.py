"""The lines of an ordered topic: for each value of `order_by` the jobs that wait here, the one that runs, and those that are
known to lie in the storage. Which job may start is said here; who leads, and when anything starts, is `ordered`'s.

Floor 4. No job starts while one of its line with a lower id is known that is neither done nor dead.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from functools import partial

from pepperbus.config.joboptions import value_at
from pepperbus.delivery.contract import Delivered
from pepperbus.job import Job
from pepperbus.storage.contract import Leased, Outcome, Settle
from pepperbus.worker.ahead import Ahead
from pepperbus.worker.exchange import Exchange, Starter


class _Line:
    """Jobs of one value: `jobs` wait here by id; `blocker` runs or has not come back; `elsewhere` are known to lie in the
    storage, and no job with a higher id may pass them."""

    __slots__ = ("_by_id", "blocker", "elsewhere", "jobs")

    def __init__(self) -> None:
        self.blocker = 0
        self.jobs: list[tuple[int, Leased, Job]] = []
        self.elsewhere: set[int] = set()
        self._by_id: list[int] = []  # a heap of them, and of those that no longer are

    def lies_elsewhere(self, job_id: int) -> None:
        if job_id not in self.elsewhere:
            self.elsewhere.add(job_id)
            heapq.heappush(self._by_id, job_id)

    @property
    def awaited(self) -> int:
        """Whom the first job here waits for; 0: nobody."""
        if self.blocker:
            return self.blocker
        while self._by_id and self._by_id[0] not in self.elsewhere:
            heapq.heappop(self._by_id)
        first = self._by_id[0] if self._by_id else 0
        return first if first and self.jobs and first < self.jobs[0][0] else 0

    @property
    def is_over(self) -> bool:
        return not (self.jobs or self.blocker or self.elsewhere)


class OrderedExchange(Exchange):
    """Calls `ended` when the end of its job is stored."""

    __slots__ = ("_stored",)

    def __init__(self, pump: Starter, leased: Leased, job: Delivered, ended: Callable[[int, Outcome], None]) -> None:
        self._stored = ended
        super().__init__(pump, [leased], (job,))

    def _account(self) -> tuple[list[Settle], list[int]]:
        settles, marks = super()._account()
        for settle in settles:
            self._pump.lane.when_stored(partial(self._stored, settle.job_id, settle.outcome))
        return settles, marks


class Lines(Ahead):
    """What is leased, by value. `held` counts what may start: of each line one job at most. `parked`: all that wait."""

    def __init__(self, pump: Starter, path: str) -> None:
        super().__init__(pump)
        self.parked = 0
        self.bytes = 0
        self._words = path.split(".")
        self._lines: dict[bytes, _Line] = {}
        self._values: dict[int, bytes] = {}  # jobs that run -> their line
        self._free: dict[bytes, None] = {}  # lines whose first job may start, in the order they became free

    def add(self, leased: Iterable[Leased]) -> None:
        for one in leased:
            try:
                job = Job.decode(one.body)
            except ValueError as error:
                self.held += 1
                self._damaged(one, error)
                continue
            value, line = self._line(one.job_id, job.content)
            if line.blocker == one.job_id:  # the job all others wait for is back
                line.blocker = 0
            line.elsewhere.discard(one.job_id)
            heapq.heappush(line.jobs, (one.job_id, one, job))
            self.parked += 1
            self.bytes += len(one.body)
            self._offer(value, line)

    def _line(self, job_id: int, content: bytes) -> tuple[bytes, _Line]:
        """The line a job belongs to; one without that field has a line of its own."""
        value = value_at(content, self._words) or b"%d" % job_id
        return value, self._lines.setdefault(value, _Line())

    def _offer(self, value: bytes, line: _Line) -> None:
        if line.jobs and not line.awaited and value not in self._free:
            self._free[value] = None
            self.held += 1

    def next(self) -> Exchange | None:
        if not self._free:
            return None
        value = next(iter(self._free))
        del self._free[value]
        self.held -= 1
        line = self._lines[value]
        job_id, leased, job = heapq.heappop(line.jobs)
        self.parked -= 1
        self.bytes -= len(leased.body)
        line.blocker = job_id
        self._values[job_id] = value
        delivered = Delivered(job, leased.attempt, leased.first_due_ms)
        return OrderedExchange(self._pump, leased, delivered, self.ended)

    def prepare(self) -> None:
        """Nothing: what is next is not known before the one before has ended."""

    def ended(self, job_id: int, outcome: Outcome) -> None:
        """The end of an attempt is stored. Only done or dead jobs let others pass; all else comes back."""
        value = self._values.pop(job_id, None)
        line = self._lines.get(value) if value is not None else None
        if value is None or line is None or line.blocker != job_id:
            return
        if outcome in (Outcome.DONE, Outcome.DEAD):
            line.blocker = 0
            self._offer(value, line)
            if line.is_over:
                del self._lines[value]
            self._pump.turn()

    def lies_elsewhere(self, job_id: int, content: bytes) -> None:
        """A job that is in the storage, unfinished: those of its line with higher ids wait for it."""
        self._line(job_id, content)[1].lies_elsewhere(job_id)

    @property
    def awaited(self) -> list[int]:
        """Jobs that do not run and that others wait for."""
        found = [line.awaited for line in self._lines.values() if line.jobs]
        return [job_id for job_id in found if job_id and job_id not in self._values]

    def gone(self, job_id: int) -> None:
        """It is not there any more, or dead: nobody waits for it."""
        for value, line in self._lines.items():
            if line.blocker == job_id or job_id in line.elsewhere:
                line.blocker = 0 if line.blocker == job_id else line.blocker
                line.elsewhere.discard(job_id)
                self._offer(value, line)
                return

    def take_all(self) -> list[Leased]:
        found: list[Leased] = []
        for line in self._lines.values():
            for job_id, one, _ in line.jobs:
                found.append(one)
                line.lies_elsewhere(job_id)
            line.jobs = []
        self._free.clear()
        self.held = self.parked = self.bytes = 0
        return sorted(found, key=lambda one: one.job_id)

    def forget(self) -> None:
        """What was known before another one led. Nothing may be held."""
        self._lines.clear()
        self._values.clear()
