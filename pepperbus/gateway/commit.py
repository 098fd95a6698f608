"""Group commit: pushes that arrive while a write is under way go out together; each is answered once it is durable.

Knows the storage contract and nothing of sockets, logins or RESP words. Runs in the hub; only the writing is done by
greenlets, because a storage may block: one for each write that may be under way, made once (starting one costs 20 µs).

What an answer promises. Success: every topic's storage has every job at its durability. `storage unavailable` and
`queue full`: definite, nothing is stored and nothing will be. `UNKNOWN`: a storage did not answer within its
`store_timeout`, or only some of several storages have it: it may run. Re-sends use the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent.event import Event
from gevent.queue import SimpleQueue

from pepperbus.clock import Clock
from pepperbus.config.model import StorageConfig
from pepperbus.errors import StorageRefused, StorageUnavailable, StorageUnknown
from pepperbus.gateway.flight import NO_ANSWER, Flight, Part
from pepperbus.gateway.submission import STORED, UNAVAILABLE, UNKNOWN, Destination, Share, Submission, Waiter
from pepperbus.log import Log
from pepperbus.storage.contract import Push, Storage

#: Writes under way at once. Two hide the way to a server and back; an engine that commits groups itself gains by one:
#: everything that arrives during a commit forms the next.
FLIGHTS = {"redis": 2, "memory": 1, "embedded": 1}
MAX_JOBS = 4096  # of one write
MAX_BYTES = 4 << 20  # of one write, unless a single submission is larger
BACKLOG = 64 << 20  # bytes waiting for one storage; beyond, pushes are refused
ASK_AGAIN = 2.0  # seconds between questions to a storage whose durability is too low
SWEEP = 0.25  # how often overdue submissions are looked for, seconds


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
        self._waiting: list[Part] = []
        self._waiting_bytes = 0
        self._waiting_jobs = 0
        self._flights: set[Flight] = set()
        self._next: SimpleQueue[Flight | None] = SimpleQueue()  # for whichever writer is free
        self._most_flights = FLIGHTS.get(config.type, 2)  # an engine of another package: as for Redis
        self._scheduled = False
        self._sweeper: Any = self._loop.timer(SWEEP, SWEEP)
        self._failing = False
        self._ask_at = 0.0
        for _ in range(self._most_flights):
            gevent.spawn(self._keep_writing)

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
                    self._log.error("storage_down", str(error), storage=self.config.name)
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
        for _ in range(self._most_flights):
            self._next.put(None)
        self.storage.close()

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._flights)

    # -- pushing ---------------------------------------------------------------------------------------------

    def add(self, submission: Submission, pushes: list[Push]) -> None:
        """Store `pushes`; the outcome is reported to `submission`, at the earliest in the next turn of the hub."""
        self.join(Share(submission, pushes))

    def join(self, part: Part) -> None:
        """The same for pushes that know whom to report to."""
        self._waiting.append(part)
        self._waiting_bytes += part.size
        self._waiting_jobs += part.jobs
        if not self._scheduled and (len(self._flights) < self._most_flights or self._waiting_bytes > BACKLOG):
            self._scheduled = True
            self._loop.run_callback(self._launch)

    def _launch(self) -> None:
        self._scheduled = False
        if self.trouble or self._waiting_bytes > BACKLOG:
            self._refuse_newest(0 if self.trouble else BACKLOG)
        if not self._waiting or len(self._flights) >= self._most_flights:
            return
        flight = Flight(self._take(), self._clock.monotonic() + self.config.store_timeout)
        self._flights.add(flight)
        self._before_write()
        if not self._sweeper.active:
            self._sweeper.start(self._sweep)
        self._next.put(flight)

    def _refuse_newest(self, most: int) -> None:
        """Let `most` bytes wait; what came last is refused, and will never be stored."""
        refused = []
        while self._waiting and self._waiting_bytes > most:
            part = self._waiting.pop()
            self._waiting_bytes -= part.size
            self._waiting_jobs -= part.jobs
            refused.append(part)
        self._answer(reversed(refused), UNAVAILABLE)

    def _take(self) -> list[Part]:
        waiting = self._waiting
        if self._waiting_jobs <= MAX_JOBS and self._waiting_bytes <= MAX_BYTES:
            self._waiting, self._waiting_bytes, self._waiting_jobs = [], 0, 0
            return waiting
        jobs = size = count = 0
        for part in waiting:
            if count and (jobs + part.jobs > MAX_JOBS or size + part.size > MAX_BYTES):
                break
            jobs += part.jobs
            size += part.size
            count += 1
        self._waiting = waiting[count:]
        self._waiting_bytes -= size
        self._waiting_jobs -= jobs
        return waiting[:count]

    def _keep_writing(self) -> None:
        """A greenlet's work: write one flight after the other until the lane is closed."""
        while (flight := self._next.get()) is not None:
            try:
                self._heard(flight.write(self.storage, self._clock, self._answer))
            except Exception as error:  # a bug of ours must not leave all later pushes without a writer
                self._log.error("write_failed", repr(error), storage=self.config.name)
            self._flights.discard(flight)
            if self._waiting:
                self._launch()

    def _heard(self, trouble: Exception | None) -> None:
        """Log when the storage goes away and when it is back."""
        if trouble is not None and not self._failing:
            self._log.error("storage_down", str(trouble) or type(trouble).__name__, storage=self.config.name)
        elif trouble is None and self._failing:
            self._log.info("storage_up", storage=self.config.name)
        self._failing = trouble is not None

    def _sweep(self) -> None:
        """Answer what has waited longer than `store_timeout`: sent = unknown, not sent = definitely not stored."""
        now = self._clock.monotonic()
        for flight in self._flights:
            if now >= flight.deadline:
                self._answer(flight.parts, UNKNOWN, NO_ANSWER)
        oldest = now - self.config.store_timeout
        late = 0
        for part in self._waiting:
            if part.answer.arrived > oldest:
                break
            late += 1
            self._waiting_bytes -= part.size
            self._waiting_jobs -= part.jobs
        if late:
            parts, self._waiting = self._waiting[:late], self._waiting[late:]
            self._answer(parts, UNAVAILABLE)
        if not self.busy:
            self._sweeper.stop()

    def _answer(self, parts: Iterable[Part], outcome: int, text: str = "") -> None:
        """Report, count, wake workers, then tell each waiter once."""
        waiters: dict[Waiter, None] = {}
        counted: dict[tuple[Destination, float, int], int] = {}
        for part in parts:
            answer = part.answer
            if answer.report(outcome, text):
                waiters[answer.waiter] = None
                for route, jobs in answer.routes:
                    key = (route, answer.arrived, answer.outcome)
                    counted[key] = counted.get(key, 0) + jobs
        now = self._clock.monotonic()
        stored: dict[Destination, None] = {}
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
                self._log.error("answer_failed", repr(error))
        for route in stored:
            route.wake()
