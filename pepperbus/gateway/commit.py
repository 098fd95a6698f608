"""Group commit: pushes that arrive while a write is under way go out together; each is answered once it is durable.

Knows the storage contract and nothing of sockets, logins or RESP words: a `Submission` carries the two ways to
phrase its answer. Runs in the hub; only `Lane._write` is a greenlet, because a storage may block.

What an answer promises. Success: every topic's storage has every job at its durability. `storage unavailable` and
`queue full`: definite, nothing is stored and nothing will be. `UNKNOWN`: a storage did not answer within its
`store_timeout`, or only some of several storages have it: it may run. Re-sends use the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import gevent
from gevent.event import Event

from pepperbus.clock import Clock
from pepperbus.config.model import StorageConfig
from pepperbus.errors import StorageRefused, StorageUnavailable, StorageUnknown
from pepperbus.gateway.routes import QueueRoute
from pepperbus.log import Log
from pepperbus.storage.contract import Push, Storage

#: Writes under way at once. Two hide the way to a server and back; an engine that commits groups itself gains by one:
#: everything that arrives during a commit forms the next.
FLIGHTS = {"redis": 2, "memory": 1, "embedded": 1}
MAX_JOBS = 4096  # of one write
MAX_BYTES = 4 << 20  # of one write, unless a single submission is larger
BACKLOG = 64 << 20  # bytes waiting for one storage; beyond, pushes are refused
RETRY_AFTER = 0.05  # seconds before the one re-send of a write without answer
ASK_AGAIN = 2.0  # seconds between questions to a storage whose durability is too low
SWEEP = 0.25  # how often overdue submissions are looked for, seconds


#: How a write ended, the worse the higher. Plain numbers: an Enum's members cost a microsecond a push.
STORED, FULL, UNAVAILABLE, UNKNOWN = range(4)


class Waiter(Protocol):
    """Whoever holds submissions and wants to know that some are answered."""

    def answers_ready(self) -> None: ...


class Submission:
    """The pushes behind one reply: an LPUSH, or everything between MULTI and EXEC.

    `reply` is None until the outcome is known. `success` is the reply then; `failure` phrases the others from a text.
    """

    __slots__ = ("arrived", "failure", "lacking", "outcome", "reply", "routes", "size", "stored", "success", "waiter")

    def __init__(
        self,
        routes: Sequence[tuple[QueueRoute, int]],
        waiter: Waiter,
        success: bytes,
        failure: Callable[[int, str], bytes],
        arrived: float,
        size: int,
    ) -> None:
        self.routes = routes  # each queue concerned and its number of jobs
        self.waiter = waiter
        self.success = success
        self.failure = failure
        self.arrived = arrived
        self.size = size
        self.reply: bytes | None = None
        self.lacking = 1  # storages that have not reported
        self.stored = False
        self.outcome = STORED

    def report(self, outcome: int, text: str = "") -> bool:
        """One storage's outcome. True when that answers the submission (now, not before)."""
        if self.reply is not None:
            return False
        self.lacking -= 1
        if outcome == STORED:
            self.stored = True
        if outcome > self.outcome:
            self.outcome = outcome
        if self.lacking:
            return False
        if self.outcome == STORED:
            self.reply = self.success
        elif self.stored or self.outcome == UNKNOWN:
            self.outcome = UNKNOWN
            self.reply = self.failure(UNKNOWN, text or "only some of the queue's storages have it; it may run")
        else:
            self.reply = self.failure(self.outcome, text)
        return True


_Part = tuple[Submission, list[Push]]


class _Flight:
    """One write under way."""

    __slots__ = ("deadline", "parts")

    def __init__(self, parts: list[_Part], deadline: float) -> None:
        self.parts = parts
        self.deadline = deadline


