"""Moves what lies in a topic's old storage into its new one, in small steps, each safe at any moment. Floor 4.

Ready jobs are leased before they are copied, so that no worker of the old configuration starts them meanwhile. Delayed ones
stay where they are when they are due soon, and go as ready ones then; dead ones nobody takes.
The ids of a step become a text of the new storage in the same transaction that stores the jobs (`Storage.swap`): a ticker that
died between copying and removing finds there what was copied, and removes it, whatever has become of the jobs since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gevent
import msgspec

from pepperbus.clock import Clock
from pepperbus.config.model import Config
from pepperbus.config.sameness import Rule, rules
from pepperbus.errors import PepperbusError, StorageError
from pepperbus.family import beats
from pepperbus.job import Job, State
from pepperbus.log import Log
from pepperbus.names import split_owner
from pepperbus.storage import drains
from pepperbus.storage.contract import Claim, Leased, Outcome, Past, Push, Settle, Storage, Stored
from pepperbus.storage.drains import Drain

_STEP = 100
_BUSY_S, _IDLE_S = 0.01, 1.0
#: So long (ms) after it began a drain is not over, however empty the old storage: gateways take a reload one by one, and one
#: that stood still pushes by the old configuration when it goes on, unless it was ended for that.
_LEAST_MS = int(beats.LIMIT_S * 1000) + 3_000
#: A worker that has not been reloaded yet may start a delayed job once it is due: only those that are due later than a step
#: takes, at the slowest storage and by any node's clock (ms), are copied as they lie.
_SOON_MS = 30_000
_NOTE_EVERY = 20  # steps between two notes of how far it is


class Wrong(PepperbusError):
    """The drain cannot go on as things are."""


class Drains:
    """The ticker's. Storages are those it has open."""

    def __init__(
        self,
        config: Callable[[], Config],
        storages: Mapping[str, Storage],
        clock: Clock,
        log: Log,
        owner: str,
        wake: Callable[[str], None],
    ) -> None:
        self._config, self._storages, self._clock, self._log = config, storages, clock, log
        self._owner, self._wake = owner, wake
        self._movers: dict[tuple[str, int], Mover] = {}
        self._said: dict[str, str] = {}  # topic -> what was said of a step that failed

    def sources(self) -> set[str]:
        """Storages that no topic may name any more, and that are still needed."""
        return {one.source for one in self._moving()}

    def run(self) -> None:
        while True:
            try:
                moved = self.round()
            except OSError as error:  # the record cannot be read at the moment
                self._log.error("drain_stands", str(error))
                moved = 0
            gevent.sleep(_BUSY_S if moved else _IDLE_S)

    def round(self) -> int:
        """One step of every drain; how many jobs moved."""
        return sum(self._tried(drain) for drain in self._moving())

    def _tried(self, drain: Drain) -> int:
        """A step; what nobody foresaw (a full disk under the record, a bug) ends neither this drain nor the others."""
        try:
            moved = self._step(drain)
        except Exception as error:
            self._movers.pop((drain.topic, drain.since_ms), None)
            if self._said.get(drain.topic) != (text := repr(error)):
                self._said[drain.topic] = text
                self._log.error("drain_stands", text, topic=drain.topic)
            return 0
        self._said.pop(drain.topic, None)
        return moved

    def _moving(self) -> list[Drain]:
        return [one for one in drains.read(self._config().bus.data_dir).values() if one.state == "moving"]

    def _step(self, drain: Drain) -> int:
        try:
            mover = self._mover(drain)
            moved = mover.step()
        except (StorageError, Wrong) as error:
            self._movers.pop((drain.topic, drain.since_ms), None)  # what is known of the last step is asked anew
            if str(error) != drain.trouble:
                self._log.warning("drain_stands", str(error), topic=drain.topic)
                self._note(drain, trouble=str(error))
            return 0
        if moved:
            self._wake(drain.topic)
        over = not moved and not mover.left and self._clock.now_ms() - drain.since_ms > _LEAST_MS
        if over:
            mover.end()
            self._note(drain, trouble="", moved=mover.taken(), left=0, state="done", ended_ms=self._clock.now_ms())
            self._log.info("drain_done", topic=drain.topic, source=drain.source, target=drain.target)
        elif mover.steps % _NOTE_EVERY == 1 or drain.trouble or (not moved and drain.left != mover.left):
            self._note(drain, trouble="", moved=mover.taken(), left=mover.left)
        return moved

    def _mover(self, drain: Drain) -> Mover:
        topic = self._config().topic(drain.topic)
        if topic is None or topic.storage != drain.target:
            named = f"names {topic.storage}" if topic else "is gone"
            raise Wrong(f"{drain.topic} was to move to {drain.target}, but its file {named}")
        for name in (drain.source, drain.target):
            if name not in self._storages:
                raise Wrong(f"storage {name} is not open")
        key = drain.topic, drain.since_ms
        if key not in self._movers:
            places = self._storages[drain.source], self._storages[drain.target]
            self._movers[key] = Mover(drain, *places, self._owner, self._clock)
        mover = self._movers[key]
        mover.rule = next(iter(rules(self._config().queues[topic.queue], [drain.topic])), None)
        return mover

    def _note(self, drain: Drain, moved: int = 0, **facts: object) -> None:
        def change(known: dict[str, Drain]) -> None:
            mine = known.get(drain.topic)
            if mine is not None and mine.since_ms == drain.since_ms:
                known[drain.topic] = msgspec.structs.replace(mine, moved=mine.moved + moved, **facts)

        drains.update(self._config().bus.data_dir, change)


