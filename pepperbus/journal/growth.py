"""How full the storages were: a line each half an hour, from which the days left are reckoned. Floor 3."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pepperbus.journal import lines

FILE = "growth.jsonl"
EVERY_S = 1800.0
_LEAST_MS = 3_600_000  # a shorter time says nothing of a day
_LOOK_MS = 3 * 86_400_000
_DAY_MS = 86_400_000


class Fill(msgspec.Struct):
    """`used` and `limit` in bytes, as the storage's health says."""

    at_ms: int
    name: str
    used: int
    limit: int


def add(data_dir: Path, *fills: Fill) -> None:
    """Remember them. Raises OSError."""
    lines.add(data_dir / FILE, *fills)


def read(data_dir: Path) -> dict[str, list[Fill]]:
    """Storage -> its lines, oldest first."""
    found: dict[str, list[Fill]] = {}
    for fill in lines.read(data_dir / FILE, Fill):
        found.setdefault(fill.name, []).append(fill)
    return found


def per_day(fills: list[Fill], now_ms: int) -> float | None:
    """Bytes a day over the last three days: the slope that fits them best. None while there is too little to say."""
    recent = [fill for fill in fills if fill.at_ms > now_ms - _LOOK_MS]
    if len(recent) < 2 or recent[-1].at_ms - recent[0].at_ms < _LEAST_MS:
        return None
    n = len(recent)
    mean_at, mean_used = sum(one.at_ms for one in recent) / n, sum(one.used for one in recent) / n
    spread = sum((one.at_ms - mean_at) ** 2 for one in recent)
    return sum((one.at_ms - mean_at) * (one.used - mean_used) for one in recent) / spread * _DAY_MS
