"""The same request from another node: it travels through the storage that both share, and its sidecar does it there. Floor 4.

Rights are checked and the deed is written down where somebody asked; the other node writes it into its own audit log too.
"""

from __future__ import annotations

import time
from typing import TypeVar

import gevent
import msgspec

from pepperbus.errors import NotReachable, PepperbusError, StorageError, UsageError
from pepperbus.nodes import errands
from pepperbus.nodes.errands import Errand
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, operation
from pepperbus.storage.contract import Storage

_TAKEN_WITHIN_S = 12.0  # a sidecar looks every second, one that was alone every six
_LOOK_S = 0.2
_SAID_EVERY = 5  # looks
_SPARE_S = 10.0
Kind = TypeVar("Kind", bound=Result)


@operation(Right.VIEW, "topic")
def nodes(office: Office, topic: str) -> list[str]:
    """The nodes from which a topic's consumer may be tried: this one first. Raises NotFound."""
    known = office.topic(topic)
    me = office.config.bus.node
    try:
        living = errands.living(office.storage(known.storage))
    except StorageError:
        living = []
    return [me, *(node for node in living if node != me)]


def ask(office: Office, node: str, errand: Errand, kind: type[Kind], longest_s: float) -> Kind:
    """Have it done there and wait, at most `longest_s` once it is begun.

    Raises UsageError for a node that does not share the topic's storage and for a job too large to travel, NotReachable when
    nobody does it, PepperbusError with that node's own words when it went wrong there.
    """
    known = nodes(office, errand.topic)
    if node not in known:
        raise UsageError(f"node {node!r}: must be one of {', '.join(known)}: they share the storage of {errand.topic}")
    if len(errand.content) > errands.MOST_BYTES:
        raise UsageError(f"content: to another node at most {errands.MOST_BYTES:,} bytes go along")
    return through(office.storage(office.topic(errand.topic).storage), node, errand, kind, longest_s)


def through(storage: Storage, node: str, errand: Errand, kind: type[Kind], longest_s: float) -> Kind:
    """The same through a storage of which it is known that `node` shares it. Raises NotReachable and PepperbusError."""
    word = errands.ask(storage, node, errand)
    try:
        done = _wait(storage, node, word, longest_s)
    finally:
        errands.forget(storage, node, word)
    if done.error:
        raise PepperbusError(f"node {node}: {done.error}")
    try:
        return msgspec.json.decode(done.answer, type=kind)
    except msgspec.MsgspecError as error:
        raise PepperbusError(f"node {node}: its answer is not understood here; does it run another version?") from error


def _wait(storage: Storage, node: str, word: str, longest_s: float) -> Errand:
    until = time.monotonic() + _TAKEN_WITHIN_S
    taken, looks = False, 0
    while time.monotonic() < until:
        gevent.sleep(_LOOK_S)
        found = errands.look(storage, node).get(word)
        if found is None:
            if taken:
                raise NotReachable(f"node {node} has just started and may have done what was asked")
            raise NotReachable(f"node {node} has just started and forgot what was asked; try again")
        if found.is_over:
            return found
        if found.taken and not taken:
            taken, until = True, time.monotonic() + longest_s + _SPARE_S
        looks += 1
        if not found.taken and looks % _SAID_EVERY == 0:
            errands.say_again(storage, node, word, looks)
    if taken:
        raise NotReachable(f"node {node} began, but gave no answer in {longest_s + _SPARE_S:.0f} s")
    raise NotReachable(f"node {node} did not take it in {_TAKEN_WITHIN_S:.0f} s: does its sidecar run ([web] listen)?")
