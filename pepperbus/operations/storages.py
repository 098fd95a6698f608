"""Storages as operators look after them: how fast they fill and how long that can go on. Floor 4."""

from __future__ import annotations

from pathlib import Path

from pepperbus.errors import NotFound, UsageError
from pepperbus.journal import growth as store
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, operation
from pepperbus.storage import embedded_compact

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


class Compacted(Result):
    """Bytes of a storage's file, before and after."""

    name: str
    before: int
    after: int


@operation(Right.ADMIN, "name")
def compact(office: Office, name: str) -> Compacted:
    """Give back the disk space that jobs of the embedded storage `name` once took; its bus must not run.

    Raises NotFound; UsageError for another kind of storage; StorageRefused while it is in use, StorageUnavailable when the disk
    has no room for the copy.
    """
    config = office.config.storages.get(name)
    if config is None:
        raise NotFound(f"storage {name!r} does not exist; there are {', '.join(office.config.storages)}")
    if config.type != "embedded" or config.path is None:
        raise UsageError(f"storage {name} is of the type {config.type}: only an embedded one has a file to compact")
    before, after = embedded_compact.compact(Path(config.path))
    return Compacted(name, before, after)


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
