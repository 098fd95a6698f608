"""Replays carried out: jobs moved at their rate, what becomes of them followed, stages ended. Floor 4.

One greenlet a replay, as long as jobs are to be moved or fates are open. Everything that must outlive this process is in the
store before it matters: a ticker that is killed loses its rate's credit and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gevent

from pepperbus.clock import Clock
from pepperbus.config.model import Config
from pepperbus.errors import NotFound, PepperbusError, StorageError, StorageUnavailable
from pepperbus.journal import since
from pepperbus.journal.contract import JournalWriter, Row
from pepperbus.journal.finished import Finished
from pepperbus.journal.reader import Reader
from pepperbus.log import Log
from pepperbus.replay.model import ENOUGH, MOVING, Fate, Item, Phase, Replay, State
from pepperbus.replay.store import FOLLOWED_MS, Replays
from pepperbus.storage.contract import Storage
from pepperbus.ticker import replay_moves as moves
from pepperbus.ticker.replay_plans import plan_on
from pepperbus.ticker.replay_second import Second

_LOOK_S = 0.5  # for replays that began
#: Between two turns: while portions are whole and nothing holds them back; while something does; with fates only to hear of.
_AT_ONCE_S, _TURN_S, _QUIET_S = 0.005, 0.1, 1.0
_BATCH = 1000
_WATCHED = 100  # with `stop_at_errors`: so many jobs of unknown fate at most, or a tenth of those known
#: A fate that the journal has not told for so long is asked of the storage, a few at a time: the job may run on another node.
_ASK_AFTER_MS, _ASK_EVERY_S, _ASK = 10_000, 5.0, 100
_FINAL = (Fate.SUCCEEDED, Fate.FAILED, Fate.REMOVED)
_SAID = {"done": Fate.SUCCEEDED, "retry": Fate.FAILING, "dead": Fate.FAILED}


@dataclass
class Parts:
    """What the replays of a node need. `wake`: tell the workers that a topic has new jobs."""

    config: Callable[[], Config]
    storages: dict[str, Storage]
    journal: JournalWriter
    clock: Clock
    log: Log
    wake: Callable[[str], None]

    @property
    def data_dir(self) -> Path:
        return self.config().bus.data_dir

    def holder(self, topic: str) -> Storage:
        """Where the topic's jobs lie, also one that is in no configuration any more. Raises StorageUnavailable."""
        known = self.config().topic(topic)
        if known is not None and known.storage in self.storages:
            return self.storages[known.storage]
        for storage in self.storages.values() if known is None else ():
            if topic in storage.topics():
                return storage
        raise StorageUnavailable(f"the storage of {topic} is not open")


def carry_out(parts: Parts) -> None:
    """For ever: see which replays there are to carry out, and give each its greenlet."""
    store = Replays(parts.data_dir)
    running: dict[int, gevent.Greenlet] = {}
    try:
        while True:
            try:
                for number in store.live(parts.clock.now_ms()):
                    if number not in running or running[number].ready():
                        running[number] = gevent.spawn(Runner(parts, store, number).run)
            except Exception as error:  # the file is locked or broken: the next look may be better
                parts.log.error("replays_failed", repr(error))
            running = {number: one for number, one in running.items() if not one.ready()}
            gevent.sleep(_LOOK_S)
    finally:
        gevent.killall(list(running.values()))


