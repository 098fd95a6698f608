"""What the other nodes told of themselves and of their systems, for all pages and the API together. Floor 5.

Asked by errands, while somebody looks; a node that does not answer is asked again after a while.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from gevent.lock import Semaphore

from pepperbus.operations import nodes
from pepperbus.operations.itself import Itself
from pepperbus.operations.nodes import NodeReport
from pepperbus.operations.office import Office
from pepperbus.operations.results import NodeStatus
from pepperbus.operations.systems import SystemParts
from pepperbus.web.told import Round, Told

FIRST_S = 5.0  # that a program waits for the first answers; a page does not
_FRESH_S = 4.0
_AGAIN_S = 10.0
_AT_ONCE = 2  # questions to a node; people who try a consumer there need places too


class Neighbourhood:
    """`office`: whoever asks the others."""

    def __init__(self, office: Callable[[], Office]) -> None:
        self._office = office
        self._gates: defaultdict[str, Semaphore] = defaultdict(lambda: Semaphore(_AT_ONCE))
        self._nodes: Round[str, Itself] = Round(self._node, lambda _node: _FRESH_S, _AGAIN_S)
        self._systems: Round[str, SystemParts] = Round(self._parts, lambda _node: _FRESH_S, _AGAIN_S)

    def reports(self, others: Iterable[NodeStatus], first_s: float = 0.0) -> list[NodeReport]:
        """Each of the others with what it told last; of those that are silent nothing is asked."""
        found = [nodes.report(one) for one in others]
        told = self._nodes.all([one.node for one in found if one.alive], first_s)
        for one in found:
            if one.alive:
                one.told, one.age_s, one.error = told[one.node].value, told[one.node].age_s, told[one.node].error
        return found

    def systems(self, others: Iterable[NodeStatus], first_s: float = 0.0) -> dict[str, Told[SystemParts]]:
        """What the systems of the living among the others did, by node."""
        return self._systems.all([one.name for one in others if one.alive], first_s)

    def _node(self, node: str) -> Itself:
        with self._gates[node]:
            return nodes.ask(self._office(), node, "node", Itself)

    def _parts(self, node: str) -> SystemParts:
        with self._gates[node]:
            return nodes.ask(self._office(), node, "systems", SystemParts)
