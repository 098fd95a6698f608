"""A topic as the Go system counted it: what waits, what failed, what is too old; failed jobs run again or deleted.

Floor 4. There a failed job lay in a retry list, whether it would be tried again or not, and one whose time was over in a
timeout list. Here those are delayed jobs that were tried before, dead ones, and dead ones whose `max_age` is over.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator

import gevent

from pepperbus.job import State
from pepperbus.operations import replays
from pepperbus.operations.office import Office
from pepperbus.operations.purge import deed
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, operation
from pepperbus.replay.model import MOVING, Replay
from pepperbus.replay.model import State as ReplayState
from pepperbus.replay.planning import AGED, has_failed
from pepperbus.replay.store import Replays
from pepperbus.storage.contract import Stored
from pepperbus.storage.selection import stamp

LOOK_AT_MOST = 5000  # of a state, for a length: beyond, the share found in these is taken for all
_PATIENCE_S, _LOOK_S = 3.0, 0.05  # for the ticker to move them
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
    """Run failed jobs again, the oldest first, as replays that begin at once: one of the dead, one of the delayed ones.

    `count` 0: all there are now; else at most AT_ONCE. Waits a little for them to have moved, for that is what their number
    meant to those who ask; of very many it is the number found by then. Raises NotFound, and UsageError when there are too
    many replays.
    """
    office.topic(topic)
    if count:
        made = [_of_oldest(office, topic, state, jobs) for state, jobs in _oldest(office, topic, count).items()]
    else:
        made = [_of_all(office, topic, state) for state in (State.DEAD, State.DELAYED)]
    return Moved(_moved(office, [one.id for one in made if one.id]))


def _of_oldest(office: Office, topic: str, state: State, jobs: list[tuple[int, int]]) -> replays.ReplayView:
    replay = _replay(office, topic, state, str(len(jobs)))
    replay.matched = replay.jobs = len(jobs)
    return replays.keep(office, replay, jobs)


def _of_all(office: Office, topic: str, state: State) -> replays.ReplayView:
    return replays.take(office, replays.Wish(topic, state=str(state)), _replay(office, topic, state, "all"))


def _replay(office: Office, topic: str, state: State, oldest: str) -> Replay:
    now_ms = office.clock.now_ms()
    made = Replay(topic=topic, source=str(state), words={"tried": oldest}, by=office.actor.name, at_ms=now_ms)
    made.changed_ms, made.goes, made.tried = now_ms, True, True
    return made


def _oldest(office: Office, topic: str, count: int) -> dict[State, list[tuple[int, int]]]:
    """state -> (job id, stamp) of its part of the `count` oldest: ids rise with time."""
    found: dict[State, list[tuple[int, int]]] = {}
    for one in heapq.nsmallest(min(count, replays.AT_ONCE), _failed(office, topic), key=lambda one: one.job_id):
        found.setdefault(one.state, []).append((one.job_id, stamp(one)))
    return found


def _moved(office: Office, numbers: list[int]) -> int:
    """How many ran again; of a replay that takes longer, how many will."""
    store = Replays(office.config.bus.data_dir)
    end = time.monotonic() + _PATIENCE_S
    while True:
        seen = [store.get(number) for number in numbers]
        under_way = [one for one in seen if one.state in (ReplayState.PLANNING, *MOVING)]
        if not under_way or time.monotonic() > end:
            return sum((one.jobs or one.matched) if one in under_way else one.replayed for one in seen)
        gevent.sleep(_LOOK_S)


@operation(Right.OPERATE, "topic", tells=("n",))
def clean(office: Office, topic: str) -> Moved:
    """Delete failed jobs for good. Raises NotFound."""
    office.topic(topic)
    ids = sorted(one.job_id for one in _failed(office, topic))  # read before the first one moves
    storage, moved = office.holder(topic), Moved(0)
    with office.journal_writer() as journal:
        for start in range(0, len(ids), _PAGE):
            batch = ids[start : start + _PAGE]
            moved.n += storage.remove(topic, batch)
            for job_id in batch:
                journal.add(deed(office, "removed", job_id, topic))
    return moved


def _failed(office: Office, topic: str) -> Iterator[Stored]:
    for state in (State.DELAYED, State.DEAD):
        yield from (one for one in _all(office, topic, state) if has_failed(one))


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
