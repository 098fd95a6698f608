"""The kind of value a rule of [alarms] has: `10000 for 5m, end 8000 for 2m`, from text to a `Limit`.

Floor 1. A check of schema.ini like those of `values`; `alarm(count)`, `(time)`, `(share)` and `(left)` have a threshold, of
`left` the smaller is the worse; `alarm(state)` has none, it is either so or not.
"""

from __future__ import annotations

import math
import re

from pepperbus.config.alarm_settings import Limit
from pepperbus.config.values import Raw, duration, integer, text

#: Without `end` it is over at this share of the threshold, so that what swings around it is one incident.
_OVER = 0.8
_EXAMPLES = {
    "count": "10000 for 5m, end 8000 for 2m",
    "time": "10m for 1m, end 5m",
    "share": "20% for 2m, end 10%",
    "left": "3d for 1h, end 4d",
}
_HALVES = re.compile(r"(?P<begin>.*?)(?:(?:^|[\s,])\s*end\s+(?P<end>.+))?\Z", re.DOTALL)
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)\s*%\Z", re.ASCII)


def alarm(value: Raw, what: str = "count") -> Limit | None:
    """`off`, or `THRESHOLD [for TIME] [, end [THRESHOLD] [for TIME]]`; None for an empty value: as elsewhere."""
    words = text(", ".join(value) if isinstance(value, list) else value).strip()
    if not words:
        return None
    if words == "off":
        return Limit(off=True)
    halves = _HALVES.match(words)
    assert halves is not None
    begin, begin_for = _half(halves["begin"].strip(" ,"), what)
    end, end_for = _half((halves["end"] or "").strip(), what)
    if begin is None:
        raise ValueError(f"a threshold is wanted first: {_allowed(what)}")
    if end is None:
        end = 1.0 if what == "state" else begin / _OVER if what == "left" else begin * _OVER
    if (end < begin) if what == "left" else (end > begin):
        raise ValueError("it would be over before it begins: the threshold after end lies on the wrong side")
    return Limit(begin, begin_for or 0.0, end, begin_for or 0.0 if end_for is None else end_for)


def _half(words: str, what: str) -> tuple[float | None, float | None]:
    """(threshold, seconds); None for what is not said."""
    before, found, after = words.partition("for ") if words.startswith("for ") else words.partition(" for ")
    if what == "state":
        time = (after if found else before).strip()
        return 1.0, duration(time, max="30d") if time else None
    threshold = _threshold(before.strip(), what) if before.strip() else None
    return threshold, duration(after.strip(), max="30d") if found else None


def _threshold(word: str, what: str) -> float:
    try:
        match what:
            case "count":
                return float(integer(word, "1"))
            case "share":
                share = _SHARE.match(word)
                if share is None or not 0 < float(share[1]) <= 100:
                    raise ValueError
                return float(share[1]) / 100
            case _:
                if not (seconds := duration(word)):
                    raise ValueError
                return seconds
    except ValueError:
        raise ValueError(_allowed(what)) from None


def _allowed(what: str) -> str:
    if what == "state":
        return "off, or for how long, such as 1m, or 1m, end 30s"
    return f"off, or such as {_EXAMPLES[what]} (only the first word is needed)"


def spell(limit: Limit, what: str) -> str:
    """The text that means this limit."""
    if limit.off:
        return "off"
    begin, end = _word(limit.begin, what), _word(limit.end, what)
    if what == "state":
        return _time(limit.begin_for) + (f", end {_time(limit.end_for)}" if limit.end_for != limit.begin_for else "")
    words = f"{begin} for {_time(limit.begin_for)}" if limit.begin_for else begin
    return f"{words}, end {end}" + (f" for {_time(limit.end_for)}" if limit.end_for != limit.begin_for else "")


def _word(value: float, what: str) -> str:
    match what:
        case "count":
            return f"{math.ceil(value):d}"  # below 5.6 jobs is below 6
        case "share":
            return f"{value * 100:.5g}%"
    return _time(value)


def _time(seconds: float) -> str:
    """`1h30m`, `45s`, `1500ms`; to the millisecond."""
    ms = round(seconds * 1000)
    parts = []
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")):
        n, ms = divmod(ms, size)
        parts += [f"{n}{unit}"] * bool(n)
    return "".join(parts) or "0s"
