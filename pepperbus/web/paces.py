"""What the other nodes said of their last minute, looked up now and then for all pages together. Floor 5."""

from __future__ import annotations

from time import monotonic

from pepperbus.errors import PepperbusError
from pepperbus.nodes import paces
from pepperbus.nodes.paces import Pace, Paces
from pepperbus.operations.office import Office
from pepperbus.storage.contract import Storage

_KEPT_S = 5.0


class Neighbours:
    """Each storage is asked at most every five seconds; one that does not answer has told nothing."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._known: dict[str, tuple[float, dict[str, Paces]]] = {}

    def of(self, topic: str) -> dict[str, Pace]:
        """What other nodes did of `queue/topic` in the last minute, by node; also of nodes that did nothing."""
        known = self._office.config.topic(topic)
        if known is None:
            return {}
        return {node: told.get(topic, Pace({}, {})) for node, told in self._storage(known.storage).items()}

    def _storage(self, name: str) -> dict[str, Paces]:
        at, told = self._known.get(name, (-_KEPT_S, {}))
        if monotonic() - at < _KEPT_S:
            return told
        self._known[name] = monotonic(), told  # nobody asks a second time while the answer is under way
        try:
            told = self._ask(self._office.storage(name))
        except PepperbusError:
            told = {}
        self._known[name] = monotonic(), told
        return told

    def _ask(self, storage: Storage) -> dict[str, Paces]:
        return paces.others(storage, self._office.config.bus.node)
