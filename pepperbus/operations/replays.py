"""Replays: jobs of a topic run once more, a first share before the rest, at a rate, with a limit of errors.

Floor 4. Here they are planned, looked at and steered; the ticker carries them out (`ticker.replays`), whoever closes their page
meanwhile. Planning takes a snapshot: what fails or arrives later is not part of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import gevent
import msgspec

from pepperbus import stats
from pepperbus.accounts.model import Right
from pepperbus.errors import NotFound, UsageError
from pepperbus.ids import parse_id
from pepperbus.job import State as JobState
from pepperbus.journal import since
from pepperbus.journal.finished import Finished
from pepperbus.operations.jobs import stored_of
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import may, operation, require, system_of
from pepperbus.replay import planning, plans
from pepperbus.replay.model import DEEDS, ENDED, Deed, Replay, State, gray_of
from pepperbus.replay.store import Replays
from pepperbus.storage.selection import Selection, stamp

SOURCES = ("dead", "delayed", "done")
AT_ONCE = 20_000  # jobs that whoever plans looks at himself; beyond, the bus goes on
_MOST_IDS = 10_000


@dataclass(frozen=True)
class Wish:
    """Which jobs: these ids, or all in `state` that match. `error` is part of the reason, `text` of the content.

    `since_ms`: died, was done, or was accepted if it is delayed, since then.
    """

    topic: str
    ids: tuple[int, ...] = ()
    state: str = "dead"
    error: str = ""
    since_ms: int = 0
    text: str = ""


class ReplayView(Result):
    """A replay as people see it. `left`: jobs not yet replayed; `unknown`: replayed and not heard of.

    `failing`: failed again and will be retried; `failed`: dead again; `removed`: deleted meanwhile; `gone`: were not there any
    more when their turn came. `more`: `matched` is what was found so far. `can`: what may be done now. `estimate_s`: how long
    the rest takes. `deeds`: of one replay only.
    """

    id: int
    topic: str
    state: str
    why: str = ""
    source: str = "dead"
    words: dict[str, str] = msgspec.field(default_factory=dict)
    by: str = ""
    at_ms: int = 0
    changed_ms: int = 0
    matched: int = 0
    jobs: int = 0
    sample: float = 1.0
    gray: int = 0
    canary: bool = False
    rate: float = 0.0
    stop_at_errors: float = 0.0
    replayed: int = 0
    left: int = 0
    gone: int = 0
    succeeded: int = 0
    failing: int = 0
    failed: int = 0
    removed: int = 0
    unknown: int = 0
    estimate_s: float = 0.0
    dry_run: bool = False
    more: bool = False
    can: list[str] = msgspec.field(default_factory=list)
    deeds: list[Deed] = msgspec.field(default_factory=list)


def wish(
    topic: str, ids: tuple[str, ...] = (), state: str = "", error: str = "", since_ms: int = 0, text: str = ""
) -> Wish:
    """A wish from words as people type them. Raises UsageError naming the word that is wrong."""
    try:
        numbers = tuple(parse_id(one) for one in ids)
    except ValueError as wrong:
        raise UsageError(str(wrong)) from wrong
    if (state or "dead") not in SOURCES:
        raise UsageError(f"{state} jobs cannot be replayed; {', '.join(SOURCES)} ones can")
    if ids and (error or since_ms or text):
        raise UsageError("job ids and a filter exclude each other")
    if len(numbers) > _MOST_IDS:
        raise UsageError(f"{len(numbers)} job ids at once, {_MOST_IDS} are the most: a filter takes any number")
    return Wish(topic, numbers, state or "dead", error, since_ms, text)


@operation(
    Right.OPERATE,
    "selection",
    details=("selection", "sample", "gray", "canary", "rate", "stop_at_errors", "go"),
    tells=("id", "matched", "jobs"),
)
def plan(
    office: Office,
    selection: Wish,
    *,
    sample: float = 1.0,
    gray: str = "",
    canary: bool = False,
    rate: float = 0.0,
    stop_at_errors: float = 0.0,
    go: bool = False,
    dry_run: bool = False,
) -> ReplayView:
    """Take a snapshot of the jobs that match, and keep it as a replay. `dry_run`: only tell what it would be.

    Of very many only a part is looked at here: then it is `planning`, and the bus finds the rest.
    `sample`: this share of them, by chance. `gray`: `5%` or a number of jobs first, by chance; then it waits for `go`.
    `canary`: those go to the topic's second consumer. `rate`: jobs a second. `stop_at_errors`: this share failing again stops
    it. `go`: begin at once. Nothing is kept when nothing matches. Raises UsageError and NotFound.
    """
    _check(sample, rate, stop_at_errors)
    first = gray_of(gray, AT_ONCE)
    if canary:
        _check_canary(office, selection.topic, first)
    replay = Replay(topic=selection.topic, source=selection.state, words=_words(selection), by=office.actor.name)
    replay.at_ms = replay.changed_ms = office.clock.now_ms()
    replay.since_ms, replay.error, replay.text = selection.since_ms, selection.error, selection.text
    replay.sample, replay.rate, replay.stop_at_errors = sample, rate, stop_at_errors
    replay.want, replay.canary, replay.goes = gray, canary, go
    return take(office, selection, replay, dry_run)


def take(office: Office, selection: Wish, replay: Replay, dry_run: bool = False) -> ReplayView:
    """Look for the jobs of `replay` and keep it, if there are any. Part of an operation that asks who may."""
    jobs = _found_at_once(office, selection, replay)
    replay.matched = len(jobs)
    if not replay.cursor:
        jobs = _chosen(replay, jobs)
    elif dry_run:
        _guess(office, selection, replay)
    if dry_run or not (jobs or replay.cursor):
        return _view(office, replay, dry_run=True)
    return keep(office, replay, jobs)


def keep(office: Office, replay: Replay, jobs: list[tuple[int, int]]) -> ReplayView:
    """Keep it with what was found of its snapshot; it begins if it `goes`. Part of an operation that asks who may."""
    database = office.config.bus.data_dir / "journal.db"
    replay.position = gevent.get_hub().threadpool.apply(since.end, (database,))
    store = Replays(office.config.bus.data_dir)
    if replay.cursor:
        return _view(office, plans.begin(store, replay, jobs))
    replay = store.plan(replay, jobs)
    if replay.goes:
        replay = store.steer(replay.id, "go", office.actor.name, office.clock.now_ms())
    return _view(office, replay)


def _chosen(replay: Replay, jobs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The sample in its order, the first share in front; the replay's figures follow."""
    if replay.sample < 1.0:
        jobs = random.sample(jobs, max(1, round(len(jobs) * replay.sample)) if jobs else 0)
    jobs.sort()
    first = gray_of(replay.want, len(jobs))
    replay.jobs = len(jobs)
    replay.gray, replay.canary = (first, replay.canary) if first < len(jobs) or replay.canary else (0, False)
    return _gray_first(jobs, replay.gray)


