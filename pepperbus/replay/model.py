"""What a replay is: a snapshot of jobs that are to run once more, a first share, a rate, a limit of errors.

Floor 2: values only. It knows no storage and no database.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

from pepperbus.errors import UsageError

_MOST_FIRST = 2_000_000
ENOUGH = 10  # fates known before a share of errors means anything


class State(StrEnum):
    """Where a replay is. Only in GRAY and RUNNING do jobs move."""

    PLANNING = "planning"  # the bus looks for the jobs; `matched` so far
    PLANNED = "planned"  # the snapshot is taken, nothing has moved
    GRAY = "gray"  # the first share is on its way
    WAITING = "waiting-for-decision"  # the first share has been replayed; somebody looks
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"  # the share of errors was reached; `why` has the figures
    CANCELLED = "cancelled"
    DONE = "done"


MOVING = (State.GRAY, State.RUNNING)
ENDED = (State.CANCELLED, State.DONE)
#: What a person may do in which state.
DEEDS: dict[str, tuple[State, ...]] = {
    "go": (State.PLANNING, State.PLANNED, State.WAITING),
    "pause": (State.GRAY, State.RUNNING),
    "resume": (State.PAUSED, State.STOPPED),
    "cancel": (
        State.PLANNING,
        State.PLANNED,
        State.GRAY,
        State.WAITING,
        State.RUNNING,
        State.PAUSED,
        State.STOPPED,
    ),
}


class Phase(IntEnum):
    """How far one job of a snapshot came. The numbers are on disk."""

    NEW = 0
    MOVING = 1  # about to be made ready: after a crash the storage and the journal say whether it was
    MOVED = 2
    GONE = 3  # it was not there any more, or not in the state it was selected in
    BACK = 4  # the second consumer did not do it: it lies where it was, for the rest to take


class Fate(IntEnum):
    """What became of a replayed job. The numbers are on disk."""

    OPEN = 0
    SUCCEEDED = 1
    FAILING = 2  # an attempt failed, others follow
    FAILED = 3  # dead again; or, at the second consumer, not done
    REMOVED = 4  # deleted by hand meanwhile


class Replay(msgspec.Struct, kw_only=True):
    """One replay. Times are wall time in ms; `rate` is jobs a second (0: no limit), shares are 0 to 1 (0: none).

    `source`: the state the jobs were selected in: dead, delayed, or done (kept by the queue's `history`). `gray`: so many
    jobs first. `canary`: those go to the topic's second consumer, straight, and leave the storage when it did them. `jobs`
    is the size of the snapshot, `matched` what the selection found before `sample`. `judged`, `judged_failed`: what was
    known when a person last let it go on.

    Of a replay that is being planned: `matched` grows, `cursor` is where the look goes on (`looked_all`: it is over), `want`
    the first share as a person said it; `goes`: it begins as soon as it is planned.
    """

    id: int = 0
    topic: str
    source: str = "dead"
    words: dict[str, str] = msgspec.field(default_factory=dict)
    by: str = ""
    at_ms: int = 0
    matched: int = 0
    jobs: int = 0
    sample: float = 1.0
    gray: int = 0
    canary: bool = False
    rate: float = 0.0
    stop_at_errors: float = 0.0
    state: State = State.PLANNED
    why: str = ""
    rest: bool = False  # past its first share
    replayed: int = 0
    gone: int = 0
    succeeded: int = 0
    failing: int = 0
    failed: int = 0
    removed: int = 0
    judged: int = 0
    judged_failed: int = 0
    changed_ms: int = 0
    position: int = 0  # in the journal
    since_ms: int = 0
    error: str = ""
    text: str = ""
    tried: bool = (
        False  # of dead and delayed ones only those that failed: not of old age, and not before their first attempt
    )
    cursor: str = ""
    looked_all: bool = True
    want: str = ""
    goes: bool = False
    numbered: int = 0  # of the rest, while the snapshot gets its order
    numbered_first: int = 0
    highest_pick: int = -1  # of the sample, and of the first share; -1: not known yet
    highest_first: int = -1

    @property
    def first(self) -> State:
        """The state in which it begins, or goes on."""
        return State.RUNNING if self.rest or not self.gray else State.GRAY

    @property
    def known(self) -> int:
        """Jobs of which something has been heard."""
        return self.succeeded + self.failing + self.failed

    @property
    def unknown(self) -> int:
        """Replayed jobs of which nothing has been heard."""
        return self.replayed - self.known - self.removed

    def over_limit(self) -> str:
        """The figures when too many failed again since a person last looked, else ""."""
        known = self.known - self.judged
        failed = self.failing + self.failed - self.judged_failed
        enough = min(ENOUGH, max(1, self.jobs - self.judged))
        if not self.stop_at_errors or known < enough or failed / known < self.stop_at_errors:
            return ""
        return f"{failed} of {known} failed again ({failed / known:.0%}; the limit is {self.stop_at_errors:.0%})"


class Item(msgspec.Struct, array_like=True):
    """One job of a snapshot. `stamp` tells it from the same job moved and come back: when it died, or was due."""

    number: int
    job_id: int
    phase: Phase = Phase.NEW
    fate: Fate = Fate.OPEN
    stamp: int = 0
    at_ms: int = 0  # when it was about to move


class Deed(msgspec.Struct):
    """Who did what to a replay. `who` "": the bus itself."""

    at_ms: int
    who: str
    what: str
    why: str = ""


def gray_of(text: str, jobs: int) -> int:
    """`5%` or `20` of so many jobs; "" is 0. Raises UsageError."""
    wrong = UsageError(f"{text!r} is no first share: say 5% or a number of jobs")
    text = text.strip()
    if not text:
        return 0
    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else 0.0
        number = 0 if text.endswith("%") else int(text)
    except ValueError:
        raise wrong from None
    if not (0 < share <= 1 or 0 < number <= _MOST_FIRST):
        raise wrong
    return min(jobs, number or max(1, round(jobs * share)))
