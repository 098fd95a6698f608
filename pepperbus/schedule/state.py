"""A schedule's record: how far its firings are decided, whether it is paused, its last runs. One small text in a storage.

Floor 2: knows the storage contract. The record and the jobs of a firing are written in one step (`Storage.swap`): a process
killed at any moment has done both or neither, and of several nodes one is first and the others see its record. That is all
there is to "exactly once": no lease, no leader, no clean-up. (In `mode = pika` a Pika killed in the middle may do the jobs
without the record: then they are pushed again.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from pepperbus.config.model import Queue
from pepperbus.config.timing import Schedule
from pepperbus.storage.contract import Push, Storage

#: Runs that are remembered; and those that another storage of the queue has not got yet, at most.
KEPT, MOST_BEHIND = 20, 500
_TRIES = 50


class Run(msgspec.Struct, omit_defaults=True):
    """What became of one firing, or of `count` in a row. Times in ms, `at` when it was decided.

    `what`: pushed, late (pushed after its time), manual, missed, paused, overlap or full. `ids`: its jobs.
    """

    slot: int
    at: int
    what: str
    ids: list[str] = []
    count: int = 1
    by: str = ""  # node, or who ran it by hand


class State(msgspec.Struct, omit_defaults=True):
    """`until`: firings up to then are decided. `timing`: expression and zone that was for. `runs`: newest first.

    `behind`: another storage of the queue has got firings up to then only; 0: all have all.
    """

    until: int = 0
    timing: str = ""
    paused: str = ""  # by whom
    runs: list[Run] = []
    behind: int = 0

    def remember(self, *runs: Run) -> int:
        """Put them before the others; firings in a row that pushed nothing, for the same reason, are one.

        Returns how many were let go that another storage has not got.
        """
        lost = 0
        for run in runs:
            last = self.runs[0] if self.runs else None
            if last and not (run.ids or last.ids) and run.what == last.what:
                run.count += last.count
                self.runs = self.runs[1:]
            self.runs = [run, *self.runs]
            old, self.runs = self.runs[KEPT:], self.runs[:KEPT]
            needed = [one for one in old if self.behind and one.ids and one.slot > self.behind]
            self.runs += needed[: MOST_BEHIND - KEPT]
            lost += len(needed[MOST_BEHIND - KEPT :])
        return lost

    @property
    def missed_slot(self) -> int:
        """The firing that pushed nothing although it should have, while none has pushed since; else 0."""
        last = next((run for run in self.runs if run.what != "overlap"), None)
        return last.slot if last and last.what in ("missed", "full") and not self.paused else 0

    @property
    def last_ids(self) -> list[int]:
        """The jobs of the last firing that had any."""
        return next(([int(one) for one in run.ids] for run in self.runs if run.ids), [])


def key(schedule: Schedule) -> str:
    """The record's name in the storage."""
    return f"schedule/{schedule.queue}/{schedule.name}"


def storages(queue: Queue) -> dict[str, tuple[str, ...]]:
    """Storage -> the queue's topics (full names) in it that take jobs. The first storage decides, the others follow it.

    One whose topics are all closed stays in its place with none: the record must not move because a topic takes no jobs.
    """
    found: dict[str, tuple[str, ...]] = {}
    for topic in queue.topics.values():
        takes = (topic.full_name,) if topic.closed == "no" else ()
        found[topic.storage] = (*found.get(topic.storage, ()), *takes)
    return found


def read(text: str) -> State:
    """The record in its written form; a fresh one for "" and for what is no record."""
    try:
        return msgspec.json.decode(text, type=State) if text else State()
    except msgspec.MsgspecError:
        return State()


def bring(schedule: Schedule, source: Storage, target: Storage) -> None:
    """Move the record to where the schedule's jobs go now. Repeating is harmless. Raises StorageError."""
    name = key(schedule)
    if not (text := source.recall(name)):
        return
    old = read(text)

    def act(state: State) -> Sequence[Push]:
        state.until = max(state.until, old.until)
        state.timing = state.timing or old.timing
        state.paused = state.paused or old.paused
        state.runs = state.runs or old.runs
        return []

    change(target, schedule, act)
    source.swap(name, text, "")


def change(
    storage: Storage, schedule: Schedule, act: Callable[[State], Sequence[Push] | None]
) -> tuple[State, Sequence[Push] | None]:
    """Change the record by `act` (it may be asked again) and store the pushes it gives. Returns what is there then.

    `act` gives None to leave everything as it is; then, and when others were quicker all the time, None comes back with
    the record. Raises StorageError.
    """
    name = key(schedule)
    before = storage.recall(name)
    for _ in range(_TRIES):
        state = read(before)
        pushes = act(state)
        if pushes is None:
            break
        after = msgspec.json.encode(state).decode()
        found = storage.swap(name, before, after, pushes)
        if found == after:
            return state, pushes
        before = found  # another node was quicker
    return read(before), None
