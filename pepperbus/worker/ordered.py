"""`order_by`: jobs with the same value of a field run one after the other, in the order of their ids; others flow beside them.

Floor 4. One worker of all nodes decides, and it delivers too, so that there is nothing to agree upon while jobs run. Who that
is: on a node whoever holds a lock that the kernel frees when its holder dies; among nodes whoever's name stands in the
storage, good for 30 s and renewed every 5. A job blocks those behind it until its end is stored; one that failed blocks them
while it waits for its next attempt, also through a restart, for a new leader first looks at what is delayed or leased.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import gevent

from pepperbus.config.joboptions import value_at
from pepperbus.delivery.contract import Delivered
from pepperbus.delivery.slots import Slots
from pepperbus.errors import StorageError
from pepperbus.job import Job, State
from pepperbus.names import split_owner
from pepperbus.storage.contract import Leased, Outcome, Settle
from pepperbus.worker.ahead import Ahead
from pepperbus.worker.exchange import Exchange
from pepperbus.worker.pump import Pump

#: Jobs, and bytes of them, that are held because one before them is not done. Beyond, all wait for those.
_MOST_PARKED, _MOST_PARKED_BYTES = 2_000, 32 << 20
_LEADS_MS, _RENEW_S, _ASK_S = 30_000, 5.0, 1.0
#: Blockers that are looked for in one go; one may have been removed by hand.
_LOOKED_FOR = 20


class _Line:
    """Jobs of one value: those that wait by id, and the one they wait for."""

    __slots__ = ("blocker", "jobs")

    def __init__(self) -> None:
        self.blocker = 0
        self.jobs: list[tuple[int, Leased, Job]] = []


class OrderedExchange(Exchange):
    """Tells when the end of its job is stored."""

    __slots__ = ()

    def _account(self) -> tuple[list[Settle], list[int]]:
        settles, marks = super()._account()
        ahead = self._pump._ahead
        assert isinstance(ahead, Lines)
        for settle in settles:
            self._pump.lane.when_stored(partial(ahead.ended, settle.job_id, settle.outcome))
        return settles, marks


class Lines(Ahead):
    """What is leased, by value. `held` counts what may start: of each line one job at most. `parked`: all that wait."""

    def __init__(self, pump: Pump, path: str) -> None:
        super().__init__(pump)
        self.parked = 0
        self.bytes = 0
        self._words = path.split(".")
        self._lines: dict[bytes, _Line] = {}
        self._values: dict[int, bytes] = {}  # blocker -> its line
        self._free: deque[bytes] = deque()  # lines whose first job may start

    def add(self, leased: Iterable[Leased]) -> None:
        for one in leased:
            try:
                job = Job.decode(one.body)
            except ValueError as error:
                self.held += 1
                self._damaged(one, error)
                continue
            value = self._value(one.job_id, job.content)
            line = self._lines.setdefault(value, _Line())
            if line.blocker == one.job_id:  # the job all others wait for is back
                self._unblock(line)
            heapq.heappush(line.jobs, (one.job_id, one, job))
            self.parked += 1
            self.bytes += len(one.body)
            self._offer(value, line)

    def _value(self, job_id: int, content: bytes) -> bytes:
        """The line a job belongs to; one without that field has a line of its own."""
        return value_at(content, self._words) or b"%d" % job_id

    def _offer(self, value: bytes, line: _Line) -> None:
        if line.jobs and not line.blocker and value not in self._free:
            self._free.append(value)
            self.held += 1

    def _unblock(self, line: _Line) -> None:
        self._values.pop(line.blocker, None)
        line.blocker = 0

    def next(self) -> Exchange | None:
        if not self._free:
            return None
        value = self._free.popleft()
        self.held -= 1
        line = self._lines[value]
        job_id, leased, job = heapq.heappop(line.jobs)
        self.parked -= 1
        self.bytes -= len(leased.body)
        line.blocker = job_id
        self._values[job_id] = value
        return OrderedExchange(self._pump, [leased], (Delivered(job, leased.attempt, leased.first_due_ms),))

    def prepare(self) -> None:
        """Nothing: what is next is not known before the one before has ended."""

    def ended(self, job_id: int, outcome: Outcome) -> None:
        """The end of an attempt is stored. Only done or dead jobs let others pass; all else comes back."""
        if outcome in (Outcome.DONE, Outcome.DEAD):
            self.release(job_id)
            self._pump.turn()

    def release(self, job_id: int) -> None:
        """Nobody waits for this job any more."""
        value = self._values.get(job_id)
        line = self._lines.get(value) if value is not None else None
        if value is None or line is None or line.blocker != job_id:
            return
        self._unblock(line)
        if line.jobs:
            self._offer(value, line)
        else:
            del self._lines[value]

    def block(self, job_id: int, content: bytes) -> None:
        """A job that lies elsewhere, unfinished: those of its line wait for it."""
        value = self._value(job_id, content)
        line = self._lines.setdefault(value, _Line())
        if not line.blocker:
            line.blocker = job_id
            self._values[job_id] = value

    @property
    def blockers(self) -> list[int]:
        """Jobs that others wait for here."""
        return [line.blocker for line in self._lines.values() if line.blocker and line.jobs]

    def take_all(self) -> list[Leased]:
        found = [one for line in self._lines.values() for _, one, _ in line.jobs]
        self._lines = {value: line for value, line in self._lines.items() if line.blocker}
        for line in self._lines.values():
            line.jobs = []
        self._free.clear()
        self.held = self.parked = self.bytes = 0
        return sorted(found, key=lambda one: one.job_id)

    def forget(self) -> None:
        """Another worker decides from now on."""
        self._lines.clear()
        self._values.clear()


class OrderedPump(Pump):
    """A pump that starts jobs only while it leads its topic."""

    def __init__(self, *parts: Any, lock: Path) -> None:
        super().__init__(*parts)
        self._lines = Lines(self, self.topic.order_by)
        self._ahead = self._lines
        self._lock = Slots(lock, 1)
        self._leads_until = 0.0  # monotonic s
        self._mine = ""  # what stands in the storage while this one leads
        self._leader = gevent.spawn(self._lead)

    @property
    def leads(self) -> bool:
        return self.parts.clock.monotonic() < self._leads_until

    def _may_start(self) -> bool:
        return self.leads and super()._may_start()

    def _room(self) -> int:
        full = self._lines.parked >= _MOST_PARKED or self._lines.bytes >= _MOST_PARKED_BYTES
        return 0 if full else super()._room()

    def let_others(self) -> None:
        """Nobody else may run them."""

    def return_ahead(self) -> None:
        if self._lines.parked:
            self._give_back(self._lines.take_all())
            self._may_hold_more = True

    def drain(self) -> None:
        super().drain()
        gevent.spawn(self._abdicate)

    def _abdicate(self) -> None:
        """Leave the lead to another one as soon as nothing runs here."""
        self.idle.wait()
        self._leader.kill()
        mine, self._mine, self._leads_until = self._mine, "", 0.0
        try:
            if mine and self.lane.storage.swap(self._key, mine, "") == "":
                self._lock.give(0)
        except StorageError:
            pass  # then its time runs out

    # -- leading -----------------------------------------------------------------------------------------------------

    @property
    def _key(self) -> str:
        return f"order/{self.name}"

    def _lead(self) -> None:
        """A greenlet's work: become the leader, stay it, and see that nobody waits for a job that is gone."""
        while not self.draining:
            try:
                if self._claim() and not self.leads_since_look:
                    self._look_around()
                elif self.leads:
                    self._look_for_blockers()
            except StorageError as error:
                self.parts.log.warning("order_waits", str(error), topic=self.name)
            if not self.leads and self._lines.parked:
                self.return_ahead()
            gevent.sleep(_ASK_S)

    leads_since_look = False  # whether what lies in the storage was looked at since this one leads
    _renewed = 0.0

    def _claim(self) -> bool:
        """Lead, or lead on. Raises StorageError."""
        monotonic, now_ms = self.parts.clock.monotonic(), self.parts.clock.now_ms()
        if self.leads and monotonic - self._renewed < _RENEW_S:
            return True
        if self._mine == "" and not self._lock.used and self._lock.take() is None:
            return False
        storage = self.lane.storage
        found = storage.recall(self._key)
        if found and found != self._mine and not self._is_over(found, now_ms):
            self._lost()
            return False
        mine = f"{self._owner} {now_ms + _LEADS_MS}"
        if storage.swap(self._key, found, mine) != mine:
            self._lost()
            return False
        if not self.leads:
            self.leads_since_look = False
        self._mine, self._renewed = mine, monotonic
        if self.leads_since_look:
            self._leads_until = monotonic + (_LEADS_MS / 1000 - _RENEW_S)
        return True

    def _is_over(self, text: str, now_ms: int) -> bool:
        """Whether who stands there leads no more: its time is over, or it was one of this node, whose lock is ours now."""
        owner, _, until_ms = text.partition(" ")
        return int(until_ms or 0) < now_ms or split_owner(owner)[0] == self.parts.node

    def _lost(self) -> None:
        self._mine, self._leads_until, self.leads_since_look = "", 0.0, False

    def _look_around(self) -> None:
        """What is not done and not in line: jobs between attempts, and those that others still hold. Raises StorageError."""
        self._lines.forget()
        for state in (State.DELAYED, State.LEASED):
            cursor = ""
            while True:
                page = self.lane.storage.peek(self.name, state, cursor, 1000)
                for found in page.jobs:
                    is_ours = found.owner == self._owner
                    if not is_ours and (found.attempts or state is State.LEASED):
                        self._lines.block(found.job_id, Job.decode(found.body).content)
                cursor = page.cursor
                if not cursor:
                    break
        self.leads_since_look = True
        self._leads_until = self._renewed + (_LEADS_MS / 1000 - _RENEW_S)
        self.parts.log.info("order_led", topic=self.name, owner=self._owner)
        self.pushed()

    def _look_for_blockers(self) -> None:
        """One that was removed or has died elsewhere comes back no more."""
        for job_id in self._lines.blockers[:_LOOKED_FOR]:
            found = self.lane.storage.find(job_id, (self.name,))
            if not found or found[0].state is State.DEAD:
                self._lines.release(job_id)
                self.turn()
