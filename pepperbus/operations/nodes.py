"""Every node that shares a storage with this one, and what each tells of itself when asked. Floor 4.

A node that cannot tell is in the answer all the same, with the reason.
"""

from __future__ import annotations

import gevent
import msgspec

from pepperbus.errors import NotReachable, PepperbusError
from pepperbus.nodes import errands
from pepperbus.nodes.errands import Errand
from pepperbus.operations import elsewhere, status
from pepperbus.operations.itself import Itself, itself
from pepperbus.operations.office import Office
from pepperbus.operations.results import NodeStatus, Result
from pepperbus.operations.rights import Right, operation
from pepperbus.storage.contract import Storage

_LONGEST_S = 5.0  # once it has begun; its master may be busy


class NodeReport(Result):
    """`here`: the node that was asked for this. `silent_s`: since it last said in one of `storages` that it lives.

    `told`: what it told of itself, `age_s` ago; null: nothing yet. `error`: why it tells nothing (more).
    """

    node: str
    here: bool
    alive: bool
    silent_s: float = 0.0
    storages: list[str] = msgspec.field(default_factory=list)
    told: Itself | None = None
    age_s: float = 0.0
    error: str = ""


@operation(Right.VIEW, node=True)
def ask(office: Office, node: str, what: str, kind: type[elsewhere.Kind]) -> elsewhere.Kind:
    """What `node` tells (`what`: node or systems). Raises NotReachable when nobody does it there, PepperbusError saying why."""
    errand = Errand(what, "", office.actor.name, office.config.bus.node)
    try:
        return elsewhere.through(_between(office, node), node, errand, kind, _LONGEST_S)
    except PepperbusError as error:
        if f"node {node}: {errands.UNKNOWN}" in str(error):
            raise PepperbusError(f"node {node} runs an older version, which does not tell this") from error
        raise


def _between(office: Office, node: str) -> Storage:
    """A storage through which it can be reached. Raises NotReachable."""
    for name in office.config.storages:
        try:
            if node in errands.living(office.storage(name)):
                return office.storage(name)
        except PepperbusError:
            continue  # another one may do
    raise NotReachable(silent(node))


def silent(node: str) -> str:
    """Why a node that has not said for a while that it lives is not even asked."""
    return f"node {node} has said for a while in no storage that it lives"


@operation(Right.VIEW, node=True)
def nodes(office: Office) -> list[NodeReport]:
    """This node first, the others by name, all asked now at the same time."""
    found = [NodeReport(office.config.bus.node, True, True), *(report(one) for one in status.others(office))]
    gevent.joinall([gevent.spawn(_fill, office, one) for one in found])
    return found


def report(node: NodeStatus) -> NodeReport:
    """One that has told nothing yet."""
    return NodeReport(node.name, False, node.alive, node.silent_s, node.storages)


def _fill(office: Office, one: NodeReport) -> None:
    try:
        one.told = itself(office) if one.here else ask(office, one.node, "node", Itself)
    except PepperbusError as error:
        one.error = str(error)
