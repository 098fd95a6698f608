"""Schedules: at its time each firing's jobs are pushed, once however many nodes look at it.

Floor 4. Every node's ticker looks at every schedule. Nothing is asked of a storage until one is due by this node's own clock;
then `schedule.state.change` decides, with the storage as the judge. A topic in another storage than the first follows the
record of the first: it gets the same jobs, with the same ids, under a record of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import gevent

from pepperbus.child import Child
from pepperbus.clock import Clock
from pepperbus.config.model import Config, Queue
from pepperbus.config.timing import Schedule
from pepperbus.errors import StorageError
from pepperbus.job import State as JobState
from pepperbus.names import split_topic
from pepperbus.schedule import state as record
from pepperbus.schedule.decide import Firing, decide
from pepperbus.schedule.state import Run, State
from pepperbus.storage import drains
from pepperbus.storage.contract import LEVELS, Push, Storage
from pepperbus.ticker.maker import Maker

_LOOK_S = 0.25
_SAY_AGAIN_S = 60.0
_AT_ONCE = 1  # due (ms): its record was not read yet
#: A storage that is new to a schedule gets the jobs of firings this young, not those of last week (ms).
_FOLLOWED_MS = 600_000


class Schedules:
    """All schedules of the configuration, as this node keeps them."""

    def __init__(
        self, child: Child, maker: Maker, clock: Clock, storages: Mapping[str, Storage], config: Callable[[], Config]
    ) -> None:
        self._node = child.config.bus.node
        self._log = child.log
        self._maker = maker
        self._clock = clock
        self._storages = storages
        self._config = config
        self._known: Config | None = None  # the configuration that `_due` is of
        self._due: dict[Schedule, int] = {}  # when to look at it next (ms); 0: never again
        self._soonest = 0  # of them
        self._left: dict[str, set[str]] = {}  # queue -> storages that it has, or had, topics in
        self._said: dict[str, tuple[str, float]] = {}
        self._missed: set[Schedule] = set()  # whose last firing pushed nothing although it should have
        self._behind: dict[Schedule, int] = {}  # up to which firing (ms) all storages have them; 0: all of them

    def run(self) -> None:
        """A greenlet's work."""
        while True:
            self.look()
            gevent.sleep(_LOOK_S)

    def look(self) -> None:
        """Everything that is due."""
        config, now_ms = self._config(), self._clock.now_ms()
        if config is not self._known:
            self._take(config)
        if not self._soonest or self._soonest > now_ms:
            return
        for schedule, due in self._due.items():
            queue = config.queues[schedule.queue]
            if due and due <= now_ms and all(name in self._storages for name in record.storages(queue)):
                try:
                    self._due[schedule] = self._fire(schedule, queue)
                    self._said.pop(schedule.full_name, None)
                except StorageError as error:
                    self._say(schedule, str(error))
                except Exception as error:  # one that cannot be kept must not keep the others
                    self._say(schedule, repr(error))
        self._soonest = min((due for due in self._due.values() if due), default=0)

    def _take(self, config: Config) -> None:
        """Another configuration. A queue whose jobs go elsewhere is looked at now: its schedules' records come along."""
        before = {name: record.storages(queue) for name, queue in self._known.queues.items()} if self._known else {}
        stayed = {name for name, queue in config.queues.items() if before.get(name) == record.storages(queue)}
        here = [one for queue in config.queues.values() for one in queue.schedule.values()]
        self._known, self._soonest = config, _AT_ONCE
        self._due = {one: self._due.get(one, _AT_ONCE) if one.queue in stayed else _AT_ONCE for one in here}
        left = {name: self._left.get(name, set()) | before.get(name, {}).keys() for name in {one.queue for one in here}}
        self._left = left  # a storage whose last topic was removed, or drained, may hold the record
        for drain in drains.read(config.bus.data_dir).values() if here else ():
            self._left.setdefault(split_topic(drain.topic)[0], set()).add(drain.source)

    def late(self) -> dict[str, float]:
        """queue/name of every schedule -> how late its last due run is (s): nobody decided it yet, or it was missed."""
        now_ms, queues = self._clock.now_ms(), self._config().queues
        found = {}
        for schedule, due in list(self._due.items()):
            queue = queues.get(schedule.queue)
            if queue is None or due == _AT_ONCE:  # nobody knows yet when it is due
                continue
            slot = due if due and due < now_ms - _LOOK_S * 4000 else self._missed_slot(schedule, queue)
            found[schedule.full_name] = (now_ms - slot) / 1000 if slot else 0.0
        return found

    def _missed_slot(self, schedule: Schedule, queue: Queue) -> int:
        if schedule not in self._missed:
            return 0
        try:
            name = next(iter(record.storages(queue)))
            state = record.read(self._storages[name].recall(record.key(schedule)))  # it may have been run by hand
        except (StorageError, LookupError):
            return 0
        slot = state.missed_slot
        if not slot:
            self._missed.discard(schedule)
        return slot

    def _say(self, schedule: Schedule, text: str, action: str = "schedule_waits") -> None:
        """Once a minute while it stays as it is."""
        about = schedule.full_name if action == "schedule_waits" else f"{schedule.full_name} {action}"
        told, at = self._said.get(about, ("", 0.0))
        now = self._clock.monotonic()
        if text != told or now - at >= _SAY_AGAIN_S:
            self._said[about] = text, now
            self._log.error(action, text, schedule=schedule.full_name)

    def _fire(self, schedule: Schedule, queue: Queue) -> int:
        """Decide what is due and push it. Returns when to look again (ms). Raises StorageError."""
        places = [(self._open(name, queue), topics) for name, topics in record.storages(queue).items()]
        (first, topics), others = places[0], places[1:]
        news: list[Run] = []
        lost = 0
        for name in self._left.get(queue.name, set()) - record.storages(queue).keys():
            if name in self._storages:
                record.bring(schedule, self._storages[name], first)

        def act(state: State) -> Sequence[Push] | None:
            nonlocal lost
            now_ms, before = self._clock.now_ms(), list(state.runs)
            state.behind = self._behind.get(schedule, state.behind) if others else 0
            is_running = lambda: self._is_running(state.last_ids, places)  # noqa: E731
            firings, changed = decide(schedule, state, now_ms, self._node, is_running)
            if not changed:
                return None
            if others and len(firings) > record.KEPT:  # more at once than the others could find in the record
                firings = firings[: record.KEPT]
                state.until = firings[-1].slot
            full = bool(firings) and self._is_full(queue, len(firings) * schedule.times)
            fired = self._runs(schedule, firings, now_ms, full) if firings else []
            lost = state.remember(*fired)
            news[:] = [run for run in state.runs if run not in before]
            return self._pushes(schedule, fired, topics)

        state, pushes = record.change(first, schedule, act)
        if pushes is not None:
            self._tell(schedule, news)
        (self._missed.add if state.missed_slot else self._missed.discard)(schedule)
        if pushes:
            self._maker.stored(queue, topics, len(pushes))
        if lost:
            text = "a storage of the queue was away for too long: its topics never get some firings of that time"
            self._say(schedule, text, "firings_lost")
        self._follow_all(schedule, queue, state, others)
        return schedule.timing.next(state.until)

    def _open(self, name: str, queue: Queue) -> Storage:
        storage = self._storages[name]
        if LEVELS.index(queue.durability) > LEVELS.index(storage.durability):
            raise StorageError(
                f"storage {name} gives durability {storage.durability}, the queue asks for {queue.durability}"
            )
        return storage

    def _is_running(self, ids: Sequence[int], places: Sequence[tuple[Storage, tuple[str, ...]]]) -> bool:
        return any(
            found.state is not JobState.DEAD
            for job_id in ids
            for storage, topics in places
            for found in storage.find(job_id, topics)
        )

    def _is_full(self, queue: Queue, jobs: int) -> bool:
        for topic in queue.takers:
            if topic.max_length:
                depth = self._storages[topic.storage].depth(topic.full_name)
                if depth.ready + depth.delayed + jobs > topic.max_length:
                    return True
        return False

    def _runs(self, schedule: Schedule, firings: Sequence[Firing], now_ms: int, full: bool) -> list[Run]:
        if full:
            return [Run(firings[-1].slot, now_ms, "full", count=len(firings), by=self._node)]
        ids = [str(one) for one in self._maker.ids(len(firings) * schedule.times)]
        size = schedule.times
        return [
            Run(slot, now_ms, "late" if late else "pushed", ids[i * size : (i + 1) * size], by=self._node)
            for i, (slot, late) in enumerate(firings)
        ]

    def _pushes(self, schedule: Schedule, runs: Sequence[Run], topics: tuple[str, ...]) -> list[Push]:
        """The jobs of `runs`. A random wait, or a gap, is a job for later: it survives whatever happens to this process."""
        pushes: list[Push] = []
        if not topics:  # all that lie in this storage are closed; others of the queue take them
            return pushes
        content = schedule.payload.encode()
        for run in runs:
            ids = [int(one) for one in run.ids]
            bodies = self._maker.bodies(ids, [content] * len(ids), f"schedule:{schedule.name}")
            start_ms = run.slot if run.what == "pushed" else run.at
            start_ms += int(random.uniform(0, schedule.jitter) * 1000)
            for i, (job_id, body) in enumerate(zip(ids, bodies, strict=True)):
                due_ms = start_ms + int(i * schedule.gap * 1000)
                pushes.append(Push(job_id, body, topics, due_ms if due_ms > run.at else 0))
        return pushes

    def _follow_all(
        self, schedule: Schedule, queue: Queue, leader: State, others: Sequence[tuple[Storage, tuple[str, ...]]]
    ) -> None:
        """What the others lack is remembered until they have it. Raises StorageError when one of them is away."""
        oldest = min((run.slot for run in leader.runs), default=leader.until) - 1  # what is known at all is kept
        self._behind[schedule] = self._behind.get(schedule) or leader.behind or oldest
        for storage, names in others:
            self._follow(schedule, queue, leader, storage, names)
        self._behind[schedule] = 0

    def _follow(
        self, schedule: Schedule, queue: Queue, leader: State, storage: Storage, topics: tuple[str, ...]
    ) -> None:
        """What the first storage decided, for the topics that lie in another one."""

        def act(state: State) -> Sequence[Push] | None:
            if state.until >= leader.until and state.timing == leader.timing:
                return None
            since = state.until if state.timing else self._clock.now_ms() - _FOLLOWED_MS
            state.until, state.timing = leader.until, leader.timing
            runs = [run for run in reversed(leader.runs) if run.slot > since and run.what in ("pushed", "late")]
            return self._pushes(schedule, runs, topics)

        _, pushes = record.change(storage, schedule, act)
        if pushes:
            self._maker.stored(queue, topics, len(pushes))

    def _tell(self, schedule: Schedule, runs: Sequence[Run]) -> None:
        name = schedule.full_name
        for run in runs:
            if run.ids:
                self._log.info("schedule_fired", schedule=name, slot=run.slot, job=run.ids[0])
            elif run.what in ("missed", "full"):
                self._log.warning("schedule_missed", schedule=name, slot=run.slot, count=run.count, why=run.what)
            elif run.what != "paused":
                self._log.info("schedule_skipped", schedule=name, slot=run.slot, count=run.count, why=run.what)
