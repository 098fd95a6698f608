"""How long a topic's jobs waited and ran in the last minute: on each node that shares its storage, and on all together.

Floor 4. Histograms are added up and the percentiles taken from the sum; percentiles of nodes are never averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from pepperbus import stats
from pepperbus.nodes.paces import Pace
from pepperbus.operations.office import Office
from pepperbus.operations.results import Percentiles, Result
from pepperbus.operations.rights import Right, operation
from pepperbus.operations.status import percentiles

Own = Mapping[str, stats.Histogram]  # wait, run


class NodePace(Result):
    """`node` "": all of them merged."""

    node: str
    wait: Percentiles = msgspec.field(default_factory=Percentiles)
    run: Percentiles = msgspec.field(default_factory=Percentiles)


@operation(Right.VIEW, "topic")
def by_node(office: Office, topic: str, own: Own, others: Mapping[str, Pace]) -> list[NodePace]:
    """This node first, the others by name, all merged last. `own` is this node's last minute, `others` what they left.

    Raises NotFound.
    """
    office.topic(topic)
    found = [NodePace(office.config.bus.node, percentiles(own["wait"]), percentiles(own["run"]))]
    for node, pace in sorted(others.items()):
        found.append(NodePace(node, *(percentiles(pace.histogram(which)) for which in ("wait", "run"))))
    if others:
        found.append(NodePace("", *(percentiles(merged(own, others.values(), which)) for which in ("wait", "run"))))
    return found


def merged(own: Own, others: Iterable[Pace], which: str) -> stats.Histogram:
    """One histogram of all nodes."""
    total = own[which]
    for pace in others:
        total = total.plus(pace.histogram(which))
    return total