class Runner:
    """One replay, from wherever it stands to its end."""

    def __init__(self, parts: Parts, store: Replays, number: int) -> None:
        self._parts = parts
        self._store = store
        self._number = number
        self._open: dict[int, Item] = {}  # replayed jobs whose fate is not final
        self._left: set[int] = set()  # jobs that were in the storage no more at the last look
        self._credit, self._credit_at = 1.0, time.monotonic()
        self._asked_at = time.monotonic()
        self._recovered = False
        self._trouble = ""

    def run(self) -> None:
        """Until nothing is left to do, or to hear of."""
        while True:
            try:
                wait = self.turn()
                self._trouble = ""
            except NotFound:
                return
            except Exception as error:  # a storage that is away comes back, and then all goes on where it was
                text = str(error) if isinstance(error, PepperbusError) else repr(error)
                if text != self._trouble:
                    self._parts.log.warning("replay_waits", text, replay=self._number)
                self._trouble, self._recovered, wait = text, False, _QUIET_S
            if wait <= 0:
                return
            gevent.sleep(wait)

    def turn(self) -> float:
        """Hear what became of jobs, then move some. Seconds until the next turn is wanted; 0: none is."""
        replay = self._store.get(self._number)
        storage = self._parts.holder(replay.topic)
        if replay.state is State.PLANNING:
            plan_on(self._store, replay, storage, self._parts.data_dir, self._parts.clock.now_ms())
            return _AT_ONCE_S
        if not self._recovered:
            replay = self._recover(replay, storage)
            self._recovered = True
        replay = self._learn(replay, storage)
        if replay.state in (*MOVING, State.WAITING) and (why := replay.over_limit()):
            replay = self._end(State.STOPPED, why)
        if replay.state in MOVING and (why := self._refused(replay)):
            replay = self._end(State.STOPPED, why)
        if replay.state in MOVING:
            replay = self._advance(replay, storage)
        if replay.state in MOVING:
            return _TURN_S if replay.rate or replay.stop_at_errors else _AT_ONCE_S
        followed = self._parts.clock.now_ms() - replay.changed_ms < FOLLOWED_MS
        return _QUIET_S if self._open and followed else 0.0

    # -- moving ------------------------------------------------------------------------------------------------------

    def _advance(self, replay: Replay, storage: Storage) -> Replay:
        most = self._allowance(replay)
        below = replay.gray if replay.state is State.GRAY else -1
        phases = [Phase.NEW] if replay.state is State.GRAY else [Phase.NEW, Phase.BACK]
        items = self._store.items(self._number, phases, max(most, 1), below)
        if not items:
            return self._ended(replay)
        if most <= 0:
            return replay
        moves.prepare(replay, storage, items, self._parts.clock.now_ms())
        if not self._store.intend(self._number, items):
            return self._store.get(self._number)  # somebody paused it this moment
        going = [item for item in items if item.phase is Phase.MOVING]
        self._credit -= len(going)
        if going and replay.state is State.GRAY and replay.canary:
            self._try_second(replay, storage, going)
        elif going:
            moves.move(replay, storage, going, Finished(self._parts.data_dir), self._parts.clock.now_ms())
            self._tell(replay, [item for item in going if item.phase is Phase.MOVING])
        return self._settle(items)

    def _refused(self, replay: Replay) -> str:
        """Why none may move: finished jobs would be new ones of a topic that takes none any more."""
        closed = replay.source == moves.FINISHED and not self._parts.config().takes(replay.topic)
        return f"{replay.topic} takes no new jobs" if closed else ""

    def _try_second(self, replay: Replay, storage: Storage, items: list[Item]) -> None:
        second = Second(self._parts.config(), replay.topic, self._parts.journal, self._parts.clock.now_ms)
        try:
            second.run(replay, storage, items)
        finally:
            second.close()

    def _allowance(self, replay: Replay) -> int:
        """How many jobs may move now: what the rate allows, and not more unknown fates than one cares to risk."""
        now = time.monotonic()
        most = _BATCH
        if replay.rate:
            self._credit = min(self._credit + (now - self._credit_at) * replay.rate, max(1.0, replay.rate))
            most = min(most, int(self._credit))
        self._credit_at = now
        if replay.stop_at_errors:
            room = max(_WATCHED, replay.known // 10) - replay.unknown
            most = min(most, room, ENOUGH if replay.known < ENOUGH else room)
        return most

    def _ended(self, replay: Replay) -> Replay:
        """Nothing is left of this stage."""
        left = replay.state is State.GRAY and self._store.items(self._number, [Phase.NEW, Phase.BACK], 1)
        return self._end(State.WAITING if left else State.DONE, "")

    def _end(self, state: State, why: str) -> Replay:
        replay = self._store.turn(self._number, state, why, self._parts.clock.now_ms())
        self._parts.log.info("replay_turned", why, replay=self._number, topic=replay.topic, state=state)
        return replay

    def _settle(self, items: list[Item]) -> Replay:
        """What was about to move has moved."""
        for item in items:
            if item.phase is Phase.MOVING:
                item.phase = Phase.MOVED
            if item.phase is Phase.MOVED and item.fate in (Fate.OPEN, Fate.FAILING):
                self._open[item.job_id] = item
        return self._store.settle(self._number, items, self._parts.clock.now_ms())

    def _tell(self, replay: Replay, items: list[Item]) -> None:
        """The jobs' own histories say it too; and the workers hear that there is work."""
        node, now_ms = self._parts.config().bus.node, self._parts.clock.now_ms()
        for item in items:
            reason = f"replay {self._number}, planned by {replay.by}"
            row = Row("replayed", item.job_id, replay.topic, now_ms, node=node, process="ticker", reason=reason)
            self._parts.journal.add(row)
        self._parts.journal.flush()
        self._parts.wake(replay.topic)

    def _recover(self, replay: Replay, storage: Storage) -> Replay:
        """What an earlier ticker had begun and not noted: find out whether it happened."""
        begun = self._store.items(self._number, [Phase.MOVING])
        reader = Reader(self._parts.data_dir / "journal.db", self._parts.data_dir / "journal")
        for item in begun:
            moved = moves.has_moved(replay, storage, item, reader)
            if replay.canary and not replay.rest:  # done there it is gone; else it may have run, and runs with the rest
                item.phase, item.fate = (Phase.MOVED, Fate.SUCCEEDED) if moved else (Phase.BACK, Fate.FAILED)
            elif not moved:
                item.phase = Phase.NEW
            elif not moves.is_told(replay, reader, item):
                self._tell(replay, [item])
        if begun:
            replay = self._settle(begun)
        self._open = {item.job_id: item for item in self._store.open_items(self._number)}
        return replay

    # -- fates -------------------------------------------------------------------------------------------------------

    def _learn(self, replay: Replay, storage: Storage) -> Replay:
        """What the journal has told since the last turn, and now and then what the storage knows."""
        if not self._open:
            return replay
        database, pool = self._parts.data_dir / "journal.db", gevent.get_hub().threadpool
        rows, position = pool.apply(since.rows, (database, replay.topic, replay.position))
        changed: dict[int, Item] = {}
        for row in rows:
            item = self._open.get(row.job_id)
            fate = (
                Fate.REMOVED if row.event == "removed" else _SAID.get("done" if row.event == "popped" else row.outcome)
            )
            if item is not None and fate is not None and row.at_ms >= item.at_ms:
                self._found(item, fate, changed)
        if time.monotonic() - self._asked_at > _ASK_EVERY_S:
            self._asked_at = time.monotonic()
            self._ask(replay, storage, changed)
        if changed or position - replay.position > 5000:
            return self._store.settle(self._number, list(changed.values()), self._parts.clock.now_ms(), position)
        return replay

    def _found(self, item: Item, fate: Fate, changed: dict[int, Item]) -> None:
        if fate is item.fate:
            return
        item.fate = fate
        changed[item.number] = item
        if fate in _FINAL:
            self._open.pop(item.job_id, None)

    def _ask(self, replay: Replay, storage: Storage, changed: dict[int, Item]) -> None:
        """Jobs run on other nodes too, whose journals lie there: whatever left the storage without a word was done."""
        old = self._parts.clock.now_ms() - _ASK_AFTER_MS
        silent = [item for item in self._open.values() if item.at_ms < old][:_ASK]
        for item in silent:
            try:
                fate = moves.fate_in(replay, storage, item)
            except StorageError:
                return
            if fate is None and item.job_id not in self._left:
                self._left.add(item.job_id)  # its row may be on the way: believed at the next look
                continue
            self._left.discard(item.job_id)
            self._found(item, Fate.SUCCEEDED if fate is None else fate, changed)
            if item.job_id in self._open:  # the next look begins with others
                self._open[item.job_id] = self._open.pop(item.job_id)
