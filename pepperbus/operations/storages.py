"""Storages as operators look after them: how fast they fill and how long that can go on. Floor 4."""

from __future__ import annotations

from pepperbus.journal import growth as store
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, operation

_POINTS = 60


class Growth(Result):
    """`per_day`: bytes a day of late, below 0 when it shrinks. `days_left`: until it is full at that speed; 0 = never, unknown.

    `known`: whether there is enough to say. `course`: how much was used, oldest first.
    """

    name: str
    known: bool = False
    per_day: float = 0.0
    days_left: float = 0.0
    course: list[int] = []


@operation(Right.VIEW)
def growth(office: Office) -> list[Growth]:
    """Of every storage of the configuration."""
    known, now_ms = store.read(office.config.bus.data_dir), office.clock.now_ms()
    return [_growth(name, known.get(name, []), now_ms) for name in office.config.storages]


def _growth(name: str, fills: list[store.Fill], now_ms: int) -> Growth:
    found = Growth(name, course=[fill.used for fill in fills[-_POINTS:]])
    speed = store.per_day(fills, now_ms)
    if speed is not None:
        last = fills[-1]
        found.known, found.per_day = True, speed
        if speed > 0 and last.limit:
            found.days_left = max(last.limit - last.used, 0) / speed
    return found
