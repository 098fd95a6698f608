"""`order_by`: jobs with the same value of a field run one after the other, in the order of their ids; others flow beside them.

Floor 4. One worker of all nodes decides, and it delivers too, so that there is nothing to agree upon while jobs run. Who that
is: on a node whoever holds a lock that the kernel frees when its holder dies; among nodes whoever's name stands in the
storage, renewed every 5 s and good until nobody has for 30. A job blocks those behind it until its end is stored; one that
failed blocks them while it waits for its next attempt, also through a restart, for a new leader first looks at what is
delayed or leased.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gevent

from pepperbus.delivery.slots import Slots
from pepperbus.errors import StorageError
from pepperbus.job import Job, State
from pepperbus.names import split_owner
from pepperbus.storage.contract import Outcome, Settle, Stored
from pepperbus.worker.lines import Lines
from pepperbus.worker.pump import Pump

#: Jobs, and bytes of them, that are held because one before them is not done. Beyond, all wait for those.
_MOST_PARKED, _MOST_PARKED_BYTES = 2_000, 32 << 20
_LEADS_S, _RENEW_S, _ASK_S = 30.0, 5.0, 1.0
#: Jobs that are looked for in one go because others wait for them; one may have been removed by hand.
_LOOKED_FOR = 20
#: What makes room for a job further down the line is back in line after this (ms).
_ASIDE_MS = 1_000
#: How far down the line a new leader looks: whether a job there belongs before others, because it was given back or failed.
_MOST_READY = 20_000


class OrderedPump(Pump):
    """A pump that starts jobs only while it leads its topic."""

    def __init__(self, *parts: Any, lock: Path) -> None:
        super().__init__(*parts)
        self.relay = None  # each end is waited for by the line behind it
        self._lines = Lines(self, self.topic.order_by)
        self._ahead = self._lines
        self._lock = Slots(lock, 1)
        self._leads_until = 0.0  # monotonic s
        self._mine = ""  # what stands in the storage while this one leads
        self._seen = "", 0.0  # what stood there of another one, and since when at least (monotonic s)
        self._renewed = 0.0  # monotonic s
        self._looked = False  # at what lies in the storage, since this one leads
        self._looks = 0  # for awaited jobs
        self._leader = gevent.spawn(self._lead)

    @property
    def leads(self) -> bool:
        return self.parts.clock.monotonic() < self._leads_until

    def _may_start(self) -> bool:
        return self.leads and super()._may_start()

    @property
    def _is_full(self) -> bool:
        return self._lines.parked >= _MOST_PARKED or self._lines.bytes >= _MOST_PARKED_BYTES

    def _room(self) -> int:
        return 0 if self._is_full else super()._room()

    def let_others(self) -> None:
        """Nobody else may run them."""

    def _clear_up(self) -> None:
        """Not while another one leads: what waits before others must not leave the line for a moment."""
        if self.leads:
            super()._clear_up()

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
                if self._claim() and not self._looked:
                    self._look_around()
                elif self.leads:
                    self._look_for_awaited()
            except StorageError as error:
                self.parts.log.warning("order_waits", str(error), topic=self.name)
            if not self.leads and self._lines.parked:
                self.return_ahead()
            gevent.sleep(_ASK_S)

    def _claim(self) -> bool:
        """Lead, or lead on. Raises StorageError."""
        monotonic, now_ms = self.parts.clock.monotonic(), self.parts.clock.now_ms()
        if self.leads and monotonic - self._renewed < _RENEW_S:
            return True
        if self._mine == "" and not self._lock.used and self._lock.take() is None:
            return False
        storage = self.lane.storage
        found = storage.recall(self._key)
        if found and found != self._mine and not self._is_over(found, monotonic):
            self._lost()
            return False
        mine = f"{self._owner} {now_ms}"
        if storage.swap(self._key, found, mine) != mine:
            self._lost()
            return False
        if not self.leads:
            self._looked = False
        self._mine, self._renewed = mine, monotonic
        if self._looked:
            self._leads_until = monotonic + (_LEADS_S - _RENEW_S)
        return True

    def _is_over(self, text: str, monotonic: float) -> bool:
        """Whether who stands there leads no more: it was one of this node, whose lock is ours now, or has not renewed it.

        That is measured here, as the clocks of two nodes may differ by more than a lead lasts.
        """
        if text != self._seen[0]:
            self._seen = text, monotonic
        return split_owner(text.partition(" ")[0])[0] == self.parts.node or monotonic - self._seen[1] >= _LEADS_S

    def _lost(self) -> None:
        self._mine, self._leads_until, self._looked = "", 0.0, False

    def _look_around(self) -> None:
        """What is not done: held by others, between attempts, in line. Raises StorageError.

        In this order: what moves meanwhile moves from the first two to the last.
        """
        self.return_ahead()
        self._lines.forget()
        for state, most in ((State.LEASED, _MOST_READY), (State.DELAYED, _MOST_READY), (State.READY, _MOST_READY)):
            cursor, seen = "", 0
            while seen < most:
                page = self.lane.storage.peek(self.name, state, cursor, 500)
                for found in page.jobs:
                    pushed_for_later = state is State.DELAYED and found.due_ms == found.first_due_ms
                    if found.attempts or not pushed_for_later:  # that one has no place yet
                        self._lies_elsewhere(found)
                cursor, seen = page.cursor, seen + len(page.jobs)
                if not cursor:
                    break
                gevent.sleep(0)
        self._looked = True
        self._leads_until = self._renewed + (_LEADS_S - _RENEW_S)
        self.parts.log.info("order_led", topic=self.name, owner=self._owner)
        self.pushed()

    def _lies_elsewhere(self, found: Stored) -> None:
        try:
            content = Job.decode(found.body).content
        except ValueError:  # it has no line; whoever leases it buries it
            return
        self._lines.lies_elsewhere(found.job_id, content)

    def _look_for_awaited(self) -> None:
        """Who was removed, or has died elsewhere, comes back no more; who was taken back from a dead worker is in line.

        A few at a time, in turn: most may be between two attempts for hours.
        """
        awaited = self._lines.awaited
        start = self._looks * _LOOKED_FOR % max(len(awaited), 1)
        self._looks += 1
        for job_id in (awaited[start:] + awaited[:start])[:_LOOKED_FOR]:
            found = self.lane.storage.find(job_id, (self.name,))
            if not found or found[0].state is State.DEAD:
                self._lines.gone(job_id)
                self.turn()
            elif found[0].state is State.READY and self._is_full:
                self._step_aside()
                break
        if awaited:
            self.pushed()

    def _step_aside(self) -> None:
        """It lies in line behind all that is held, and nothing more is leased: what is held goes behind it."""
        due_ms = self.parts.clock.now_ms() + _ASIDE_MS
        held = self._lines.take_all()
        self.lane.settle([Settle(self.name, one.job_id, Outcome.RETRY, due_ms, spent=False) for one in held])
        self.due.at(due_ms)
        self._may_hold_more = True