class Mover:
    """One topic's way from `source` to `target`. Steps raise StorageError; the next one begins where things stand."""

    def __init__(self, drain: Drain, source: Storage, target: Storage, owner: str, clock: Clock) -> None:
        self.topic, self.steps, self.left = drain.topic, 0, 0
        self.rule: Rule | None = None  # the topic's `unique`, as the target knows it
        self._clock = clock
        self._source, self._target, self._owner = source, target, owner
        self._name = f"drain:{drain.topic}:{drain.since_ms}"
        self._taken = 0
        self._last = target.recall(self._name)
        self._remove(
            _ids_of(self._last)
        )  # before the rest of a broken step is given back: nobody may find these in line
        self._release()

    def taken(self) -> int:
        """How many moved since this was asked last."""
        taken, self._taken = self._taken, 0
        return taken

    def step(self) -> int:
        """Move some jobs; how many. 0: there are none to move now, `left` says how many are still with workers."""
        self.steps += 1
        self._source.promote(self.topic, self._clock.now_ms())
        for take in (self._ready, self._delayed, self._dead):
            if batch := take():
                self._store(batch)
                self._remove([push.job_id for push in batch])
                self._taken += len(batch)
                self.left = sum(self._source.depth(self.topic)[:4])
                return len(batch)
        self.left = sum(self._source.depth(self.topic)[:4])
        return 0

    def end(self) -> None:
        """Nothing is left, so nothing needs to be remembered."""
        self._target.swap(self._name, self._last, "")

    def _store(self, batch: list[Push]) -> None:
        text = f"{self.steps}:{self._owner}:" + ",".join(str(push.job_id) for push in batch)
        claims = [claim for push in batch if (claim := self._claim(push)) is not None]
        if self._target.swap(self._name, self._last, text, batch, claims) != text:
            raise Wrong(f"{self.topic}: another node drains it too")
        self._last = text

    def _claim(self, push: Push) -> Claim | None:
        """What makes the job the only one of its kind comes with it; the dead hold nothing."""
        if self.rule is None or push.dead:
            return None
        try:
            job = Job.decode(push.body)
        except ValueError:
            return None
        left_ms = self.rule.ttl_ms - (0 if self.rule.alive else self._clock.now_ms() - job.accepted_ms)
        name = self.rule.name(job.content)
        return Claim(name, job.id, left_ms) if name and left_ms > 0 else None

    def _remove(self, ids: list[int]) -> None:
        if ids:
            self._source.remove(self.topic, ids)
            self._source.settle(self._owner, [Settle(self.topic, job_id, Outcome.DONE) for job_id in ids])

    def _ready(self) -> list[Push]:
        return [_from_lease(one) for one in self._source.lease(self.topic, _STEP, self._owner)]

    def _delayed(self) -> list[Push]:
        later, cursor = self._clock.now_ms() + _SOON_MS, ""
        while True:
            page = self._source.peek(self.topic, State.DELAYED, cursor, _STEP)
            found = [_from_stored(one) for one in page.jobs if one.due_ms > later]
            if found or not page.cursor:
                return found
            cursor = page.cursor
            gevent.sleep(0)  # many may be due soon, and an embedded storage answers at once

    def _dead(self) -> list[Push]:
        return [_from_stored(one) for one in self._source.peek(self.topic, State.DEAD, "", _STEP).jobs]

    def _release(self) -> None:
        """What a ticker before us had leased to move it never ran: it must not count as a crash."""
        node, name, _ = split_owner(self._owner)
        for owner in self._source.owners():
            if owner != self._owner and split_owner(owner)[:2] == (node, name):
                self._source.release(owner, frozenset())
        held = self._source.peek(self.topic, State.LEASED, "", 10 * _STEP).jobs
        mine = [Settle(self.topic, one.job_id, Outcome.BACK, spent=False) for one in held if one.owner == self._owner]
        if mine:  # a step of ours that failed
            self._source.settle(self._owner, mine)


def _from_lease(job: Leased) -> Push:
    past = Past(job.attempt - 1, job.crashes, job.first_due_ms)
    return Push(job.job_id, job.body, (job.topic,), past=past if any(past) else None)


def _from_stored(job: Stored) -> Push:
    past = Past(job.attempts, job.crashes, job.first_due_ms)
    dead = (job.reason or "died before it was moved here") if job.state is State.DEAD else ""
    return Push(
        job.job_id, job.body, (job.topic,), 0 if dead else job.due_ms, dead=dead, past=past if any(past) else None
    )


def _ids_of(text: str) -> list[int]:
    return [int(word) for word in text.rpartition(":")[2].split(",") if word]
