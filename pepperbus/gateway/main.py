"""The gateway process: puts the parts together, follows the master, leaves in order.

`main(child)` is called in a forked, gevent-patched process. A storage that cannot be reached does not keep the gateway
from serving: pushes to it are answered `storage unavailable` until it is back.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import gevent
from gevent.event import Event

from pepperbus.child import Child
from pepperbus.clock import SystemClock
from pepperbus.config.model import Config
from pepperbus.family.highwater import HighWater
from pepperbus.gateway.circle import Circle
from pepperbus.gateway.commit import Lane
from pepperbus.gateway.handout import Handout
from pepperbus.gateway.kin import Kin
from pepperbus.gateway.neighbours import Neighbours
from pepperbus.gateway.process import Process
from pepperbus.gateway.routes import Routes
from pepperbus.gateway.server import Server, listener
from pepperbus.gateway.session import Front
from pepperbus.gateway.tls import load_context
from pepperbus.ids import IdGenerator
from pepperbus.journal.fields import Indexing
from pepperbus.journal.finished import Keeping
from pepperbus.journal.log import LogWriter
from pepperbus.names import split_owner
from pepperbus.stats import Writer
from pepperbus.storage import open_storage
from pepperbus.storage.contract import Storage
from pepperbus.wire.resp import Limits
from pepperbus.worker.reclaim import take_back

#: How long the hub and a storage's own thread keep the interpreter from each other, seconds. Python's 5 ms would be
#: added to every write of an embedded storage.
SWITCH = 0.0002
#: Seconds that clients wait in the kernel's queue, or under the old configuration, for storages to open.
OPEN_PATIENCE = 1.5


def main(child: Child) -> None:
    """Serve until drained. Raises BootError when this process cannot serve at all."""
    gateway = Gateway(child)
    sys.setswitchinterval(SWITCH)
    child.on_config = gateway.reconfigure
    child.on_drain = gateway.drain
    child.on_command = gateway.on_command
    child.title = gateway.title
    child.start()
    gateway.run()


class Gateway:
    """One gateway process."""

    def __init__(self, child: Child) -> None:
        config = child.config
        self._child = child
        self._clock = SystemClock()
        self._stats = Writer(config.bus.run_dir / "stats", child.name)
        self._mark = HighWater(config.bus.data_dir / "ids", child.name)
        self._journal = LogWriter(config.bus.data_dir / "journal", child.name, config.journal.content)
        self._indexing = Indexing(self._journal, config)
        self._keeping = Keeping(self._indexing, config, child.name)
        self._lanes: dict[str, Lane] = {}
        self._grace = 0.0
        self._leaving = Event()
        neighbours = Neighbours(
            config.bus.run_dir, child.index, child.wakes, lambda queue: self._handout.waiting.pushed(queue)
        )
        self._process = Process(
            child.name,
            config.bus.node,
            child.owner,
            self._clock,
            IdGenerator(config.bus.shard, child.index, lambda: self._process.turn_ms, self._mark.start_ms),
            child.log,
            self._keeping,
        )
        self._handout = Handout(self._process, self._stats, neighbours)
        self._kin = Kin(config.bus.run_dir, child.index, lambda question: circle.answer(question))
        circle = Circle(self._process, self._handout, self._kin.ask)
        self._open_lanes(config)
        routes = Routes.build(config, dict(self._lanes), self._stats, child.wakes, self._handout.waiting.announce)
        self._front = Front(self._process, routes, self._handout, circle, started=self._clock.monotonic())
        self._handout.configure(config, self._lanes)
        self._server = self._make_server(config)

    def _make_server(self, config: Config) -> Server:
        settings = config.gateway
        tls = load_context(settings.cert, settings.key) if settings.cert and settings.key else None
        node_ip = _node_ip()
        listeners = [listener(sock, address, node_ip, tls) for address, sock in self._child.listeners.items()]
        limits = Limits(settings.max_inline, settings.max_bulk, settings.max_args)
        return Server(self._front, listeners, limits, settings.max_clients, settings.max_unread)

    def run(self) -> None:
        self._kin.listen()
        self._server.start()
        self._child.log.info("gateway_serving", listeners=" ".join(self._child.listeners))
        self._leaving.wait()
        self._handout.waiting.close()
        self._server.drain(self._grace)
        self._handout.leave()
        self._kin.close()
        for lane in self._lanes.values():
            lane.close()
        self._keeping.close()
        self._stats.close()
        self._mark.close()

    def drain(self, grace: float) -> None:
        self._grace = grace
        self._leaving.set()

    def on_command(self, command: dict[str, Any]) -> dict[str, Any]:
        if command.get("op") != "wake":
            return {"error": f"a gateway does not know {command.get('op')!r}"}
        self._handout.look_again(command["topic"])  # an operator paused, resumed or replayed
        return {"ok": True}

    def title(self) -> str:
        return f"{len(self._server.connections)} clients"

    # -- configuration ---------------------------------------------------------------------------------------

    def reconfigure(self, config: Config) -> None:
        """Take a new configuration in place: no client notices, unless its login ended."""
        gone = self._open_lanes(config)
        self._front.routes = Routes.build(
            config, dict(self._lanes), self._stats, self._child.wakes, self._handout.waiting.announce
        )
        self._handout.configure(config, self._lanes)
        for lane in self._lanes.values():
            if not lane.trouble:
                self._watch(lane.storage, config)
        self._indexing.take(config)
        self._keeping.take(config)
        settings = config.gateway
        self._server.limits = Limits(settings.max_inline, settings.max_bulk, settings.max_args)
        self._server.max_clients, self._server.max_unread = settings.max_clients, settings.max_unread
        for lane in gone:
            gevent.spawn(_close_when_done, lane)

    def _open_lanes(self, config: Config) -> list[Lane]:
        """Lanes for new and changed storages, opened if that is quick; returns those no longer used."""
        gone = []
        for name, lane in list(self._lanes.items()):
            if config.storages.get(name) != lane.config:
                gone.append(self._lanes.pop(name))
        for name, storage in config.storages.items():
            if name not in self._lanes:
                lane = Lane(open_storage(storage, self._clock), storage, self._clock, self._child.log, self._raise_mark)
                self._lanes[name] = lane
                gevent.spawn(lane.keep_open, self._claim)
        gevent.wait([lane.tried for lane in self._lanes.values()], timeout=OPEN_PATIENCE)
        return gone

    def _claim(self, storage: Storage) -> None:
        bus = self._child.config.bus
        storage.claim_shard(bus.shard, bus.node)
        self._take_back_own(storage)
        self._watch(storage, self._child.config)

    def _take_back_own(self, storage: Storage) -> None:
        """What clients had of this slot's earlier incarnations: they are dead, or the slot's mark could not be had."""
        child = self._child
        mine = split_owner(child.owner)

        def dead(owner: str) -> bool:
            return split_owner(owner)[:2] == mine[:2] and owner != child.owner

        take_back(storage, dead, child.config.bus.run_dir, self._journal, child.log, self._clock)

    def _watch(self, storage: Storage, config: Config) -> None:
        """Hear of pushes of other nodes, as far as clients may wait for them here."""
        topics = [t for queue in config.queues.values() for t in queue.topics.values() if t.taken]
        if names := [topic.full_name for topic in topics if topic.storage == storage.name]:
            storage.watch(names, self._handout.waiting.heard)

    def _raise_mark(self) -> None:
        self._mark.raise_to(self._process.ids.high_water_ms)


def _close_when_done(lane: Lane) -> None:
    while lane.busy:
        gevent.sleep(0.1)
    lane.close()


def _node_ip() -> str:
    """The address this node would use to the outside; no packet is sent. Part of every trace id."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
