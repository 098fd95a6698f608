"""Schedules as people see and steer them: when they fire, what became of the last firings, run now, pause.

Floor 4. The record they stand upon is the storage's (`schedule.state`), so every node sees the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from pepperbus.accounts.model import Right
from pepperbus.config.model import Queue
from pepperbus.config.timing import Schedule, local_name
from pepperbus.config.timing_words import words
from pepperbus.errors import NotFound, PepperbusError, StorageError, StorageRefused, UsageError
from pepperbus.job import State as JobState
from pepperbus.names import NAME_RULE, is_name
from pepperbus.operations import drafts, push, queues
from pepperbus.operations.office import Office, did_you_mean
from pepperbus.operations.queue_text import own_section
from pepperbus.operations.results import Pushed, QueueFile
from pepperbus.operations.rights import may, operation
from pepperbus.operations.schedule_results import ScheduleRun, ScheduleStatus, ScheduleSteered
from pepperbus.schedule import state as record
from pepperbus.storage.contract import Push

_NEXT = 5
#: A firing is decided within a second of its time; what has waited longer than this waits for something (s).
_LATE_S = 10.0


@operation(Right.VIEW)
def listing(office: Office) -> list[ScheduleStatus]:
    """Every schedule that may be seen, with its next times and its last runs. A storage's trouble is said in `error`."""
    return [
        _status(office, queue, schedule)
        for queue in office.config.queues.values()
        if may(office, Right.VIEW, queue.name)
        for schedule in queue.schedule.values()
    ]


@operation(Right.VIEW, "name")
def show(office: Office, name: str) -> ScheduleStatus:
    """One, `queue/schedule`. Raises NotFound."""
    queue, schedule = _found(office, name)
    return _status(office, queue, schedule)


@operation(Right.ADMIN, "name", tells=("what", "reload"))
def add(office: Office, name: str, settings: Mapping[str, str]) -> QueueFile:
    """A new schedule `queue/schedule`; `settings` are keys of `[schedule]`. The running bus reloads.

    Raises NotFound, PepperbusError when it exists, UsageError, ConfigError when the queue's file would be wrong.
    """
    queue, last = _split(name)
    if any(key.startswith(f"schedule/{last}/") for key in drafts.written(office, queue)):
        raise PepperbusError(f"schedule {name!r} exists already; `schedule set` changes it")
    return queues.set_keys(office, queue, paths(last, settings))


@operation(Right.ADMIN, "name", details=("unset",), tells=("what", "reload"))
def change(office: Office, name: str, settings: Mapping[str, str], unset: Iterable[str] = ()) -> QueueFile:
    """Set and unset keys of a schedule. Raises NotFound, UsageError, ConfigError."""
    queue, last = _written(office, name)
    return queues.set_keys(office, queue, paths(last, settings), list(paths(last, dict.fromkeys(unset, ""))))


@operation(Right.ADMIN, "name", tells=("what", "reload"))
def remove(office: Office, name: str) -> QueueFile:
    """Take a schedule out of its queue's file; what it has pushed stays. Raises NotFound."""
    queue, last = _written(office, name)
    keys = [key for key in drafts.written(office, queue) if key.startswith(f"schedule/{last}/")]
    return queues.set_keys(office, queue, {}, keys)