def _guess(office: Office, selection: Wish, replay: Replay) -> None:
    """How many there may be, where counting them all would take long: at least what was found."""
    if (
        not (selection.error or selection.text or selection.since_ms or replay.tried)
        and selection.state != planning.FINISHED
    ):
        depth = office.holder(selection.topic).depth(selection.topic)
        replay.matched = max(replay.matched, depth.dead if selection.state == "dead" else depth.delayed)
        replay.looked_all, replay.cursor = True, ""
    replay.jobs = max(1, round(replay.matched * replay.sample)) if replay.matched else 0
    replay.gray = gray_of(replay.want, replay.jobs)


def _check(sample: float, rate: float, stop_at_errors: float) -> None:
    if not 0 < sample <= 1 or not 0 <= stop_at_errors <= 1:
        raise UsageError("a share is more than 0 and at most 1 (100%)")
    if not 0 <= rate < 1e9:
        raise UsageError("a rate is a positive number of jobs a second")


def _check_canary(office: Office, topic: str, has_first: object) -> None:
    found = office.config.topic(topic)
    if found is None or found.canary is None:
        raise UsageError(f"{topic} has no second consumer: its key canary names one")
    if not has_first:
        raise UsageError("the second consumer gets the first share: say how many jobs, or which share")


def _gray_first(jobs: list[tuple[int, int]], gray: int) -> list[tuple[int, int]]:
    """The first share is chosen by chance: the oldest jobs are seldom like the others."""
    if not gray:
        return jobs
    chosen = set(random.sample(range(len(jobs)), gray))
    return [jobs[i] for i in sorted(chosen)] + [job for i, job in enumerate(jobs) if i not in chosen]


def _words(selection: Wish) -> dict[str, str]:
    """What it was selected by, for people."""
    ids = (
        f"{len(selection.ids)}: {selection.ids[0]}" + (" …" if len(selection.ids) > 1 else "") if selection.ids else ""
    )
    since_ms = str(selection.since_ms) if selection.since_ms else ""
    words = {"ids": ids, "error": selection.error, "text": selection.text, "since_ms": since_ms}
    return {name: word for name, word in words.items() if word}


def _found_at_once(office: Office, selection: Wish, replay: Replay) -> list[tuple[int, int]]:
    """(job id, stamp) of what matches, as far as one look goes; beyond it `replay.cursor` says where to go on."""
    storage, data_dir = office.holder(selection.topic), office.config.bus.data_dir
    if selection.state == planning.FINISHED:
        replay.since_ms = _reach(office, selection)
        if selection.ids:
            return _finished(office, selection, replay.since_ms)
    elif selection.ids:
        return list(_these(office, selection))
    jobs: dict[int, int] = {}
    looked = 0
    while True:
        portion = planning.look(replay, storage, data_dir)
        jobs.update(portion.jobs)
        looked += portion.looked
        replay.cursor = portion.cursor
        if not portion.cursor or looked >= AT_ONCE:
            return list(jobs.items())


