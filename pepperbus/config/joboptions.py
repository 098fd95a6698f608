"""Options of a topic that say more than a number: `unique`, `rate`, `quiet`, `halt`. Written form in, frozen value out.

Floor 1. Each value keeps the text it was written as: that is how it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from pepperbus.config.timing import zone

#: What `unique` and `order_by` take for the whole content.
CONTENT = "content"
_PATH = re.compile(r"[^\s.=,]+(\.[^\s.=,]+)*\Z")
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*/\s*(s|m|h|d)\Z")
_HALT = re.compile(r"(\d{1,3})\s*%\s*of\s*(\d{1,3})(?:\s*,?\s*probe\s+(\S+))?\Z")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s*-\s*([01]\d|2[0-3]|24):([0-5]\d)\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True)
class Unique:
    """`path` into the job's JSON, or CONTENT. `window` in s; 0: until the job that was first is done or dead."""

    text: str
    path: str
    window: float

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Rate:
    """So many jobs may start in a second, on one node."""

    text: str
    per_second: float

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Halt:
    """When `share` (0 to 1) of the last `of` attempts failed; `probe`: seconds between jobs that find out."""

    text: str
    share: float
    of: int
    probe: float

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Quiet:
    """Minutes of the day (from, to) in which nothing is fed; `to` may lie on the next day."""

    text: str
    spans: tuple[tuple[int, int], ...]
    zone: str

    def __str__(self) -> str:
        return self.text

    def now(self, now_ms: int) -> bool:
        """Whether it is quiet at that time."""
        then = datetime.fromtimestamp(now_ms / 1000, zone(self.zone))
        minute = then.hour * 60 + then.minute
        return any(low <= minute < high if low < high else minute >= low or minute < high for low, high in self.spans)


def path(text: str) -> str:
    """A path into JSON: names with dots between. `$.` before it does no harm. Raises ValueError."""
    found = text.removeprefix("$.")
    if not _PATH.match(found) or len(found) > 128:
        raise ValueError(f"{text!r} is not a path into JSON; names with dots between are wanted: order_id, user.id")
    return found


def value_at(content: bytes, words: list[str]) -> bytes:
    """What stands there in a job's JSON, written in one way; b"" when nothing does, or null."""
    try:
        value = _decode(content)
        for word in words:
            value = value[word]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return b""
    return b"" if value is None else _encode(value)


def unique(text: str, seconds: Callable[[str], float]) -> Unique | None:
    """`content`, `order_id` or `user.id`, and after it a time if wanted. "": none. Raises ValueError."""
    words = text.split()
    if not words:
        return None
    if len(words) > 2:
        raise ValueError("content or a path into JSON is wanted, and a time after it if it shall end: order_id 10m")
    window = seconds(words[1]) if len(words) == 2 else 0.0
    if len(words) == 2 and not 0.1 <= window <= 30 * 86400:
        raise ValueError("the time is from 100ms to 30d; without one it holds until the first job is done or dead")
    return Unique(text, path(words[0]), window)


def rate(text: str) -> Rate | None:
    """`100/s`, `600/m`, `5000/h`. "": none. Raises ValueError."""
    if not text:
        return None
    found = _RATE.match(text)
    if not found or not float(found[1]):
        raise ValueError("a number of jobs for a time is wanted: 100/s, 600/m, 5000/h or 1/d")
    return Rate(text, float(found[1]) / _SECONDS[found[2]])


def halt(text: str, seconds: Callable[[str], float]) -> Halt | None:
    """`50% of 40, probe 1m`. "": none. Raises ValueError."""
    if not text:
        return None
    found = _HALT.match(text)
    if not found or not 1 <= int(found[1]) <= 100 or not 4 <= int(found[2]) <= 60:
        raise ValueError("a share (1% to 100%) of the last 4 to 60 attempts is wanted: 50% of 40, probe 1m")
    probe = seconds(found[3]) if found[3] else 60.0
    if not 1.0 <= probe <= 3600.0:
        raise ValueError("probe is from 1s to 1h, such as 50% of 40, probe 1m")
    return Halt(text, int(found[1]) / 100, int(found[2]), probe)


def quiet(text: str) -> Quiet | None:
    """`23:00-07:00`, several with commas between, a time zone at the end if wanted. "": none. Raises ValueError."""
    if not text:
        return None
    parts = [part.strip() for part in text.split(",")]
    last, blank, name = parts[-1].rpartition(" ")
    if blank and not _HOURS.match(parts[-1]):
        parts[-1] = last.strip()
    else:
        name = ""
    spans = []
    for part in parts:
        found = _HOURS.match(part)
        low, high = (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])) if found else (0, 0)
        if low == high or high > 1440:
            raise ValueError(f"{part!r}: hours are wanted, such as 23:00-07:00 or 23:00-07:00 Asia/Shanghai")
        spans.append((low, high))
    zone(name)
    return Quiet(text, tuple(spans), name)
