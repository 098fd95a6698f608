"""What a topic or queue did over time, from the samples that the ticker keeps. Floor 4.

A second's resolution for the last hour, a minute's for a month, always few enough points to draw.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gevent
import msgspec

from pepperbus.errors import UsageError
from pepperbus.journal import samples
from pepperbus.journal.samples import BLOCK_S, COUNTED, GAUGES, MINUTE_S, Sample
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, operation

#: How far back one may look -> seconds a point.
STEPS = {300: 1, 3600: 10, 6 * 3600: 60, 86400: 240, 7 * 86400: 1800, 30 * 86400: 7200}
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
Column = list[float | None]


class Course(Result):
    """Points `step_s` apart; `at` is unix seconds, the beginning of each. None: nobody looked then, or nothing was timed.

    `counts`: per second. `gauges`: at the end of the point. `wait`, `run`: percentiles in seconds, merged from histograms.
    """

    step_s: int
    at: list[int]
    counts: dict[str, Column] = msgspec.field(default_factory=dict)
    gauges: dict[str, Column] = msgspec.field(default_factory=dict)
    wait: dict[str, Column] = msgspec.field(default_factory=dict)
    run: dict[str, Column] = msgspec.field(default_factory=dict)


@operation(Right.VIEW, "name")
def course(office: Office, name: str, back_s: int = 3600) -> Course:
    """How `queue/topic` or `queue` fared in the last `back_s`, one of `STEPS`. Raises NotFound and UsageError."""
    office.named(name)
    if back_s not in STEPS:
        raise UsageError(f"back: {back_s} must be one of {', '.join(map(str, STEPS))} seconds")
    database = office.config.bus.data_dir / "history.db"
    made: Course = gevent.get_hub().threadpool.apply(_course, (database, name, back_s, int(time.time())))
    return made


def _course(database: Path, name: str, back_s: int, now_s: int) -> Course:
    step = STEPS[back_s]
    width = BLOCK_S if step < MINUTE_S else MINUTE_S
    begin = now_s - back_s
    begin -= begin % max(step, width)
    rows, looked = samples.read(database, name, width, begin)
    made = Course(step, list(range(begin, now_s - now_s % max(step, width), step)))
    if step < width:
        _by_second(made, rows, looked)
    else:
        _by_step(made, rows, looked, width)
    return made


def _by_second(made: Course, rows: list[tuple[int, Sample]], looked: set[int]) -> None:
    known = dict(rows)
    for i, name in enumerate(COUNTED):
        made.counts[name] = [_second(known, looked, at, i) for at in made.at]
    _stand(made, rows, looked, BLOCK_S)
    for which in ("wait", "run"):
        columns = {
            share: [_share(known.get(at - at % BLOCK_S), which, q) for at in made.at] for share, q in SHARES.items()
        }
        setattr(made, which, columns)


def _second(known: dict[int, Sample], looked: set[int], at: int, i: int) -> float | None:
    block = at - at % BLOCK_S
    sample = known.get(block)
    if sample is None or not sample.seconds:
        return 0.0 if block in looked else None
    second = sample.seconds[at - block]
    return float(second[i]) if second else 0.0


def _by_step(made: Course, rows: list[tuple[int, Sample]], looked: set[int], width: int) -> None:
    merged: dict[int, Sample] = {}
    for at, sample in rows:
        point = at - at % made.step_s
        if point in merged:
            merged[point].add(sample)
        else:
            merged[point] = sample
    seen = {at - at % made.step_s for at in looked}
    for i, name in enumerate(COUNTED):
        made.counts[name] = [
            merged[at].counts[i] / made.step_s if at in merged else 0.0 if at in seen else None for at in made.at
        ]
    _stand(made, rows, seen, made.step_s)
    for which in ("wait", "run"):
        columns = {share: [_share(merged.get(at), which, q) for at in made.at] for share, q in SHARES.items()}
        setattr(made, which, columns)


def _stand(made: Course, rows: list[tuple[int, Sample]], looked: set[int], grain: int) -> None:
    """The gauges: what was last said holds until something else is said, as long as somebody looked."""
    said = iter([*rows, (1 << 60, None)])
    upcoming: Any = next(said)
    now: list[int] = [0] * len(GAUGES)
    columns: list[Column] = [[] for _ in GAUGES]
    for at in made.at:
        while upcoming[0] < at + made.step_s:
            now, upcoming = upcoming[1].gauges, next(said)
        seen = at - at % grain in looked
        for column, value in zip(columns, now, strict=True):
            column.append(float(value) if seen else None)
    made.gauges = dict(zip(GAUGES, columns, strict=True))


def _share(sample: Sample | None, which: str, q: float) -> float | None:
    return samples.percentile(getattr(sample, which), q) if sample else None
