"""One worker process: its storages, its pumps, its timers. Floor 4: back ends come through the two factories.

Starting is a list (storages, leases of predecessors, pumps, watches), stopping is another, in the order that loses
nothing: take nothing new, give back what was not begun, wait for what runs, store every outcome, leave.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import gevent
from gevent.event import Event

from pepperbus.child import Child
from pepperbus.clock import SystemClock
from pepperbus.config.model import Queue, Topic
from pepperbus.delivery import make_staff
from pepperbus.delivery.contract import Staff
from pepperbus.delivery.scaled import how_many
from pepperbus.errors import BootError, StorageError, StorageRefused
from pepperbus.ids import IdGenerator
from pepperbus.journal.log import LogWriter
from pepperbus.names import split_owner
from pepperbus.stats import Writer
from pepperbus.storage import open_storage
from pepperbus.storage.contract import LEVELS, Storage
from pepperbus.worker.attempt import Parts
from pepperbus.worker.attendance import Attendance
from pepperbus.worker.inflight import InFlight
from pepperbus.worker.lane import Lane
from pepperbus.worker.pauses import Pauses
from pepperbus.worker.places import Places
from pepperbus.worker.pump import Pump
from pepperbus.worker.pumps import Pumps
from pepperbus.worker.reclaim import take_back
from pepperbus.worker.staff import Staffs
from pepperbus.worker.wakes import Wakes

_SWEEP_S = 0.5
_STOPPED = 3  # the `state` gauge of a topic that a person must look after
_ASK_AGAIN_S = 2.0  # a storage that was too weak may have been set up better
#: Of more than this many topics each rests for more than one sweep before its target's state is looked at.
_LOOK_MOST = 250
#: Besides its own timer, every topic's delayed jobs are looked at every _SWEEP_S * this; but not more than so many at once.
_DUE_SLICE, _DUE_MOST = 20, 20


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
        self._places = Places(config, self._run_dir / "targets" / child.bus_boot)
        self._staffs = Staffs(self._run_dir, self._places.directory, child.log)
        self._stats = Writer(self._run_dir / "stats", child.name)
        self._inflight = InFlight(self._run_dir, child.owner)
        self.journal = LogWriter(config.bus.data_dir / "journal", child.name, config.journal.content)
        parts = Parts(
            config.bus.node,
            f"{config.bus.node}/{child.name}",
            self.clock,
            IdGenerator(config.bus.shard, 15, self.clock.now_ms),
            self._inflight,
            self.journal,
            child.log,
        )
        self._pumps = Pumps(child, self._places, self._stats, parts)
        self._wakes = Wakes(child, [queue.name for queue in self._queues], self._pumps)
        self._pauses = Pauses(self.clock, self._pumps)
        self._leaving = Event()
        self._leave_by = float("inf")  # monotonic s; a later, shorter grace wins
        self._attendance = Attendance(child.log, self.clock)
        self._refused: dict[str, str] = {}  # topics that are not fed, and why
        self._turns = 0
        self._asked: set[str] = set()  # storages that have not answered yet what lies there

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
        self._wakes.listen()
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
                bus = self.child.config.bus
                storage.claim_shard(bus.shard, bus.node)  # another machine's leases, under our name, are not ours
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
            self._wakes.tell,
            self._pumps.flush_journals if any(queue.history for queue in self._queues) else self.journal.flush,
        )
        self._storages[name], self._lanes[name] = storage, lane
        self._pauses.see(lane)
        storage.watch([topic.full_name for topic in topics], self._wakes.heard)
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
        pump = self._pumps.add(topic, lane)
        if isinstance(pump.consumer, Staff):
            self._staffs.employ(topic, pump.consumer, lambda: topic.least or topic.concurrency)
        if self._pauses.rests(topic):
            lane.paused.add(topic.full_name)
        self._attendance.look(pump)
        pump.wake()

    # -- looking after -----------------------------------------------------------------------------------------------

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
                gevent.spawn(self._pauses.look, lane)  # one storage that hangs must not hold up the others' topics
        part = self._pumps.part(self._turns, max(_DUE_SLICE, len(self._pumps) // _DUE_MOST))
        closely = {*part, *(pump for pump in self._pumps if pump.busy)}
        closely |= {
            pump for pump in self._pumps.part(self._turns, 1 + len(self._pumps) // _LOOK_MOST) if not pump.resting
        }
        for pump in closely:  # of 1,000 queues nearly all rest; looking closely at each cost 5 % of a core
            self._attendance.look(pump)
        for lane in self._lanes.values():
            self._look_for_jobs(lane, [pump for pump in part if pump.lane is lane])
        self._places.cool()

    def _look_for_jobs(self, lane: Lane, pumps: list[Pump]) -> None:
        """What lies there without anybody having said so. An idle topic costs a part of one question."""
        if pumps and lane.storage.name not in self._asked:
            self._asked.add(lane.storage.name)
            gevent.spawn(self._ask, lane, pumps)

    def _ask(self, lane: Lane, pumps: list[Pump]) -> None:
        try:
            depths = lane.storage.depths([pump.name for pump in pumps])
        except StorageError:
            return  # what moved there is seen by one of the next looks
        finally:
            self._asked.discard(lane.storage.name)
        for pump in pumps:
            depth = depths.get(pump.name)
            if depth is None or depth.ready or depth.delayed:
                pump.pushed()

    # -- asked and leaving -------------------------------------------------------------------------------------------

    def _on_command(self, command: dict[str, Any]) -> dict[str, Any]:
        if command.get("op") == "targets":
            return {
                "staff": self._staffs.facts(),
                "topics": {
                    pump.name: {
                        "closed": "quiet"
                        if pump.topic.quiet and self._pauses.rests(pump.topic)
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
                self._pauses.see(lane)
            self._wakes.heard(command["topic"])
            return {"ok": True}
        return {"error": f"a worker does not know {command.get('op')!r}"}

    def _title(self) -> str:
        topics = " ".join(pump.topic.name for pump in islice(self._pumps, 8))
        return f"[{topics}] {sum(pump.under_way for pump in self._pumps)} in flight"

    def _on_drain(self, grace: float) -> None:
        self._leave_by = min(self._leave_by, self.clock.monotonic() + grace)
        self._leaving.set()

    def _leave(self) -> None:
        self._wakes.stop()
        for pump in self._pumps:
            pump.drain()
        self._staffs.leave()
        for pump in self._pumps:
            while not pump.idle.is_set() and (left := self._leave_by - self.clock.monotonic()) > 0:
                pump.idle.wait(min(left, 0.2))  # meanwhile the bus may be told to stop at once
        self._staffs.end(lambda: self._leave_by)
        self._pumps.cut()
        for pump in self._pumps:
            pump.idle.wait(1.0)
        for lane in self._lanes.values():
            lane.flush(2.0)
        self._staffs.gone()
        self._pumps.close()
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