def paths(last: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Keys of the schedule `last` as `queue set` writes them."""
    return {f"schedule/{last}/{key}": text for key, text in settings.items()}


def _split(name: str) -> tuple[str, str]:
    """Raises UsageError for what cannot name a schedule."""
    queue, _slash, last = name.partition("/")
    if not is_name(last) or not own_section(f"schedule/{last}/expression"):
        raise UsageError(f"{name!r}: QUEUE/SCHEDULE is wanted, SCHEDULE being {NAME_RULE}, and no section of a topic")
    return queue, last


def _written(office: Office, name: str) -> tuple[str, str]:
    """The same of one that stands in its queue's file, whether the bus has taken it or not. Raises NotFound."""
    queue, _slash, last = name.partition("/")
    if not any(key.startswith(f"schedule/{last}/") for key in drafts.written(office, queue)):
        _found(office, name)
    return _split(name)


@operation(Right.OPERATE, "name", tells=("jobs",))
def run(office: Office, name: str) -> ScheduleSteered:
    """Push its jobs now, through the gateway; its own times stay as they are. Also while it is paused.

    Raises NotFound, and PepperbusError when the jobs were not accepted.
    """
    queue, schedule = _found(office, name)
    now_ms = office.clock.now_ms()
    pushed = Pushed(queue.name)
    for n in range(schedule.times if schedule.gap else 1):
        due_ms = now_ms + int(n * schedule.gap * 1000) if n else 0
        contents = [schedule.payload.encode()] * (1 if schedule.gap else schedule.times)
        pushed = push.through_gateway(office, queue, contents, due_ms, pushed)
        if pushed.error:
            raise PepperbusError(f"{name}: {pushed.error} ({pushed.accepted} of {schedule.times} jobs were accepted)")

    def remember(state: record.State) -> Sequence[Push]:
        state.remember(record.Run(now_ms, now_ms, "manual", pushed.ids, by=office.actor.name))
        return ()

    record.change(_storage(office, queue), schedule, remember)
    return ScheduleSteered(name, "run", pushed.ids)


@operation(Right.OPERATE, "name")
def pause(office: Office, name: str) -> ScheduleSteered:
    """It pushes nothing any more, on no node; what it would have pushed meanwhile is not made up for."""
    return _set_paused(office, name, office.actor.name)


@operation(Right.OPERATE, "name")
def resume(office: Office, name: str) -> ScheduleSteered:
    """Its next firing pushes again."""
    return _set_paused(office, name, "")


def _set_paused(office: Office, name: str, by: str) -> ScheduleSteered:
    queue, schedule = _found(office, name)

    def mark(state: record.State) -> Sequence[Push] | None:
        if bool(state.paused) == bool(by):
            return None
        state.paused = by
        return ()

    record.change(_storage(office, queue), schedule, mark)
    return ScheduleSteered(name, "paused" if by else "resumed")


def _found(office: Office, name: str) -> tuple[Queue, Schedule]:
    queue_name, slash, last = name.partition("/")
    known = [one.full_name for queue in office.config.queues.values() for one in queue.schedule.values()]
    queue = office.config.queues.get(queue_name)
    schedule = queue.schedule.get(last) if queue and slash else None
    if queue is None or schedule is None:
        raise NotFound(f"no schedule {name!r}, QUEUE/SCHEDULE is wanted{did_you_mean(name, known)}")
    return queue, schedule


def _storage(office: Office, queue: Queue):  # type: ignore[no-untyped-def]  # the contract's Storage
    return office.storage(next(iter(record.storages(queue))))


def _status(office: Office, queue: Queue, schedule: Schedule) -> ScheduleStatus:
    now_ms = office.clock.now_ms()
    status = ScheduleStatus(
        schedule.full_name,
        queue.name,
        schedule.timing.expression,
        schedule.timing.zone or local_name(),
        {language: words(schedule.timing, language) for language in ("en", "zh")},
        list(islice(schedule.timing.after(now_ms), _NEXT)),
        schedule.payload,
        schedule.times,
        schedule.gap,
        schedule.jitter,
        schedule.catch_up,
        schedule.overlap,
    )
    try:
        state = record.read(_storage(office, queue).recall(record.key(schedule)))
        status.paused, status.paused_by = bool(state.paused), state.paused
        status.runs = [_run(office, queue, one) for one in state.runs[: record.KEPT]]
        status.missed_ms = next((one.slot for one in state.runs if one.what in ("missed", "full")), 0)
        status.late_s = _late_s(schedule, state, now_ms)
    except (StorageError, StorageRefused) as error:
        status.error = str(error)
    return status


def _late_s(schedule: Schedule, state: record.State, now_ms: int) -> float:
    """How late the oldest undecided firing is. A schedule that no node ever looked at has none."""
    due = schedule.timing.next(state.until) if state.until else 0
    late_s = (now_ms - due) / 1000
    return late_s if due and late_s > _LATE_S else 0.0


def _run(office: Office, queue: Queue, run: record.Run) -> ScheduleRun:
    return ScheduleRun(run.slot, run.at, run.what, run.count, run.ids, _outcome(office, queue, run), run.by)


def _outcome(office: Office, queue: Queue, run: record.Run) -> str:
    """Of its jobs in all topics the one that matters most: dead, running, waiting, or done (no longer there)."""
    if not run.ids:
        return ""
    places: dict[str, list[str]] = {}  # closed topics too: what lies there still runs
    for topic in queue.topics.values():
        places.setdefault(topic.storage, []).append(topic.full_name)
    states = {
        found.state
        for job_id in run.ids[:_NEXT]
        for name, topics in places.items()
        for found in office.storage(name).find(int(job_id), topics)
    }
    for state, word in ((JobState.DEAD, "dead"), (JobState.LEASED, "running")):
        if state in states:
            return word
    return "waiting" if states else "done"
