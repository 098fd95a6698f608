"""What a topic or queue did over time, from the samples that the ticker keeps. Floor 4.

A second's resolution for the last hour, a minute's for a month, always few enough points to draw.
"""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gevent
import msgspec

from pepperbus.errors import PepperbusError, UsageError
from pepperbus.journal import samples
from pepperbus.journal.samples import BLOCK_S, COUNTED, GAUGES, MINUTE_S, Sample
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, operation

#: How far back one may look -> seconds a point.
STEPS = {300: 1, 3600: 10, 6 * 3600: 60, 86400: 240, 7 * 86400: 1800, 30 * 86400: 7200}
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
Column = list[float | None]
Sparse = dict[int, int]  # bucket of `stats` -> how many
_MOST_UNPACKED = 16 << 20
_OWN = ("in_flight", "window")  # gauges that are each node's own; the others are of the storage that they share


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


class Part(Result):
    """A course as one node kept it, so that those of several add up. `counts`, `gauges`: a column each of COUNTED, GAUGES.

    `wait`, `run`: histograms of `grain_s` from so many unix seconds on.
    """

    step_s: int
    grain_s: int
    at: list[int]
    counts: list[Column] = []
    gauges: list[Column] = []
    wait: dict[int, Sparse] = {}
    run: dict[int, Sparse] = {}


class Parcel(Result):
    """A part on its way to another node."""

    data: str


@operation(Right.VIEW, "name")
def course(office: Office, name: str, back_s: int = 3600) -> Course:
    """How `queue/topic` or `queue` fared here in the last `back_s`, one of `STEPS`. Raises NotFound and UsageError."""
    return drawn(part(office, name, back_s))


@operation(Right.VIEW, "name")
def part(office: Office, name: str, back_s: int = 3600) -> Part:
    """The same, to be put together with those of other nodes. Raises NotFound and UsageError."""
    office.named(name)
    if back_s not in STEPS:
        raise UsageError(f"back: {back_s} must be one of {', '.join(map(str, STEPS))} seconds")
    database = office.config.bus.data_dir / "history.db"
    made: Part = gevent.get_hub().threadpool.apply(_part, (database, name, back_s, int(time.time())))
    return made


def merged(own: Part, others: Iterable[Part]) -> Part:
    """The parts of several nodes as one, as far as all of them go. Jobs that lie in the storage they share count once."""
    parts = [own, *others]
    told_s = min(one.at[-1] for one in parts if one.at) if all(one.at for one in parts) else 0
    at = [second for second in own.at if second <= told_s]
    total = Part(own.step_s, own.grain_s, at)
    places = [{second: i for i, second in enumerate(one.at)} for one in parts]

    def together(columns: list[Column], put: Callable[[Iterable[float]], float]) -> Column:
        rows = ([column[at_i[s]] for column, at_i in zip(columns, places, strict=True) if s in at_i] for s in at)
        return [put(known) if (known := [v for v in row if v is not None]) else None for row in rows]

    total.counts = [together([one.counts[i] for one in parts], sum) for i in range(len(COUNTED))]
    for i, name in enumerate(GAUGES):
        total.gauges.append(together([one.gauges[i] for one in parts], sum if name in _OWN else max))
    for one in parts:
        for mine, theirs in ((total.wait, one.wait), (total.run, one.run)):
            for second, buckets in theirs.items():
                here = mine.setdefault(second, {})
                for bucket, n in buckets.items():
                    here[bucket] = here.get(bucket, 0) + n
    return total


def nothing(like: Part) -> Part:
    """The same points, of which nothing is known."""
    unknown: Column = [None] * len(like.at)
    return Part(like.step_s, like.grain_s, like.at, [unknown] * len(COUNTED), [unknown] * len(GAUGES))


