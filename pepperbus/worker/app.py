"""One worker process: its storages, its pumps, its timers. Floor 4: back ends come through the two factories.

Starting is a list (storages, leases of predecessors, pumps, watches), stopping is another, in the order that loses
nothing: take nothing new, give back what was not begun, wait for what runs, store every outcome, leave.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from pepperbus.child import Child
from pepperbus.clock import SystemClock
from pepperbus.config.model import Queue, Topic
from pepperbus.delivery import make_consumer, make_staff
from pepperbus.delivery.contract import Consumer, Staff
from pepperbus.delivery.paced import paced_target
from pepperbus.delivery.scaled import how_many
from pepperbus.errors import BootError, StorageError, StorageRefused
from pepperbus.family.bell import Bell, Ear
from pepperbus.ids import IdGenerator
from pepperbus.journal.contract import JournalWriter
from pepperbus.journal.fields import Indexing
from pepperbus.journal.finished import Keeping
from pepperbus.journal.log import LogWriter
from pepperbus.names import split_owner, split_topic
from pepperbus.stats import Writer
from pepperbus.storage import open_storage
from pepperbus.storage.contract import LEVELS, Storage
from pepperbus.worker.attempt import Parts
from pepperbus.worker.attendance import Attendance
from pepperbus.worker.canary import beside
from pepperbus.worker.inflight import InFlight
from pepperbus.worker.lane import Lane
from pepperbus.worker.ordered import OrderedPump
from pepperbus.worker.places import Places
from pepperbus.worker.pump import Pump
from pepperbus.worker.reclaim import take_back
from pepperbus.worker.staff import Staffs

_SWEEP_S = 0.5
_STOPPED = 3  # the `state` gauge of a topic that a person must look after
_ASK_AGAIN_S = 2.0  # a storage that was too weak may have been set up better
#: Besides its own timer, every topic's delayed jobs are looked at every _SWEEP_S * this; but not more than so many at once.
_DUE_SLICE, _DUE_MOST = 20, 20
#: And so many topics at most are looked at for wakes that got lost, whenever a storage asks for that.
_LOOK_MOST = 200


class Worker:
    """Serves the queues of one group until it is told to drain."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.clock = SystemClock()
        config = child.config
        self._run_dir = config.bus.run_dir
        self._queues: list[Queue] = config.groups().get(child.group, [])
        self._storages: dict[str, Storage] = {}
        self._lanes: dict[str, Lane] = {}
        self._pumps: list[Pump] = []
        self._by_queue: dict[str, list[Pump]] = {}
        self._bell = Bell(self._run_dir)
        self._ear = Ear(self._bell, [queue.name for queue in self._queues])
        self._places = Places(config, self._run_dir / "targets" / child.bus_boot)
        self._consumers: list[Consumer] = []
        self._staffs = Staffs(self._run_dir, self._places.directory, child.log)
        self._stats = Writer(self._run_dir / "stats", child.name)
        self._inflight = InFlight(self._run_dir, child.owner)
        self.journal = LogWriter(config.bus.data_dir / "journal", child.name, config.journal.content)
        self._parts = Parts(
            config.bus.node,
            f"{config.bus.node}/{child.name}",
            self.clock,
            IdGenerator(config.bus.shard, 15, self.clock.now_ms),
            self._inflight,
            self.journal,
            child.log,
        )
        self._indexing_parts = replace(self._parts, journal=Indexing(self.journal, config))
        self._keeping: dict[int, Keeping] = {}  # by the journal behind it
        self._leaving = Event()
        self._leave_by = float("inf")  # monotonic s; a later, shorter grace wins
        self._asking_paused: set[str] = set()
        self._attendance = Attendance(child.log, self.clock)
        self._refused: dict[str, str] = {}  # topics that are not fed, and why
        self._turns = 0
        self._next_look = 0
        self._watcher: Any = None

    # -- starting --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Everything from start to the last settled job."""
        self.child.on_drain = self._on_drain
        self.child.on_command = self._on_command
        self.child.title = self._title
        self.child.start()
        topics = [
            topic for queue in self._queues for topic in queue.topics.values() if self.child.config.consumes(topic)
        ]
        self._staffs.end_leftovers()
        for topic in topics:
            if topic.kept:
                staff = make_staff(topic, self.child.config)
                self._staffs.employ(topic, staff, how_many(self._places.of(topic)[1]))
        gevent.spawn(self._open_all, [topic for topic in topics if not topic.kept])
        self._watch_wakes()
        gevent.spawn(self._sweep_loop)
        self._leaving.wait()
        self._leave()

    def _open_all(self, topics: list[Topic]) -> None:
        """Each storage is opened on its own: one that is down keeps only its own topics waiting."""
        for name in dict.fromkeys(topic.storage for topic in topics):
            gevent.spawn(self._open_one, name, [topic for topic in topics if topic.storage == name])

    def _open_one(self, name: str, topics: list[Topic]) -> None:
        storage = open_storage(self.child.config.storages[name], self.clock, self.child.log)
        wait = 0.1
        while not self._leaving.is_set():
            try:
                storage.open()
                self._take_back_own(storage)
                break
            except Exception as error:  # refused, away, or a bug of an engine: all may be better next time
                known = isinstance(error, StorageError | StorageRefused)
                self.child.log.warning("storage_closed", str(error) if known else repr(error), storage=name)
                gevent.sleep(wait)
                wait = min(2.0, wait * 2)
        if self._leaving.is_set():  # opened too late: nothing must be leased any more
            storage.close()
            return
        lane = Lane(
            storage,
            self.child.owner,
            self._inflight,
            self.child.log,
            self._turn_all,
            self._wake_others,
            self._flush_journals if any(queue.history for queue in self._queues) else self.journal.flush,
        )
        self._storages[name], self._lanes[name] = storage, lane
        self._ask_paused(lane)
        storage.watch([topic.full_name for topic in topics], self._on_wake)
        self._add_pumps(topics, lane)

    def _add_pumps(self, topics: list[Topic], lane: Lane) -> None:
        """Feed the topics whose queue gets the durability it asks for; the others as soon as the engine's settings say so."""
        while topics and not self._leaving.is_set():
            lacking = []
            for topic in topics:
                text = self._too_weak(topic, lane.storage)
                if text:
                    self._refuse(topic, text)
                    lacking.append(topic)
                else:
                    self._refused.pop(topic.full_name, None)
                    self._add_pump(topic, lane)
                    gevent.sleep(0)  # 1,000 topics take seconds on a busy machine; the heart must beat meanwhile
                    if self._leaving.is_set():
                        return
            topics = lacking
            if not topics or self._leaving.wait(_ASK_AGAIN_S):
                return
            try:
                lane.storage.open()
            except (StorageError, StorageRefused):
                pass  # what it gave before stays true until it answers

    def _too_weak(self, topic: Topic, storage: Storage) -> str:
        wanted = self.child.config.queues[topic.queue].durability
        if LEVELS.index(wanted) <= LEVELS.index(storage.durability):
            return ""
        lines = "; ".join(storage.advice(wanted).splitlines())
        return f"queue asks for durability = {wanted}, storage {storage.name} gives {storage.durability}: {lines}"

    def _refuse(self, topic: Topic, text: str) -> None:
        if topic.full_name not in self._refused:
            self._refused[topic.full_name] = text
            self._stats.record(topic.full_name).set("state", _STOPPED)
            self.child.log.error("durability_refused", text, topic=topic.full_name)

    def _take_back_own(self, storage: Storage) -> None:
        """Leases of this slot's earlier incarnations: they are dead, or this process would not have been started."""
        mine = split_owner(self.child.owner)

        def dead(owner: str) -> bool:
            node, name, _ = split_owner(owner)
            return (node, name) == mine[:2] and owner != self.child.owner

        take_back(storage, dead, self._run_dir, self.journal, self.child.log, self.clock)

    def _add_pump(self, topic: Topic, lane: Lane) -> None:
        consumer = make_consumer(topic, self.child.config)
        pool, own = self._places.of(topic)
        target = paced_target(topic, pool, own)
        target.serves(f"{consumer.address} {topic.script}")
        record = self._stats.record(topic.full_name)
        record.set("window", min(pool.window, own.window))
        indexed = bool(self.child.config.queues[topic.queue].index)
        parts = self._indexing_parts if indexed else self._parts
        if self.child.config.queues[topic.queue].history:
            parts = replace(parts, journal=self._keep_finished(parts.journal))
        if topic.canary is not None:
            consumer = beside(consumer, topic, self.child.config, self._places.pool, self._stats.record, parts)
        of = (topic, lane, target, consumer, record, self.child.owner, parts)
        pump = OrderedPump(*of, lock=self._order_lock(topic)) if topic.order_by else Pump(*of)
        self._consumers.append(consumer)
        if isinstance(consumer, Staff):
            self._staffs.employ(topic, consumer, lambda: topic.least or topic.concurrency)
        self._pumps.append(pump)
        self._by_queue.setdefault(topic.queue, []).append(pump)
        self._set_paused_by_file(topic, lane)
        self._attendance.look(pump)
        pump.wake()

    def _keep_finished(self, journal: JournalWriter) -> JournalWriter:
        return self._keeping.setdefault(id(journal), Keeping(journal, self.child.config, self.child.name))

    def _flush_journals(self) -> None:
        self.journal.flush()
        for keeping in self._keeping.values():
            keeping.flush()

    def _order_lock(self, topic: Topic) -> Path:
        return self._places.directory / f"order-{topic.queue}~{topic.name}"

    def _set_paused_by_file(self, topic: Topic, lane: Lane) -> None:
        if self._rests(topic):
            lane.paused.add(topic.full_name)

    def _rests(self, topic: Topic) -> bool:
        """Its file says that it is not fed, always or at this hour."""
        return topic.paused or (topic.quiet is not None and topic.quiet.now(self.clock.now_ms()))

    # -- waking ----------------------------------------------------------------------------------------------------

    def _watch_wakes(self) -> None:
        wake_fd = self.child.wakes.get(self.child.group)
        if wake_fd is not None:
            self._watcher = gevent.get_hub().loop.io(wake_fd, 1)
            self._watcher.start(self._on_eventfd, wake_fd)

    def _wake_others(self, queues: set[str]) -> None:
        """What this worker gave back is not announced by a push: the others of the group must look."""
        for queue in queues:
            self._bell.ring(queue)
        wake_fd = self.child.wakes.get(self.child.group)
        if wake_fd is not None:
            try:
                os.eventfd_write(wake_fd, 1)
            except OSError:
                pass  # so full that they are awake

    def _on_eventfd(self, wake_fd: int) -> None:
        try:
            os.eventfd_read(wake_fd)
        except BlockingIOError:
            pass  # another worker of the group was quicker; the jobs may still be more than it takes
        for queue in self._ear.rung():
            for pump in self._by_queue.get(queue, ()):
                pump.pushed()

    def _on_wake(self, name: str) -> None:
        """A storage's word: a push to topic `name` on another node; "" when one may have gone unheard (every second)."""
        if name:
            for pump in self._by_queue.get(split_topic(name)[0], ()):
                if pump.name == name:
                    pump.pushed()
            return
        for _ in range(min(_LOOK_MOST, len(self._pumps))):
            self._next_look = (self._next_look + 1) % len(self._pumps)
            self._pumps[self._next_look].pushed()

    def _turn_all(self) -> None:
        for pump in self._pumps:
            pump.turn()

    def _sweep_loop(self) -> None:
        """What no event announces: closed targets, lost wakes, due jobs of other nodes, pauses, idle places."""
        while True:
            gevent.sleep(_SWEEP_S)
            self._turns += 1
            try:
                self._sweep()
            except Exception as error:  # without the sweep nothing that is closed ever opens again
                self.child.log.error("sweep_failed", repr(error))

    def _sweep(self) -> None:
        if self._turns % 2 == 0:
            for lane in self._lanes.values():
                gevent.spawn(self._see_paused, lane)  # one storage that hangs must not hold up the others' topics
        slices = max(_DUE_SLICE, len(self._pumps) // _DUE_MOST)
        for number, pump in enumerate(self._pumps):
            due = number % slices == self._turns % slices
            if due or not pump.resting:  # of 1,000 queues nearly all rest; looking closely at each cost 5 % of a core
                self._attendance.look(pump)
            if due:
                pump.pushed()
        self._places.cool()

    def _see_paused(self, lane: Lane) -> None:
        if lane.storage.name in self._asking_paused:
            return
        self._asking_paused.add(lane.storage.name)
        try:
            self._ask_paused(lane)
        finally:
            self._asking_paused.discard(lane.storage.name)

    def _ask_paused(self, lane: Lane) -> None:
        try:
            paused = lane.storage.paused()
        except StorageError:
            return  # what was known stays true until the storage says otherwise
        files = {pump.name for pump in self._pumps if self._rests(pump.topic)}
        resumed = lane.paused - paused - files
        lane.paused = paused | files
        for pump in self._pumps:
            if pump.name in resumed:
                pump.wake()
            elif pump.name in lane.paused:
                pump.return_ahead()

    # -- asked and leaving -------------------------------------------------------------------------------------------

    def _on_command(self, command: dict[str, Any]) -> dict[str, Any]:
        if command.get("op") == "targets":
            return {
                "staff": self._staffs.facts(),
                "topics": {
                    pump.name: {
                        "closed": "quiet"
                        if pump.topic.quiet and self._rests(pump.topic)
                        else pump.target.closed().name.lower(),
                        "why": pump.target.why or (f"quiet hours {pump.topic.quiet}" if pump.topic.quiet else ""),
                        "in_flight": pump.under_way,
                        "window": min(pump.target.pool.window, pump.target.topic.window),
                        "address": pump.consumer.address,
                    }
                    for pump in self._pumps
                }
                | {name: {"closed": "refused", "why": why} for name, why in self._refused.items()},
            }
        if command.get("op") == "wake":  # an operator paused, resumed or replayed
            for lane in self._lanes.values():
                self._ask_paused(lane)
            self._on_wake(command["topic"])
            return {"ok": True}
        return {"error": f"a worker does not know {command.get('op')!r}"}

    def _title(self) -> str:
        topics = " ".join(pump.topic.name for pump in self._pumps[:8])
        return f"[{topics}] {sum(pump.under_way for pump in self._pumps)} in flight"

    def _on_drain(self, grace: float) -> None:
        self._leave_by = min(self._leave_by, self.clock.monotonic() + grace)
        self._leaving.set()

    def _leave(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()  # the next push is for the others to hear
        for pump in self._pumps:
            pump.drain()
        self._staffs.leave()
        for pump in self._pumps:
            while not pump.idle.is_set() and (left := self._leave_by - self.clock.monotonic()) > 0:
                pump.idle.wait(min(left, 0.2))  # meanwhile the bus may be told to stop at once
        self._staffs.end(lambda: self._leave_by)
        for consumer in self._consumers:
            consumer.close()  # what still runs is cut now, judged "may have run" and settled as such
        for pump in self._pumps:
            pump.idle.wait(1.0)
        for lane in self._lanes.values():
            lane.flush(2.0)
        self._staffs.gone()
        for keeping in self._keeping.values():
            keeping.close()
        self.journal.close()
        for storage in self._storages.values():
            storage.close()
        self._stats.close()
        self.child.log.info("worker_left", group=self.child.group)


def boot(child: Child) -> Worker:
    """The worker of `child`. Raises BootError when its group has nothing to serve."""
    if child.group not in child.config.groups():
        raise BootError(f"worker group {child.group!r} serves no queue of this configuration")
    return Worker(child)
