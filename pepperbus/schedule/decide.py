"""Which firings are due, and what becomes of each. Pure: no clock, no storage.

Floor 2. A firing that is no later than its grace is on time: a minute, or less where the next one is nearer, but 5 s always.
Those that are later were missed, because no node of the bus ran: `catch_up` says what becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pepperbus.config.timing import Schedule
from pepperbus.schedule.state import Run, State

_LEAST_GRACE_MS, _MOST_GRACE_MS = 5_000, 60_000
#: Firings looked at in one go (40 ms of work), and made up for in one go; the others have their turn half a second later.
_MOST_LOOKED_AT, _MOST_AT_ONCE = 5_000, 200


class Firing(NamedTuple):
    """One that pushes jobs. `late`: it was missed."""

    slot: int
    late: bool


def grace_ms(schedule: Schedule, slot: int) -> int:
    """How late the firing of `slot` may be and is on time all the same."""
    following = schedule.timing.next(slot)
    return max(_LEAST_GRACE_MS, min(_MOST_GRACE_MS, following - slot if following else _MOST_GRACE_MS))


def timing_key(schedule: Schedule) -> str:
    return f"{schedule.timing.expression} {schedule.timing.zone}"


def decide(
    schedule: Schedule, state: State, now_ms: int, by: str, is_running: Callable[[], bool]
) -> tuple[list[Firing], bool]:
    """The firings to push now; `state` is brought up to date but for their runs. Whether it changed at all.

    `is_running`: whether jobs of the last firing are unfinished; asked only for `overlap = skip`.
    """
    if state.timing != timing_key(schedule):
        # New, or changed: what it would have done before nobody has missed.
        known, state.timing = bool(state.timing), timing_key(schedule)
        state.until = max(state.until, now_ms - _LEAST_GRACE_MS) if known else now_ms
        return [], True
    slots = _due(schedule, state.until, now_ms)
    if not slots:
        return [], False
    state.until = slots[-1]
    if state.paused:
        state.remember(Run(slots[-1], now_ms, "paused", count=len(slots), by=by))
        return [], True
    on_time = [slot for slot in slots if now_ms - slot <= grace_ms(schedule, slot)]
    missed = slots[: len(slots) - len(on_time)]
    if len(slots) == _MOST_LOOKED_AT and not on_time and schedule.catch_up != "all":
        state.remember(Run(slots[-1], now_ms, "missed", count=len(slots), by=by))
        return [], True
    firings = [Firing(slot, False) for slot in on_time]
    if schedule.catch_up == "all":
        firings = [*(Firing(slot, True) for slot in missed), *firings]
        if len(firings) > _MOST_AT_ONCE:
            firings = firings[:_MOST_AT_ONCE]
            state.until = firings[-1].slot
        missed = []
    elif schedule.catch_up == "once" and missed and not on_time:
        firings, missed = [Firing(missed[-1], True)], missed[:-1]
    if missed:
        state.remember(Run(missed[-1], now_ms, "missed", count=len(missed), by=by))
    if schedule.overlap == "skip" and firings:
        # Of several at once the first makes the others overlap.
        skipped = firings if is_running() else firings[1:]
        firings = firings[: len(firings) - len(skipped)]
        if skipped:
            state.remember(Run(skipped[-1].slot, now_ms, "overlap", count=len(skipped), by=by))
    return firings, True


def _due(schedule: Schedule, until_ms: int, now_ms: int) -> list[int]:
    """Undecided firings up to now, the first _MOST_LOOKED_AT of them."""
    found: list[int] = []
    for slot in schedule.timing.after(until_ms):
        if slot > now_ms or len(found) >= _MOST_LOOKED_AT:
            break
        found.append(slot)
    return found