def drawn(made: Part) -> Course:
    """As it is shown: percentiles instead of histograms."""
    counts, gauges = dict(zip(COUNTED, made.counts, strict=True)), dict(zip(GAUGES, made.gauges, strict=True))
    found = Course(made.step_s, made.at, counts, gauges)
    for which in ("wait", "run"):
        timed: dict[int, Sparse] = getattr(made, which)
        blocks = [timed.get(at - at % made.grain_s, {}) for at in made.at]
        columns = {
            share: [samples.percentile(one, q) if one else None for one in blocks] for share, q in SHARES.items()
        }
        setattr(found, which, columns)
    return found


def packed(made: Part) -> Parcel:
    """So small that it goes through a storage: a course of 360 points that all timed something is about 100 KB."""
    return Parcel(base64.b85encode(zlib.compress(msgspec.json.encode(made), 6)).decode())


def unpacked(parcel: Parcel) -> Part:
    """What `packed` made. Raises PepperbusError for anything else: others write there."""
    try:
        data = zlib.decompressobj().decompress(base64.b85decode(parcel.data), _MOST_UNPACKED)
        made = msgspec.json.decode(data, type=Part)
    except (ValueError, zlib.error, msgspec.MsgspecError):
        made = Part(0, 0, [])
    columns = [*made.counts, *made.gauges]
    if (len(made.counts), len(made.gauges)) != (len(COUNTED), len(GAUGES)) or any(
        len(column) != len(made.at) for column in columns
    ):
        raise PepperbusError("what it sent is no course; does it run another version?")
    return made


def _part(database: Path, name: str, back_s: int, now_s: int) -> Part:
    step = STEPS[back_s]
    width = BLOCK_S if step < MINUTE_S else MINUTE_S
    grain = max(step, width)
    begin = now_s - back_s
    begin -= begin % grain
    rows, looked = samples.read(database, name, width, begin)
    made = Part(step, grain, list(range(begin, now_s - now_s % grain, step)))
    if step < width:
        _by_second(made, rows, looked)
    else:
        _by_step(made, rows, looked)
    return made


def _by_second(made: Part, rows: list[tuple[int, Sample]], looked: set[int]) -> None:
    known = dict(rows)
    made.counts = [[_second(known, looked, at, i) for at in made.at] for i in range(len(COUNTED))]
    _stand(made, rows, looked)
    _time(made, known)


def _second(known: dict[int, Sample], looked: set[int], at: int, i: int) -> float | None:
    block = at - at % BLOCK_S
    sample = known.get(block)
    if sample is None or not sample.seconds:
        return 0.0 if block in looked else None
    second = sample.seconds[at - block]
    return float(second[i]) if second else 0.0


def _by_step(made: Part, rows: list[tuple[int, Sample]], looked: set[int]) -> None:
    points: dict[int, Sample] = {}
    for at, sample in rows:
        point = at - at % made.step_s
        if point in points:
            points[point].add(sample)
        else:
            points[point] = sample
    seen = {at - at % made.step_s for at in looked}
    made.counts = [
        [points[at].counts[i] / made.step_s if at in points else 0.0 if at in seen else None for at in made.at]
        for i in range(len(COUNTED))
    ]
    _stand(made, rows, seen)
    _time(made, points)


def _time(made: Part, known: dict[int, Sample]) -> None:
    for at, sample in known.items():
        if made.at and at >= made.at[0]:  # the sample before the first point comes along for its gauges
            made.wait[at], made.run[at] = sample.wait, sample.run


def _stand(made: Part, rows: list[tuple[int, Sample]], looked: set[int]) -> None:
    """The gauges: what was last said holds until something else is said, as long as somebody looked."""
    said = iter([*rows, (1 << 60, None)])
    upcoming: Any = next(said)
    now: list[int] = [0] * len(GAUGES)
    columns: list[Column] = [[] for _ in GAUGES]
    for at in made.at:
        while upcoming[0] < at + made.step_s:
            now, upcoming = upcoming[1].gauges, next(said)
        seen = at - at % made.grain_s in looked
        for column, value in zip(columns, now, strict=True):
            column.append(float(value) if seen else None)
    made.gauges = columns
