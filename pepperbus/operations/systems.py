"""What the queues of each system did in the last minute: on each node, and on all of them together. Floor 4.

Rates, failures and waiting jobs add up; percentiles are taken from the sum of the histograms.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pepperbus.nodes.paces import Pace
from pepperbus.operations.office import Office
from pepperbus.operations.results import Percentiles, Result
from pepperbus.operations.rights import Right, may, operation
from pepperbus.operations.status import percentiles


class Figures(Result):
    """`in_rate`, `out_rate` a second over the last ten, `failed_rate` over the last minute; `in_flight` attempts now.

    `waiting`: ready and delayed jobs that lie in storages which no other node shares.
    """

    queues: int = 0
    in_rate: float = 0.0
    out_rate: float = 0.0
    failed_rate: float = 0.0
    in_flight: int = 0
    waiting: int = 0

    def add(self, other: Figures) -> None:
        self.queues = max(self.queues, other.queues)  # nodes have the same ones, as a rule
        for name in ("in_rate", "out_rate", "failed_rate", "in_flight", "waiting"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class SystemPart(Result):
    """One system on one node; `system` "": queues without one."""

    system: str
    figures: Figures
    pace: Pace


class SystemParts(Result):
    """All of a node."""

    systems: list[SystemPart]


class Answer(Result):
    """What a node told, `age_s` ago, or why it did not. `parts` null: nothing yet."""

    node: str
    parts: list[SystemPart] | None = None
    age_s: float = 0.0
    error: str = ""


class SystemOnNode(Result):
    """One system on one node, or (`node` "") on all that told. `figures` null: the node has told nothing, see `error`."""

    system: str
    node: str
    age_s: float = 0.0
    error: str = ""
    figures: Figures | None = None
    wait: Percentiles = msgspec.field(default_factory=Percentiles)
    run: Percentiles = msgspec.field(default_factory=Percentiles)


@operation(Right.VIEW)
def by_node(office: Office, answers: list[Answer], only: Iterable[str] | None = None) -> list[SystemOnNode]:
    """The systems this person may see (of them `only` these): each on each node in the order of `answers`, then on all.

    A node that told nothing has its line, a node without the system has none.
    """
    seen = {queue.system for queue in office.config.queues.values() if may(office, Right.VIEW, queue.name)}
    wanted = sorted(seen if only is None else seen & set(only))
    return [line for system in wanted for line in _of(system, answers)]


def _of(system: str, answers: list[Answer]) -> list[SystemOnNode]:
    lines, total, pace, told = [], Figures(), Pace({}, {}), 0
    for one in answers:
        if one.parts is None:
            lines.append(SystemOnNode(system, one.node, one.age_s, one.error))
            continue
        for part in one.parts:
            if part.system == system:
                lines.append(_line(system, one.node, part.figures, part.pace, one.age_s, one.error))
                total.add(part.figures)
                pace.add(part.pace)
                told += 1
    if told > 1:
        lines.append(_line(system, "", total, pace))
    return lines


def _line(system: str, node: str, figures: Figures, pace: Pace, age_s: float = 0.0, error: str = "") -> SystemOnNode:
    wait, run = (percentiles(pace.histogram(which)) for which in ("wait", "run"))
    return SystemOnNode(system, node, age_s, error, figures, wait, run)
