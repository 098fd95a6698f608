"""What a pump has leased but not begun, and the request made of the next of it before its turn.

Floor 4. Knows nothing of places, targets or time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pepperbus.delivery.contract import Delivered
from pepperbus.job import Job
from pepperbus.storage.contract import Leased, Outcome, Settle
from pepperbus.worker.exchange import Exchange

if TYPE_CHECKING:
    from pepperbus.worker.pump import Pump


class Ahead:
    """First in, first out. `held` is how many jobs there are."""

    def __init__(self, pump: Pump) -> None:
        self.held = 0
        self._pump = pump
        self._chunk = pump.topic.chunk
        self._leased: deque[Leased] = deque()
        self._next: Exchange | None = None

    def add(self, leased: Iterable[Leased]) -> None:
        before = len(self._leased)
        self._leased.extend(leased)
        self.held += len(self._leased) - before

    def next(self) -> Exchange | None:
        """The next request, not begun; None when nothing is held, or nothing that could be read."""
        exchange = self._next or self._make()
        self._next = None
        if exchange is not None:
            self.held -= len(exchange.leased)
        return exchange

    def prepare(self) -> None:
        """Make the next request now, while nobody waits for it. With `chunk` only a whole one: more jobs may come."""
        if self._next is None and len(self._leased) >= self._chunk:
            self._next = self._make()

    def take_all(self) -> list[Leased]:
        """Everything that is held, in its order, and hold nothing any more."""
        found = [*(self._next.leased if self._next else ()), *self._leased]
        self._next = None
        self._leased.clear()
        self.held = 0
        return found

    def _make(self) -> Exchange | None:
        leased: list[Leased] = []
        jobs: list[Delivered] = []
        while self._leased and len(leased) < self._chunk:
            one = self._leased.popleft()
            try:
                job = Job.decode(one.body)
            except ValueError as error:
                self._damaged(one, error)
                continue
            leased.append(one)
            jobs.append(Delivered(job, one.attempt, one.first_due_ms))
        return Exchange(self._pump, leased, tuple(jobs)) if leased else None

    def _damaged(self, one: Leased, error: ValueError) -> None:
        """Kept in the storage and named, never dropped."""
        self.held -= 1
        reason = f"stored bytes are damaged: {error}"
        self._pump.lane.settle([Settle(self._pump.name, one.job_id, Outcome.DEAD, reason=reason)])
