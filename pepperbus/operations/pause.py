"""Pause and resume: state of the storage, so it survives restarts and every node sees it. Pushes go on.

Floor 4.
"""

from __future__ import annotations

from pepperbus.accounts.model import Right
from pepperbus.errors import PepperbusError
from pepperbus.operations.office import Office
from pepperbus.operations.results import Paused
from pepperbus.operations.rights import operation


@operation(Right.OPERATE, "name", tells=("topics",))
def pause(office: Office, name: str) -> Paused:
    """Feed nothing of `queue` or `queue/topic` any more; what runs, runs to its end."""
    return _set(office, name, True)


@operation(Right.OPERATE, "name", tells=("topics",))
def resume(office: Office, name: str) -> Paused:
    """Feed it again. Raises PepperbusError for a topic that its own file pauses: that is changed there."""
    held = [topic.full_name for topic in office.named(name) if topic.paused]
    if held:
        queue = held[0].partition("/")[0]
        raise PepperbusError(
            f"{', '.join(held)}: paused in the queue's file; `pepperbus queue set {queue} paused=no` (or edit it)"
        )
    return _set(office, name, False)


def _set(office: Office, name: str, paused: bool) -> Paused:
    topics = office.named(name)
    for topic in topics:
        office.storage(topic.storage).set_paused(topic.full_name, paused)
        office.wake(topic.full_name)  # this node's workers look at once, other nodes' within a second
    return Paused([topic.full_name for topic in topics], paused)
