"""What operations on schedules answer. Floor 4."""

from __future__ import annotations

import msgspec

from pepperbus.operations.results import Result


class ScheduleRun(Result):
    """What became of a firing, or of `count` in a row; `slot_ms` its time (of the last), `at_ms` when it was decided.

    `what`: pushed, late (made up for), manual, missed, paused, overlap (the one before was not finished) or full (no room
    in the queue). `outcome` of its jobs: done, waiting, running or dead. `by`: the node, or who ran it by hand.
    """

    slot_ms: int
    at_ms: int
    what: str
    count: int = 1
    jobs: list[str] = msgspec.field(default_factory=list)
    outcome: str = ""
    by: str = ""


class ScheduleStatus(Result):
    """A schedule: `words` say in each language when it fires, `next_ms` its next times, `runs` newest first.

    `late_s`: how late a firing is that nobody has decided yet (no node looks, or its storage is away); `missed_ms`: the
    latest firing that pushed nothing although it should have, among the runs that are remembered.
    """

    name: str
    queue: str
    expression: str
    zone: str
    words: dict[str, str]
    next_ms: list[int]
    payload: str
    times: int
    gap_s: float
    jitter_s: float
    catch_up: str
    overlap: str
    paused: bool = False
    paused_by: str = ""
    late_s: float = 0.0
    missed_ms: int = 0
    runs: list[ScheduleRun] = msgspec.field(default_factory=list)
    error: str = ""


class ScheduleSteered(Result):
    """`what`: run, paused or resumed. `jobs`: the ids of what was pushed."""

    name: str
    what: str
    jobs: list[str] = msgspec.field(default_factory=list)
