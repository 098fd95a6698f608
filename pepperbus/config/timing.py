"""When a schedule fires: cron's five fields (six with seconds), `@every 90s`, `@daily` and the like, in a time zone.

Floor 1. Pure: knows no clock. Times are wall time in ms. The fields are cronsim's, which does at daylight saving what Debian's
cron does: a fixed time that the clock jumps over fires after the jump, one that comes twice fires once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = re.compile(r"@every\s+(\S+)\Z")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PARTS = re.compile(r"(\d{1,6})([smhd])")


@dataclass(frozen=True)
class Timing:
    """`expression` and `zone` as they were written; `zone` "" is this machine's."""

    expression: str
    zone: str = ""

    @property
    def every_ms(self) -> int:
        """The period of `@every`, 0 for fields."""
        found = _EVERY.match(self.expression)
        return _period_s(found[1]) * 1000 if found else 0

    @property
    def fields(self) -> str:
        """What cronsim gets; "" for `@every`."""
        return "" if self.every_ms else NICKNAMES.get(self.expression.lower(), self.expression)

    def after(self, ms: int) -> Iterator[int]:
        """Every time it fires later than `ms`, in order. Ends when there is no further time."""
        if period := self.every_ms:
            # Counted from 1970, so that all nodes mean the same moments.
            at = ms // period * period
            while True:
                at += period
                yield at
        for found in CronSim(self.fields, datetime.fromtimestamp(ms // 1000, zone(self.zone))):
            if (at := int(found.timestamp()) * 1000) > ms:
                yield at

    def next(self, ms: int) -> int:
        """The first of them, 0 when there is none."""
        return next(self.after(ms), 0)


def checked(expression: str) -> str:
    """`expression` when it can fire. Raises ValueError with what is wrong and what would be right."""
    text = " ".join(expression.split())
    if not text:
        raise ValueError("missing: five fields such as 30 3 * * 1-5 (minute hour day month weekday), or @every 90s")
    if text.startswith("@every"):
        found = _EVERY.match(text)
        if not found or not 1 <= _period_s(found[1]) <= 366 * 86400:
            raise ValueError("@every wants a time from 1s to 366d in whole seconds, such as @every 90s or @every 1h30m")
        return text
    if text.startswith("@") and text.lower() not in NICKNAMES:
        raise ValueError(f"{text} is not known; there are {', '.join(NICKNAMES)} and @every 90s")
    try:
        fires = Timing(text, "UTC").next(0)
    except CronSimError as error:
        raise ValueError(_wrong(text, str(error))) from None
    if not fires:
        raise ValueError(f"{text} never fires")
    return text


def _wrong(text: str, reason: str) -> str:
    fields = len(text.split())
    if fields not in (5, 6):
        return f"{fields} fields; five are wanted (minute hour day month weekday), or six with the second first"
    field = reason.removeprefix("Bad ")
    allowed = {
        "second": "0-59",
        "minute": "0-59",
        "hour": "0-23",
        "day-of-month": "1-31, L (the last day) or LW, and one that the month has",
        "month": "1-12 or JAN-DEC",
        "day-of-week": "0-7 (0 and 7 are Sunday), SUN-SAT, 5L (the last Friday) or 1#2 (the second Monday)",
    }
    return f"the {field} is wrong; allowed: {allowed.get(field, '')}, with * , - and /"


def _period_s(text: str) -> int:
    parts = _PARTS.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        return 0
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


@cache
def zone(name: str) -> tzinfo:
    """The time zone of that name (IANA), or this machine's. Raises ValueError."""
    if not name:
        return _local()
    try:
        if not _ZONE.match(name):
            raise LookupError
        return ZoneInfo(name)
    except (LookupError, OSError, ValueError):
        raise ValueError(
            f"no time zone {name!r}; a name such as Europe/Berlin, Asia/Shanghai or UTC is wanted"
        ) from None


@cache
def local_name() -> str:
    """What this machine's zone is called, "" when nobody says."""
    named = os.environ.get("TZ", "").lstrip(":")
    if named and not named.startswith("/"):
        return named
    _, found, name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
    return name.removeprefix("posix/").removeprefix("right/") if found else ""


def _local() -> tzinfo:
    try:
        return ZoneInfo(local_name() or "UTC")
    except (LookupError, OSError, ValueError):
        return ZoneInfo("UTC")


@dataclass(frozen=True)
class Schedule:
    """Jobs that are pushed to `queue` at given times."""

    queue: str
    name: str
    timing: Timing
    payload: str = ""
    times: int = 1
    gap: float = 0.0
    jitter: float = 0.0
    catch_up: str = "skip"  # skip | once | all
    overlap: str = "allow"  # allow | skip

    @property
    def full_name(self) -> str:
        return f"{self.queue}/{self.name}"
