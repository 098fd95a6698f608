"""What the other nodes kept of a topic's course, for its charts: asked of their sidecars now and then, for all who look.

Floor 5. A node that does not answer has told nothing, and is asked again after a while; nobody waits for it but whoever looks
first, and that not long.
"""

from __future__ import annotations

from collections import defaultdict
from time import monotonic
from typing import Any

import gevent
from gevent.lock import Semaphore

from pepperbus.errors import PepperbusError
from pepperbus.nodes.errands import Errand
from pepperbus.operations import elsewhere
from pepperbus.operations.history import STEPS, Parcel, Part, unpacked
from pepperbus.web.desk import Desk

_FRESH_S = 10.0  # or a point's width
_AGAIN_S = 30.0  # after a failure
_FIRST_S = 5.0
_LONGEST_S = 10.0
_MOST = 200  # courses that are kept
_NAMES_S = 5.0
_AT_ONCE = 2  # questions to a node; people who try a consumer there need places too


class _Told:
    """What one node told of one topic. `part` None: nothing yet, or it cannot be reached."""

    def __init__(self) -> None:
        self.part: Part | None = None
        self.asked_at = -_AGAIN_S
        self.tried = False
        self.asking: Any = None  # the greenlet

    def is_fresh(self, step_s: int) -> bool:
        kept_s = max(_FRESH_S, step_s) if self.part else _AGAIN_S
        return self.asking is not None or monotonic() - self.asked_at < kept_s


class Courses:
    """The other nodes' courses, as they were told last."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._told: dict[tuple[str, int, str], _Told] = {}  # in the order in which they were looked at last
        self._gates: defaultdict[str, Semaphore] = defaultdict(lambda: Semaphore(_AT_ONCE))
        self._names: dict[str, tuple[float, list[str]]] = {}

    def nodes(self, topic: str) -> list[str]:
        """The others that share the topic's storage, also those that have been silent for less than a day."""
        known = self._desk.base.config.topic(topic)
        if known is None:
            return []
        at, names = self._names.get(known.storage, (-_NAMES_S, []))
        if monotonic() - at >= _NAMES_S:
            self._names[known.storage] = monotonic(), names  # nobody asks a second time while the answer is under way
            try:
                names = sorted(
                    self._desk.base.storage(known.storage).nodes().keys() - {self._desk.base.config.bus.node}
                )
            except PepperbusError:
                pass  # as it was
            self._names[known.storage] = monotonic(), names
        return names

    def of(self, topic: str, back_s: int) -> dict[str, Part | None]:
        """What each of them kept of the last `back_s`; None for one that cannot be reached."""
        found = {node: self._look(topic, back_s, node) for node in self.nodes(topic)}
        gevent.joinall([told.asking for told in found.values() if told.asking and not told.tried], timeout=_FIRST_S)
        return {node: told.part for node, told in found.items()}

    def _look(self, topic: str, back_s: int, node: str) -> _Told:
        told = self._told.pop((topic, back_s, node), None) or _Told()
        self._told[topic, back_s, node] = told
        while len(self._told) > _MOST:
            del self._told[next(iter(self._told))]
        if not told.is_fresh(STEPS[back_s]):
            told.asking = gevent.spawn(self._ask, told, topic, back_s, node)
        return told

    def _ask(self, told: _Told, topic: str, back_s: int, node: str) -> None:
        told.asked_at = monotonic()
        office = self._desk.itself
        errand = Errand("course", topic, office.actor.name, office.config.bus.node, b"%d" % back_s)
        try:
            with self._gates[node]:
                told.part = unpacked(elsewhere.ask(office, node, errand, Parcel, _LONGEST_S))
        except PepperbusError:
            told.part = None
        finally:
            told.tried, told.asking = True, None
