"""What a pump has leased but not begun, and the requests made of the first of it before their turn.

Floor 4. Knows nothing of places, targets or time. Requests are made while php-fpm works, a few in a row: that is cheaper
than one between other things. Not by the dozen: meanwhile answers wait, and the children that gave them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pepperbus.delivery.contract import Delivered
from pepperbus.job import Job
from pepperbus.storage.contract import Leased, Outcome, Settle
from pepperbus.worker.exchange import Exchange, Starter

#: So many requests are kept made, while the jobs of those before are not larger than this together (bytes).
_STOCK, _STOCK_BYTES = 4, 256 << 10


class Ahead:
    """First in, first out. `held` is how many jobs there are."""

    def __init__(self, pump: Starter) -> None:
        self.held = 0
        self._pump = pump
        self._chunk = pump.topic.chunk
        self._leased: deque[Leased] = deque()
        self._made: deque[Exchange] = deque()
        self._made_bytes = 0

    def add(self, leased: Iterable[Leased]) -> None:
        before = len(self._leased)
        self._leased.extend(leased)
        self.held += len(self._leased) - before

    def next(self) -> Exchange | None:
        """The next request, not begun; None when nothing is held, or nothing that could be read."""
        if self._made:
            exchange = self._made.popleft()
            self._made_bytes -= exchange.bytes
        elif (made := self._make()) is not None:
            exchange = made
        else:
            return None
        self.held -= len(exchange.leased)
        return exchange

    def prepare(self) -> None:
        """Make the next requests now, while nobody waits for them. With `chunk` only whole ones: more jobs may come."""
        while len(self._made) < _STOCK and len(self._leased) >= self._chunk and self._made_bytes < _STOCK_BYTES:
            exchange = self._make()
            if exchange is None:
                return
            self._made_bytes += exchange.bytes
            self._made.append(exchange)

    def take_all(self) -> list[Leased]:
        """Everything that is held, in its order, and hold nothing any more."""
        found = [one for exchange in self._made for one in exchange.leased]
        found += self._leased
        self._made.clear()
        self._leased.clear()
        self.held = self._made_bytes = 0
        return found

    def _make(self) -> Exchange | None:
        leased: list[Leased] = []
        jobs: list[Delivered] = []
        size = 0
        while self._leased and len(leased) < self._chunk:
            one = self._leased.popleft()
            try:
                job = Job.decode(one.body)
            except ValueError as error:
                self._damaged(one, error)
                continue
            leased.append(one)
            size += len(one.body)
            jobs.append(Delivered(job, one.attempt, one.first_due_ms))
        return Exchange(self._pump, leased, tuple(jobs), size) if leased else None

    def _damaged(self, one: Leased, error: ValueError) -> None:
        """Kept in the storage and named, never dropped."""
        self.held -= 1
        reason = f"stored bytes are damaged: {error}"
        self._pump.lane.settle([Settle(self._pump.name, one.job_id, Outcome.DEAD, reason=reason)])
