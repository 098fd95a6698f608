"""What the other nodes kept of a topic's course, for its charts: asked of their sidecars now and then, for all who look.

Floor 5. A node that does not answer has told nothing, and is asked again after a while; nobody waits for it but whoever looks
first, and that not long.
"""

from __future__ import annotations

from collections import defaultdict
from time import monotonic

from gevent.lock import Semaphore

from pepperbus.errors import PepperbusError
from pepperbus.nodes.errands import Errand
from pepperbus.operations import elsewhere
from pepperbus.operations.history import STEPS, Parcel, Part, unpacked
from pepperbus.web.desk import Desk
from pepperbus.web.told import Round

_FRESH_S = 10.0  # or a point's width
_AGAIN_S = 30.0  # after a failure
_FIRST_S = 5.0
_LONGEST_S = 10.0
_NAMES_S = 5.0
_AT_ONCE = 2  # questions to a node; people who try a consumer there need places too


class Courses:
    """The other nodes' courses, as they were told last."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._told = Round(self._ask, lambda key: max(_FRESH_S, STEPS[key[1]]), _AGAIN_S)
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
        found = self._told.all([(topic, back_s, node) for node in self.nodes(topic)], _FIRST_S)
        return {node: told.value if not told.error else None for (_, _, node), told in found.items()}

    def _ask(self, key: tuple[str, int, str]) -> Part:
        topic, back_s, node = key
        office = self._desk.itself
        errand = Errand("course", topic, office.actor.name, office.config.bus.node, b"%d" % back_s)
        with self._gates[node]:
            return unpacked(elsewhere.ask(office, node, errand, Parcel, _LONGEST_S))