class Lane:
    """The way of all pushes of this process into one storage."""

    def __init__(
        self, storage: Storage, config: StorageConfig, clock: Clock, log: Log, before_write: Callable[[], None]
    ) -> None:
        """`before_write` is called before each write: the mark of the ids made so far is raised there."""
        self.storage = storage
        self.config = config
        self.trouble = f"storage {config.name} is not open yet"  # why nothing can be stored; "" = open
        self.refused = False  # it is reachable and must not be used as it is set up
        self.closed = False
        self.tried = Event()  # the first attempt at opening has ended
        self._clock = clock
        self._log = log
        self._before_write = before_write
        self._loop = gevent.get_hub().loop
        self._waiting: list[_Part] = []
        self._waiting_bytes = 0
        self._waiting_jobs = 0
        self._flights: set[_Flight] = set()
        self._most_flights = FLIGHTS.get(config.type, 2)  # an engine of another package: as for Redis
        self._scheduled = False
        self._sweeper: Any = self._loop.timer(SWEEP, SWEEP)
        self._failing = False
        self._ask_at = 0.0

    # -- opening ---------------------------------------------------------------------------------------------

    def keep_open(self, claim: Callable[[Storage], None]) -> None:
        """A greenlet's work: open the storage, trying again until it works. The gateway serves meanwhile."""
        wait = 0.2
        while not self.closed:
            try:
                self.storage.open()
                claim(self.storage)
            except Exception as error:  # away, refused, or a bug of an engine: trying again is all there is
                if str(error) != self.trouble:
                    self._log.error("storage-down", str(error), storage=self.config.name)
                self.trouble = str(error) or "no answer"
                self.refused = isinstance(error, StorageRefused)
                self.tried.set()
                gevent.sleep(wait)
                wait = min(wait * 2, 2.0)
            else:
                self.trouble = ""
                self.refused = False
                self.tried.set()
                return

    def ask_again(self) -> None:
        """The storage gave less than a queue asks for: its settings may have been changed since. At most every 2 s."""
        now = self._clock.monotonic()
        if now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN
            gevent.spawn(self._ask)

    def _ask(self) -> None:
        try:
            self.storage.open()
        except (StorageUnavailable, StorageUnknown, StorageRefused):
            pass  # what it gave before stays true until it answers

    def close(self) -> None:
        self.closed = True
        self._sweeper.stop()
        self.storage.close()

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._flights)

    # -- pushing ---------------------------------------------------------------------------------------------

    def add(self, submission: Submission, pushes: list[Push]) -> None:
        """Store `pushes`; the outcome is reported to `submission`, at the earliest in the next turn of the hub."""
        self._waiting.append((submission, pushes))
        self._waiting_bytes += submission.size
        self._waiting_jobs += len(pushes)
        if not self._scheduled and (len(self._flights) < self._most_flights or self._waiting_bytes > BACKLOG):
            self._scheduled = True
            self._loop.run_callback(self._launch)

    def _launch(self) -> None:
        self._scheduled = False
        if self.trouble or self._waiting_bytes > BACKLOG:
            self._refuse_newest(0 if self.trouble else BACKLOG)
        if not self._waiting or len(self._flights) >= self._most_flights:
            return
        flight = _Flight(self._take(), self._clock.monotonic() + self.config.store_timeout)
        self._flights.add(flight)
        self._before_write()
        if not self._sweeper.active:
            self._sweeper.start(self._sweep)
        gevent.spawn(self._write, flight)

    def _refuse_newest(self, most: int) -> None:
        """Let `most` bytes wait; what came last is refused, and will never be stored."""
        refused = []
        while self._waiting and self._waiting_bytes > most:
            submission, pushes = self._waiting.pop()
            self._waiting_bytes -= submission.size
            self._waiting_jobs -= len(pushes)
            refused.append(submission)
        self._answer(reversed(refused), UNAVAILABLE)

    def _take(self) -> list[_Part]:
        waiting = self._waiting
        if self._waiting_jobs <= MAX_JOBS and self._waiting_bytes <= MAX_BYTES:
            self._waiting, self._waiting_bytes, self._waiting_jobs = [], 0, 0
            return waiting
        jobs = size = count = 0
        for submission, pushes in waiting:
            jobs += len(pushes)
            size += submission.size
            if count and (jobs > MAX_JOBS or size > MAX_BYTES):
                size -= submission.size
                jobs -= len(pushes)
                break
            count += 1
        self._waiting = waiting[count:]
        self._waiting_bytes -= size
        self._waiting_jobs -= jobs
        return waiting[:count]

    def _write(self, flight: _Flight) -> None:
        try:
            self._write_parts(flight)
        finally:
            self._flights.discard(flight)
            if self._waiting:
                self._launch()

    def _write_parts(self, flight: _Flight) -> None:
        parts, limits = flight.parts, None
        if any(route.limits for route in {route for part in parts for route, _ in part[0].routes}):
            parts = self._without_full(parts)
            limits = self._limits(parts)
        batch = [push for _, pushes in parts for push in pushes]
        try:
            refused = self._push(batch, limits, flight.deadline) if batch else ()
        except StorageUnavailable as error:
            self._failed(error)
            self._answer((part[0] for part in parts), UNAVAILABLE, "")
        except Exception as error:  # StorageUnknown, or a bug of an engine: either way nobody knows
            self._failed(error)
            self._answer((part[0] for part in parts), UNKNOWN, "no answer from the storage; it may run")
        else:
            if self._failing:
                self._failing = False
                self._log.info("storage-up", storage=self.config.name)
            if refused:
                parts = self._report_refused(parts, frozenset(refused))
            self._answer((part[0] for part in parts), STORED)

    def _push(self, batch: list[Push], limits: dict[str, int] | None, deadline: float) -> Iterable[int]:
        try:
            return self.storage.push(batch, limits)
        except StorageUnknown:
            if self._clock.monotonic() + RETRY_AFTER * 2 >= deadline:
                raise
        gevent.sleep(RETRY_AFTER)
        try:
            refused = self.storage.push(batch, limits)
        except StorageUnavailable as error:  # about this re-send only: the first one stays unknown
            raise StorageUnknown(str(error)) from error
        if refused:  # the first one may have stored them, and a worker may have done them since
            raise StorageUnknown("no answer from the storage, then no room")
        return refused

    def _limits(self, parts: list[_Part]) -> dict[str, int] | None:
        limits: dict[str, int] = {}
        for submission, pushes in parts:
            if len(pushes) == 1:  # several were looked at before, as a whole
                for route, _ in submission.routes:
                    limits.update(route.limits)
        return limits or None

    def _without_full(self, parts: list[_Part]) -> list[_Part]:
        """A command of several values is refused whole, which the storage's own limit (per job) cannot do."""
        kept = []
        for part in parts:
            submission, pushes = part
            if len(pushes) > 1 and any(route.limits for route, _ in submission.routes) and self._is_full(part):
                self._answer((submission,), FULL, "")
            else:
                kept.append(part)
        return kept

    def _is_full(self, part: _Part) -> bool:
        more: dict[str, int] = {}
        for push in part[1]:
            for topic in push.topics:
                more[topic] = more.get(topic, 0) + 1
        try:
            for route, _ in part[0].routes:
                for topic, limit in route.limits.items():
                    if topic in more:
                        depth = self.storage.depth(topic)
                        if depth.ready + depth.delayed + more[topic] > limit:
                            return True
        except Exception as error:  # the push itself will say so
            self._failed(error)
        return False

    def _report_refused(self, parts: list[_Part], refused: frozenset[int]) -> list[_Part]:
        """Report the parts whose pushes were refused; return the others."""
        stored, index = [], 0
        for part in parts:
            indexes = range(index, index + len(part[1]))
            index += len(part[1])
            hit = sum(i in refused for i in indexes)
            if not hit:
                stored.append(part)
            else:
                self._answer((part[0],), FULL if hit == len(indexes) else UNKNOWN, "")
        return stored

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            self._log.error("storage-down", str(error) or type(error).__name__, storage=self.config.name)

    def _sweep(self) -> None:
        """Answer what has waited longer than `store_timeout`: sent = unknown, not sent = definitely not stored."""
        now = self._clock.monotonic()
        for flight in self._flights:
            if now >= flight.deadline:
                self._answer([part[0] for part in flight.parts], UNKNOWN, "no answer from the storage; it may run")
        oldest = now - self.config.store_timeout
        late = 0
        for submission, pushes in self._waiting:
            if submission.arrived > oldest:
                break
            late += 1
            self._waiting_bytes -= submission.size
            self._waiting_jobs -= len(pushes)
        if late:
            parts, self._waiting = self._waiting[:late], self._waiting[late:]
            self._answer([part[0] for part in parts], UNAVAILABLE, "")
        if not self.busy:
            self._sweeper.stop()

    def _answer(self, submissions: Iterable[Submission], outcome: int, text: str = "") -> None:
        """Report, count, wake workers, then tell each waiter once."""
        waiters: dict[Waiter, None] = {}
        counted: dict[tuple[QueueRoute, float, int], int] = {}
        for submission in submissions:
            if submission.report(outcome, text):
                waiters[submission.waiter] = None
                for route, jobs in submission.routes:
                    key = (route, submission.arrived, submission.outcome)
                    counted[key] = counted.get(key, 0) + jobs
        now = self._clock.monotonic()
        stored: dict[QueueRoute, None] = {}
        for (route, arrived, result), jobs in counted.items():
            if result == STORED:
                route.count_stored(jobs, now - arrived)
                stored[route] = None
            else:
                route.count_failed(jobs, unknown=result == UNKNOWN)
        for waiter in waiters:
            try:
                waiter.answers_ready()
            except Exception as error:  # one client's trouble must not keep the others from their answers
                self._log.error("answer-failed", repr(error))
        for route in stored:
            route.wake()
