"""A topic as the Go system counted it: what waits, what failed, what is too old; failed jobs run again or deleted.

Floor 4. There a failed job lay in a retry list, whether it would be tried again or not, and one whose time was over in a
timeout list. Here those are delayed jobs that were tried before, dead ones, and dead ones whose `max_age` is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pepperbus.job import State
from pepperbus.operations.office import Office
from pepperbus.operations.purge import deed
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, operation
from pepperbus.storage.contract import Stored

LOOK_AT_MOST = 5000  # of a state, for a length: beyond, the share found in these is taken for all
AGED = "max_age:"  # how the reason of a job begins that is dead of old age
_PAGE = 500


class Lengths(Result):
    """`normal`: ready and with workers. `retry`: waits for another attempt, or dead of failures. `timeout`: of old age."""

    normal: int
    retry: int
    timeout: int


class Moved(Result):
    """How many failed jobs were run again or deleted."""

    n: int


@operation(Right.VIEW, "topic")
def lengths(office: Office, topic: str) -> Lengths:
    """The three lengths of `queue/topic`. Raises NotFound."""
    office.topic(topic)
    depth = office.holder(topic).depth(topic)
    tried = _share(office, topic, State.DELAYED, depth.delayed, lambda one: one.attempts > 0)
    aged = _share(office, topic, State.DEAD, depth.dead, lambda one: one.reason.startswith(AGED))
    return Lengths(depth.ready + depth.leased, tried + depth.dead - aged, aged)


@operation(Right.OPERATE, "topic", details=("count",), tells=("n",))
def recover(office: Office, topic: str, count: int = 0) -> Moved:
    """Run failed jobs again at once, the oldest first; `count` 0: all there are now. Raises NotFound."""
    moved = _each(office, topic, "replayed", count, office.holder(topic).replay)
    office.wake(topic)
    return moved


@operation(Right.OPERATE, "topic", tells=("n",))
def clean(office: Office, topic: str) -> Moved:
    """Delete failed jobs for good. Raises NotFound."""
    return _each(office, topic, "removed", 0, office.holder(topic).remove)


def _each(office: Office, topic: str, what: str, count: int, act: Callable[[str, list[int]], int]) -> Moved:
    office.topic(topic)
    ids = sorted(_failed(office, topic))  # ids rise with time; read before the first one moves
    ids = ids[:count] if count else ids
    moved = Moved(0)
    with office.journal_writer() as journal:
        for start in range(0, len(ids), _PAGE):
            batch = ids[start : start + _PAGE]
            moved.n += act(topic, batch)
            for job_id in batch:
                journal.add(deed(office, what, job_id, topic))
    return moved


def _failed(office: Office, topic: str) -> Iterator[int]:
    yield from (one.job_id for one in _all(office, topic, State.DELAYED) if one.attempts > 0)
    yield from (one.job_id for one in _all(office, topic, State.DEAD) if not one.reason.startswith(AGED))


def _all(office: Office, topic: str, state: State) -> Iterator[Stored]:
    storage, cursor = office.holder(topic), ""
    while True:
        jobs, cursor = storage.peek(topic, state, cursor, _PAGE)
        yield from jobs
        if not cursor:
            return


def _share(office: Office, topic: str, state: State, total: int, counts: Callable[[Stored], bool]) -> int:
    """How many of `total` jobs count, from a bounded look."""
    seen = found = 0
    for one in _all(office, topic, state) if total else ():
        seen += 1
        found += counts(one)
        if seen >= LOOK_AT_MOST:
            break
    return min(total, found * max(total, seen) // seen) if seen else 0
