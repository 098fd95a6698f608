"""One storage as one worker uses it: settles go out in batches, and nothing new starts while they cannot be stored.

Floor 4. Why the stop: a job whose outcome cannot be written will run again. On a full disk or a dead Redis each further
job run would be one more duplicate, so the lane closes with the first failed settle and opens with the next good one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

import gevent
from gevent.event import Event

from pepperbus.errors import StorageError
from pepperbus.log import Log
from pepperbus.names import split_topic
from pepperbus.storage.contract import Leased, Outcome, Settle, Storage
from pepperbus.worker.inflight import InFlight

#: Jobs answered but not yet settled: a killed worker repeats these beside what is running, so they are kept few.
_MOST_UNSETTLED = 64
#: Outcomes gather so long, or until they are so many, and are stored together: one round trip or fsync for all. Without
#: it a quick storage got one or two at a time, which cost more than the jobs themselves.
_GATHER_S, _GATHER = 0.004, 32
_RETRY_S = (0.05, 1.0)  # first and longest wait after a settle that failed
_BUGS = 3  # an engine that raises what the contract does not know so often does so for one outcome of the batch

#: Outcomes, and the in-flight marks to wipe once they are stored.
Account = tuple[list[Settle], list[int]]


class Guest(Protocol):
    """Who wants jobs of a topic, soon but not at once."""

    name: str

    def wanted(self) -> int:
        """How many, now."""

    def leased(self, jobs: list[Leased] | None) -> None:
        """They are leased. None: they are not, ask the storage yourself."""


class Lane:
    """The settling half of one storage; `open` says whether jobs of this storage may start now."""

    def __init__(
        self,
        storage: Storage,
        owner: str,
        inflight: InFlight,
        log: Log,
        on_open: Callable[[], None],
        on_back: Callable[[set[str]], None] = lambda queues: None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_open`: jobs may start again. `on_back`: to these queues jobs were given back, for which others may be free.

        `before`: called before outcomes are stored (the journal's rows are written, so that what is settled is told).
        """
        self.storage = storage
        self.healthy = True
        self.paused: set[str] = set()
        self._owner = owner
        self._inflight = inflight
        self._log = log
        self._batch: list[Settle] = []
        self._accounts: list[Callable[[], Account]] = []
        self._gathered = 0  # jobs handed in since the last batch
        self._guest: Guest | None = None
        self._unsettled = 0
        self._on_open = on_open
        self._on_back = on_back
        self._before = before
        self._gathering = gevent.get_hub().loop.timer(_GATHER_S, _GATHER_S)  # without a repeat it would fire at once
        self._timed = False
        self._enough = Event()
        self._idle = Event()
        self._idle.set()
        self._doubted = False
        self._told_then: list[Callable[[], None]] = []
        self._greenlet = gevent.spawn(self._run)

    @property
    def open(self) -> bool:
        return self.healthy and self._unsettled < _MOST_UNSETTLED

    def settle(self, outcomes: list[Settle]) -> None:
        """Store what becomes of some jobs, soon and surely: repeated until the storage says yes."""
        self._batch += outcomes
        self._gather(len(outcomes))

    def answered(self, account: Callable[[], Account], jobs: int) -> None:
        """The same for `jobs` jobs whose outcomes `account` gives, shortly before they are stored, with their in-flight marks.

        The marks are wiped when the outcomes are stored: dying in between, the jobs must count as begun. Accounts are
        made by the dozen: the same code in a row costs a third of what it costs between other things.
        """
        self._accounts.append(account)
        self._gather(jobs)

    def another(self, jobs: int) -> None:
        """`jobs` more for an account that was handed in and is not made yet."""
        self._gather(jobs)

    def when_stored(self, tell: Callable[[], None]) -> None:
        """Called by an account that is being made: `tell` when what it gives is stored."""
        self._told_then.append(tell)

    def _gather(self, jobs: int) -> None:
        self._unsettled += jobs
        self._gathered += jobs
        if self._gathered >= _GATHER:
            self._enough.set()
        if not self._timed:
            self._timed = True
            self._idle.clear()
            self._gathering.start(self._enough.set)

    def _take(self) -> Account:
        """What was handed in up to now."""
        settles: list[Settle] = self._batch
        marks: list[int] = []
        accounts, self._accounts, self._batch, self._gathered = self._accounts, [], [], 0
        for account in accounts:
            outcomes, theirs = account()
            settles += outcomes
            marks += theirs
        return settles, marks

    def lease_along(self, guest: Guest) -> bool:
        """Lease for `guest` in the write that stores the next batch; False when none is about to be, or another goes along."""
        if not self._gathered or self._guest is not None:
            return False
        self._guest = guest
        return True

    def leave(self, guest: Guest) -> bool:
        """`guest` asks the storage itself after all. False when its jobs are being leased, or it does not go along."""
        if self._guest is not guest:
            return False
        self._guest = None
        return True

    def flush(self, timeout: float) -> bool:
        """Wait until everything handed in is stored; whether it was."""
        return bool(self._idle.wait(timeout))

    def _run(self) -> None:
        while True:
            self._enough.wait()
            self._gathering.stop()
            self._timed = False
            self._enough.clear()
            batch, marks = self._take()
            guest, self._guest = self._guest, None
            leased = None
            if batch:
                self._before()
                leased = self._store(batch, marks, guest)
                try:
                    self._stored(batch, marks)
                except (
                    Exception
                ) as error:  # of those who are told; what is settled must not be settled and counted again
                    self._log.error("not_told", repr(error), storage=self.storage.name)
            if not self._gathered:
                self._idle.set()
            if guest is not None:
                guest.leased(leased)

    def _store(self, batch: list[Settle], marks: list[int], guest: Guest | None) -> list[Leased] | None:
        """Until the storage says yes; what is handed in meanwhile joins the batch. What `guest` got, None: it must ask."""
        wait = _RETRY_S[0]
        attempt = 0
        while True:
            attempt += 1
            try:
                if guest is not None and attempt == 1:
                    return self.storage.settle_and_lease(self._owner, batch, guest.name, guest.wanted())[1]
                self.storage.settle(self._owner, batch)
                return None
            except Exception as error:  # definite, unknown or a bug of an engine: settling twice is harmless
                known = isinstance(error, StorageError)
                if self.healthy:
                    text = str(error) if known else repr(error)
                    self._log.warning("settle_failed", text, storage=self.storage.name, jobs=len(batch))
                self.healthy = False
                if not known and guest is not None and not self._doubted:
                    self._doubted = True  # leased, perhaps, and nobody knows: told, once, as if it were not caught
                    gevent.get_hub().handle_error(self._greenlet, *sys.exc_info())
                if not known and attempt >= _BUGS:
                    self._drop_culprits(batch, marks)
                    return None
                gevent.sleep(wait)
                wait = min(_RETRY_S[1], wait * 2)
                more, theirs = self._take()
                batch += more
                marks += theirs
                self._before()

    def _drop_culprits(self, batch: list[Settle], marks: list[int]) -> None:
        """An engine cannot take something of this batch: one by one, so that one outcome does not hold up all others.

        What cannot be settled stays leased until this worker is replaced, and then runs again. Its mark stays too: it ran.
        """
        for outcome in batch:
            try:
                self.storage.settle(self._owner, [outcome])
            except StorageError:
                kept = self._keep_marks(outcome, marks)
                gevent.sleep(_RETRY_S[1])
                self.answered(lambda outcome=outcome, kept=kept: ([outcome], kept), 1)  # type: ignore[misc]
            except Exception as error:
                self._keep_marks(outcome, marks)
                self._log.error("settle_gave_up", repr(error), topic=outcome.topic, job=outcome.job_id)

    def _keep_marks(self, outcome: Settle, marks: list[int]) -> list[int]:
        """Those of its job, no longer among `marks`."""
        kept = [mark for mark in marks if self._inflight.is_of(mark, outcome.topic, outcome.job_id)]
        for mark in kept:
            marks.remove(mark)
        return kept

    def _stored(self, batch: list[Settle], marks: list[int]) -> None:
        """The batch is in the storage: let go of it, then tell those who waited for that."""
        was_open, was_healthy = self.open, self.healthy
        for mark in marks:
            self._inflight.end(mark)
        self._unsettled -= len(batch)
        self.healthy = True
        if not was_healthy:
            self._log.info("storage_back", storage=self.storage.name)
        if not was_open and self.open:
            self._on_open()
        if self._told_then:
            told, self._told_then = self._told_then, []
            for tell in told:
                tell()
        back = {settle.topic for settle in batch if settle.outcome is Outcome.BACK}
        if back:
            self._on_back({split_topic(topic)[0] for topic in back})

    def close(self) -> None:
        self._greenlet.kill()
        self._gathering.stop()
        self._gathering.close()
