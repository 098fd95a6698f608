"""The ticker: what must happen now and then, once a node. Floor 4.

Journal rows go into their database, storages hear that this node lives, leases of owners that nobody replaces are
taken back, and the leases of nodes that have gone silent too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from gevent.event import Event

from pepperbus.child import Child
from pepperbus.clock import SystemClock
from pepperbus.config.model import Config
from pepperbus.delivery.command_marks import end_leftovers
from pepperbus.errors import NotReachable, StorageError, StorageRefused
from pepperbus.journal import growth
from pepperbus.journal import log as journal_log
from pepperbus.journal import store as journal_store
from pepperbus.journal.finished import Finished, topics_with_history
from pepperbus.journal.log import LogWriter
from pepperbus.names import split_owner
from pepperbus.replay.store import Replays
from pepperbus.storage import open_storage
from pepperbus.storage.contract import Storage
from pepperbus.ticker import spans
from pepperbus.ticker.alarms import Alarms
from pepperbus.ticker.deploys import Marks
from pepperbus.ticker.drains import Drains
from pepperbus.ticker.history import History
from pepperbus.ticker.intakes import Intakes
from pepperbus.ticker.maker import Maker
from pepperbus.ticker.paces import Teller
from pepperbus.ticker.replays import Parts, carry_out
from pepperbus.ticker.scale_rule import LOOK_S
from pepperbus.ticker.scaling import Scaling
from pepperbus.ticker.schedules import Schedules
from pepperbus.worker.inflight import forget, tables
from pepperbus.worker.reclaim import take_back

_BEAT_S = 5.0
_INGEST_S = 0.5
_TIDY = 10
_RETENTION_S = 60.0
_SAY_AGAIN_S = 60.0
#: A node that has not said for this long, by the storage's own clock, that it lives is lost with its leases.
LOST_MS = 30_000
#: Who looks dead must look so for this long (s), at two looks or three. What we know may be older than a process that
#: was just born; and a storage whose clock jumped takes every node for silent until its next heartbeat.
_SURE_DEAD_S, _SURE_LOST_S = 3.0, 8.0
#: A dead worker's successor is started within this time (back-off aside) and takes back the leases itself, at once.
_SUCCESSOR_S = 10.0


class Ticker:
    """The one ticker of a node."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.clock = SystemClock()
        self._config = child.config
        self._family: dict[str, str] = {}  # living process name -> its owner; empty until the master has said
        self._suspects: dict[tuple[str, str], float] = {}  # (storage or "", owner or node) -> since when (monotonic s)
        self._beating: dict[str, gevent.Greenlet] = {}  # storage -> a beat that is under way
        self._unknown: set[str] = set()  # owners of in-flight tables who neither live nor hold anything
        self._seen: dict[str, float] = {}  # when (monotonic s) a process of that name was last alive
        self._storages: dict[str, Storage] = {}
        self._opening: set[str] = set()
        self._ingested: list[dict[str, int]] = []  # how long the logs were when they were last taken over
        self._ingests = 0
        self._leaving = Event()
        self._marks = Marks(self.clock, child.log)
        self._drains = Drains(
            lambda: self._config,
            self._storages,
            self.clock,
            child.log,
            child.owner,
            lambda topic: self._wake_workers(topic),
        )
        self._failing: dict[str, tuple[str, float]] = {}  # chore -> (what was said of its failure, when)
        self._journal = LogWriter(child.config.bus.data_dir / "journal", child.name, child.config.journal.content)
        self._alarms = Alarms(child, self.clock, lambda: self._config, self._storages, lambda: self._schedules.late())
        self._scaling = Scaling(child, self.clock, self._storages, lambda: self._config)
        self._maker = Maker(child, self.clock)
        self._schedules = Schedules(child, self._maker, self.clock, self._storages, lambda: self._config)
        self._intakes = Intakes(child, self._maker, self._storages, lambda: self._config)
        self._traced = spans.Spans(lambda: self._config, self.clock, child.log, self._in_thread)

    def run(self) -> None:
        self.child.on_config = self._on_config
        self.child.on_drain = lambda grace: self._leaving.set()
        self.child.on_command = self._on_command
        self.child.start()
        self._marks.started(self._config, self.child.bus_boot)
        self._open_missing()
        loops: list[Any] = [
            gevent.spawn(self._every, _BEAT_S, self._beat),
            gevent.spawn(self._every, _BEAT_S, self._forget_tables),
            gevent.spawn(self._every, _INGEST_S, self._ingest),
            gevent.spawn(self._every, _RETENTION_S, self._retain),
            gevent.spawn(self._every, _RETENTION_S, self._keep_up),
            gevent.spawn(self._every, growth.EVERY_S, self._measure),
            gevent.spawn(self._drains.run),
            gevent.spawn(self._history().run, self.child.log),
            gevent.spawn(self._alarms.run),
            gevent.spawn(self._every, LOOK_S, self._scaling.look),
            gevent.spawn(self._every, _RETENTION_S, self._end_leftovers),
            gevent.spawn(carry_out, self._replay_parts()),
            gevent.spawn(self._schedules.run),
            gevent.spawn(self._every, spans.EVERY_S, self._spans),
        ]
        self._intakes.follow()
        self._leaving.wait()
        self._intakes.stop()
        gevent.killall([*loops, *self._beating.values()])
        self._journal.close()
        self._ingest()
        for storage in self._storages.values():
            self._say_goodbye(storage)
            storage.close()
        self._maker.close()

    def _history(self) -> History:
        teller = Teller(lambda: self._config, self._storages)
        return History(lambda: self._config, self._storages, self._in_thread, teller.take)

    def _every(self, seconds: float, chore: Callable[[], None]) -> None:
        """Run a chore for ever; its failure is logged and never ends the others (a reaper that stopped is lost work)."""
        while True:
            self._do(chore)
            gevent.sleep(seconds)

    def _do(self, chore: Callable[[], None]) -> None:
        """Once. What goes on failing in the same way (a full or read-only disk) is said again every minute, not each time."""
        name, now = chore.__name__, self.clock.monotonic()
        told, at = self._failing.get(name, ("", 0.0))
        try:
            chore()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if text != told or now - at >= _SAY_AGAIN_S:
                self._failing[name] = text, now
                self.child.log.error("chore_failed", text, chore=name, data_dir=self._config.bus.data_dir)
        else:
            if self._failing.pop(name, None):
                self.child.log.info("chore_works_again", chore=name)

    # -- storages --------------------------------------------------------------------------------------------------

    def _on_config(self, config: Config) -> None:
        self._marks.took(self._config, config)
        self._config = config
        self._journal.content_cap = config.journal.content
        self._open_missing()
        self._intakes.follow()

    def _open_missing(self) -> None:
        used = {topic.storage for queue in self._config.queues.values() for topic in queue.topics.values()}
        used |= self._drains.sources() & self._config.storages.keys()
        for name in used - self._storages.keys() - self._opening:
            self._opening.add(name)
            gevent.spawn(self._open, name)

    def _open(self, name: str) -> None:
        wait = 0.2
        while not self._leaving.is_set() and name in self._config.storages:
            storage = open_storage(self._config.storages[name], self.clock, self.child.log)
            try:
                storage.open()
                storage.claim_shard(self._config.bus.shard, self._config.bus.node)
                storage.heartbeat(self._config.bus.node)
                self._storages[name] = storage
                break
            except (StorageError, StorageRefused) as error:
                self.child.log.warning("storage_closed", str(error), storage=name)
                storage.close()
                gevent.sleep(wait)
                wait = min(5.0, wait * 2)
        self._opening.discard(name)

    def _beat(self) -> None:
        """Every storage by itself: one that hangs must not keep the others from hearing that this node lives."""
        for name, storage in list(self._storages.items()):
            if name not in self._beating:
                self._beating[name] = gevent.spawn(self._beat_at, storage)
        gevent.joinall(list(self._beating.values()), timeout=_BEAT_S)
        ended = [name for name, one in self._beating.items() if one.ready()]
        for one in [self._beating.pop(name) for name in ended]:
            one.get()

    def _beat_at(self, storage: Storage) -> None:
        node = self._config.bus.node
        try:
            storage.heartbeat(node)
            if self._family:
                self._take_back(storage, self._is_dead_here, lost_host=False)
            silent = set(storage.lost_nodes(LOST_MS)) - {node}
            self._trust_again(storage.name, silent)
            lost = {one for one in silent if self._is_sure(storage.name, one, _SURE_LOST_S)}
            if lost:
                self._take_back(storage, partial(_lies_on, lost), lost_host=True)
        except StorageError as error:
            self.child.log.warning("heartbeat_failed", str(error), storage=storage.name)

    def _say_goodbye(self, storage: Storage) -> None:
        """Other nodes need no alarm because of us."""
        try:
            storage.leave(self._config.bus.node)
        except StorageError as error:
            self.child.log.warning("heartbeat_failed", str(error), storage=storage.name)

    def _take_back(self, storage: Storage, dead: Callable[[str], bool], lost_host: bool) -> None:
        run_dir = self._config.bus.run_dir
        take_back(storage, dead, run_dir, self._journal, self.child.log, self.clock, lost_host)

    def _is_dead_here(self, owner: str) -> bool:
        """An owner of this node whose slot is empty, or taken by a later incarnation that does not see to it itself."""
        if self._looks_dead(owner):
            return self._is_sure("", owner, _SURE_DEAD_S)
        self._suspects.pop(("", owner), None)
        return False

    def _is_sure(self, where: str, who: str, seconds: float) -> bool:
        now = self.clock.monotonic()
        return now - self._suspects.setdefault((where, who), now) >= seconds

    def _trust_again(self, storage: str, silent: set[str]) -> None:
        """Nodes that have spoken are no longer suspected; nor are owners that nobody looked at for a minute."""
        old = self.clock.monotonic() - 60.0
        for where, who in list(self._suspects):
            if (where == storage and who not in silent) or (not where and self._suspects[where, who] < old):
                del self._suspects[where, who]

    def _looks_dead(self, owner: str) -> bool:
        node, name, boot = split_owner(owner)
        if node != self._config.bus.node:
            return False
        living = self._family.get(name)
        if living is None and name.startswith("worker."):  # its successor takes back what it held, unless none comes
            return self.clock.monotonic() - self._seen.get(name, -_SUCCESSOR_S) > _SUCCESSOR_S
        if living is not None and name.startswith("worker."):  # nor does it look into storages that it has no topics in
            return living != owner and _is_earlier(boot, split_owner(living)[2])
        return living != owner

    def _forget_tables(self) -> None:
        """Remove the in-flight tables of dead workers whose leases lie nowhere any more."""
        if not self._family:
            return
        if not self._storages.keys() >= {t.storage for q in self._config.queues.values() for t in q.topics.values()}:
            return
        held = {owner for storage in self._storages.values() for owner in storage.owners()}
        unknown = set(tables(self._config.bus.run_dir)) - held - set(self._family.values())
        for owner in unknown & self._unknown:  # also at the last look: not one that was born a moment ago
            forget(self._config.bus.run_dir, owner)
        self._unknown = unknown

    def _measure(self) -> None:
        """How full the storages are, for "days left"."""
        now_ms, fills = self.clock.now_ms(), []
        for name, storage in list(self._storages.items()):
            health = storage.health()
            if health.alive:
                fills.append(growth.Fill(now_ms, name, health.used, health.limit))
        if fills:
            growth.add(self._config.bus.data_dir, *fills)

    def _end_leftovers(self) -> None:
        """What commands of workers without a successor left running."""
        if killed := end_leftovers(self._config.bus.run_dir):
            self.child.log.warning("leftovers_killed", "processes of a dead worker's commands", processes=killed)

    def _keep_up(self) -> None:
        for storage in list(self._storages.values()):
            storage.upkeep()

    # -- replays ---------------------------------------------------------------------------------------------------

    def _replay_parts(self) -> Parts:
        child = self.child
        return Parts(lambda: self._config, self._storages, self._journal, self.clock, child.log, self._wake_workers)

    def _wake_workers(self, topic: str) -> None:
        """They look by themselves too, but later; so nobody waits for the answer."""
        command = {"op": "wake", "topic": topic}
        request = {"op": "tell", "role": "worker", "command": command, "timeout": 1}
        gevent.spawn(self._asked, request)

    def _asked(self, request: dict[str, Any]) -> None:
        try:
            self.child.ask_master(request)
        except NotReachable:
            pass

    # -- journal ---------------------------------------------------------------------------------------------------

    def _ingest(self) -> None:
        """Take over what has grown; files whose writers are gone are noticed at the latest at every `_TIDY`th look."""
        data_dir = self._config.bus.data_dir
        grown = [journal_log.sizes(data_dir / name) for name in ("journal", "finished")]
        self._ingests += 1
        if grown == self._ingested and self._ingests % _TIDY and not self._leaving.is_set():
            return
        self._in_thread(journal_store.ingest, data_dir / "journal", data_dir / "journal.db")
        self._in_thread(Finished(data_dir).ingest)
        self._ingested = grown

    def _spans(self) -> None:
        self._traced.look()

    def _retain(self) -> None:
        journal = self._config.journal
        database = self._config.bus.data_dir / "journal.db"
        oldest_ms = self.clock.now_ms() - int(journal.keep * 1000)
        self._in_thread(journal_store.retain, database, oldest_ms, journal.max_bytes)
        Replays(self._config.bus.data_dir).retain(self.clock.now_ms())
        kept = topics_with_history(self._config).items()
        oldest = {topic: self.clock.now_ms() - int(seconds * 1000) for topic, seconds in kept}
        self._in_thread(Finished(self._config.bus.data_dir).retain, oldest, journal.max_bytes)

    def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        """SQLite waits inside C: in a native thread, or the hub and with it the heartbeat stands still."""

        def quiet() -> tuple[Any, Exception | None]:
            try:
                return work(*args), None
            except Exception as error:  # handed over as a value: the pool prints what escapes it
                return None, error

        result, error = gevent.get_hub().threadpool.apply(quiet)
        if error is not None:
            raise error
        return result

    def _on_command(self, command: dict[str, Any]) -> dict[str, Any]:
        if command.get("op") == "family":
            now = self.clock.monotonic()
            self._family = {split_owner(owner)[1]: owner for owner in command["owners"]}
            self._seen |= dict.fromkeys(self._family, now)
            return {"ok": True}
        if command.get("op") == "intakes":
            return {"intakes": self._intakes.report()}
        if command.get("op") == "alarm_test":
            return self._alarms.test(command["channel"], command["who"])
        return {"error": f"the ticker does not know {command.get('op')!r}"}


def _lies_on(nodes: set[str], owner: str) -> bool:
    return split_owner(owner)[0] in nodes


def _is_earlier(boot: str, living: str) -> bool:
    """Whether incarnation `boot` came before the `living` one of its name: births are counted, and one bus runs at a time."""
    (bus, _, number), (its_bus, _, its_number) = boot.rpartition("."), living.rpartition(".")
    return bus != its_bus or int(number) < int(its_number)


def main(child: Child) -> None:
    """Tick until told to leave."""
    Ticker(child).run()
