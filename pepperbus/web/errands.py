"""Does what other nodes ask of this one: try a consumer from here, tell a topic's course, this node, its systems. Floor 5.

Asked of each storage once a second, as long as another node shares it.
"""

from __future__ import annotations

from time import monotonic

import gevent
from gevent.pool import Pool

from pepperbus.accounts.model import EVERYWHERE, Actor, Role, Via
from pepperbus.errors import NotFound, PepperbusError
from pepperbus.log import Log
from pepperbus.nodes import errands
from pepperbus.nodes.errands import Errand
from pepperbus.operations import consumer, history
from pepperbus.operations.history import Parcel
from pepperbus.operations.itself import Itself, itself
from pepperbus.operations.office import Office
from pepperbus.operations.results import Pinged, Sent, to_json
from pepperbus.operations.rights import system_of
from pepperbus.operations.systems import SystemParts
from pepperbus.storage.contract import Storage
from pepperbus.web import systems
from pepperbus.web.desk import Desk

_EVERY_S = 1.0
_ALONE = 5  # looks between two questions whether anybody shares a storage
_AT_ONCE = 4
_DOUBTED_S = 30.0  # whoever asked before this process looked, and lives, waits no longer
_LOOKS = ("course", "node", "systems")  # what only tells something
_MOST_TEXT = 64 << 10  # of an answer's body and stderr, each


def run(desk: Desk, log: Log) -> None:
    """For ever. What goes wrong with a storage is said by its heartbeat."""
    errander = _Errander(desk, log)
    while True:
        for name in {topic.storage for topic in desk.base.topics()}:
            try:
                errander.look(name)
            except PepperbusError:
                continue
        gevent.sleep(_EVERY_S)


class _Errander:
    def __init__(self, desk: Desk, log: Log) -> None:
        self._desk = desk
        self._log = log
        self._alone: dict[str, int] = {}  # storage -> looks left out because nobody shares it
        self._doubted: dict[str, dict[str, int]] = {}  # storage -> what was there at the first look, and how often said
        self._doubted_until: dict[str, float] = {}
        self._pool = Pool(_AT_ONCE)

    def look(self, name: str) -> None:
        """Begin what is new in this storage. Raises what storages raise."""
        storage, node = self._desk.base.storage(name), self._desk.base.config.bus.node
        if name not in self._doubted:
            self._doubted[name] = errands.begin(storage, node)
            self._doubted_until[name] = monotonic() + _DOUBTED_S
        if self._alone.get(name, 0) > 0:
            self._alone[name] -= 1
            return
        if not set(errands.living(storage)) - {node}:
            self._alone[name] = _ALONE
            return
        doubted = self._doubted[name]
        for word, errand in errands.take(storage, node, doubted).items():
            doubted.pop(word, None)
            self._pool.spawn(self._do, storage, node, word, errand)
        if doubted and monotonic() > self._doubted_until[name]:
            errands.forget(storage, node, *doubted)
            doubted.clear()

    def _do(self, storage: Storage, node: str, word: str, errand: Errand) -> None:
        try:
            try:
                found = to_json(self._done(errand)).decode()
                errands.answer(storage, node, word, found)
            except PepperbusError as error:
                errands.answer(storage, node, word, error=str(error) or type(error).__name__)
            except Exception as error:  # a bug of ours: whoever asked is not left waiting for it
                self._log.error("web_bug", f"{type(error).__name__}: {error}", topic=errand.topic)
                errands.answer(storage, node, word, error="its sidecar failed at this; its log says more")
        except PepperbusError as error:  # nobody hears of it; whoever asked waits for a bounded time
            self._log.warning("errand_lost", str(error), topic=errand.topic, node=errand.by)

    def _done(self, errand: Errand) -> Pinged | Sent | Parcel | Itself | SystemParts:
        office = self._acting(errand)
        if errand.what == "node":
            return itself(office)
        if errand.what == "systems":
            return SystemParts(systems.parts(self._desk.monitor))
        if errand.what == "course":
            back = errand.content.decode("ascii", "replace")
            return history.packed(history.part(office, errand.topic, int(back) if back.isdecimal() else 0))
        done: Pinged | Sent
        if errand.what == "ping":
            done = consumer.ping(office, errand.topic)
        elif errand.what == "send":
            done = consumer.send(office, errand.topic, errand.content, attempt=errand.attempt, timeout=errand.timeout)
        else:
            raise NotFound(f"{errands.UNKNOWN}: {errand.what[:40]!r}")
        done.body, done.stderr = done.body[:_MOST_TEXT], done.stderr[:_MOST_TEXT]
        return done

    def _acting(self, errand: Errand) -> Office:
        """Whoever asked may do this one thing here: their own node has looked at their rights."""
        base = self._desk.base
        system = system_of(base, errand.topic) or EVERYWHERE
        role = Role.VIEWER if errand.what in _LOOKS else Role.OPERATOR
        return base.acting(Actor(errand.who, Via.WEB, f"node {errand.by}", {system: role}))