def _these(office: Office, selection: Wish) -> Iterator[tuple[int, int]]:
    state = JobState(selection.state)
    for stored in stored_of(office, Selection(selection.topic, selection.ids, state)):
        if stored.state is not state:
            raise UsageError(f"job {stored.job_id} is {stored.state}, not {state}")
        yield stored.job_id, stamp(stored)


def _reach(office: Office, selection: Wish) -> int:
    """Since when the queue's `history` has what is done."""
    queue = office.queue(selection.topic.partition("/")[0])
    office.topic(selection.topic)
    if not queue.history:
        raise UsageError(f"queue {queue.name} keeps no finished jobs: its key history says how long")
    if not office.config.takes(selection.topic):
        raise UsageError(
            f"{selection.topic} is closed: finished jobs would be new ones there; let it take jobs again first"
        )
    if selection.error:
        raise UsageError("finished jobs have no error to select by")
    return max(selection.since_ms, office.clock.now_ms() - int(queue.history * 1000))


def _finished(office: Office, selection: Wish, since_ms: int) -> list[tuple[int, int]]:
    kept, found = Finished(office.config.bus.data_dir), []
    for job_id in selection.ids:
        one = kept.find(selection.topic, job_id, since_ms)
        if one is None:
            raise NotFound(f"job {job_id} is not among the finished jobs of {selection.topic} that are kept")
        found.append(one)
    return found


@operation(Right.VIEW, "topic")
def listing(office: Office, topic: str = "") -> list[ReplayView]:
    """The newest first, of one topic or of all that this person may see."""
    found = Replays(office.config.bus.data_dir).newest(topic)
    return [_view(office, one) for one in found if may(office, Right.VIEW, one.topic)]


@operation(Right.VIEW)
def show(office: Office, number: int) -> ReplayView:
    """One replay with what was done to it. Raises NotFound."""
    store = Replays(office.config.bus.data_dir)
    replay = _seen(office, store, number, Right.VIEW, "look at")
    shown = _view(office, replay)
    shown.deeds = store.deeds(number)
    return shown


@operation(Right.VIEW, audited=True, details=("number", "what"), tells=("id", "topic", "state"))
def steer(office: Office, number: int, what: str) -> ReplayView:
    """`go`, `pause`, `resume` or `cancel`. Raises NotFound, and UsageError in a state where that means nothing.

    `go` begins a planned replay, or takes the rest after a look at the first share. Needs the right to operate its topic.
    """
    if what not in DEEDS:
        raise UsageError(f"{what!r}: allowed are {', '.join(DEEDS)}")
    store = Replays(office.config.bus.data_dir)
    _seen(office, store, number, Right.OPERATE, what)
    return _view(office, store.steer(number, what, office.actor.name, office.clock.now_ms()))


def _seen(office: Office, store: Replays, number: int, right: Right, what: str) -> Replay:
    """The replay, when this person has `right` on its topic; who may not even look is told nothing of it."""
    if number >= 1 << 63:  # more than the file can name
        raise NotFound(f"no replay {number}")
    replay = store.get(number)
    if not may(office, Right.VIEW, replay.topic):
        raise NotFound(f"no replay {number}")
    require(office, right, system_of(office, replay.topic), f"{what} replay {number}")
    return replay


def _view(office: Office, replay: Replay, dry_run: bool = False) -> ReplayView:
    """A replay for people."""
    same = {name: getattr(replay, name) for name in ReplayView.__struct_fields__ if name in Replay.__struct_fields__}
    shown = ReplayView(**{**same, "state": str(replay.state)})
    shown.unknown, shown.dry_run = replay.unknown, dry_run
    shown.left = 0 if replay.state in ENDED else max(0, replay.jobs - replay.replayed - replay.gone)
    shown.more = bool(replay.cursor) or replay.state is State.PLANNING
    shown.can = [] if dry_run else [what for what, states in DEEDS.items() if replay.state in states]
    if replay.state is State.PLANNING and replay.goes:
        shown.can.remove("go")
    shown.estimate_s = _estimate(office, replay.topic, shown.left, replay.rate)
    return shown


def _estimate(office: Office, topic: str, jobs: int, rate: float) -> float:
    """Seconds: at the rate, and not faster than attempts have taken since the bus started."""
    known = office.config.topic(topic)
    by_rate = jobs / rate if rate else 0.0
    if known is None or not jobs:
        return by_rate
    totals = stats.read_all(office.config.bus.run_dir / "stats", {topic}).get(topic)
    run_s = totals.histograms["run"].percentile(0.5) if totals else 0.0
    return max(by_rate, jobs * run_s / known.concurrency)
