"""Numbers as people read them: counts, rates, durations, sizes, moments, sparklines. Floor 5; no language, no state."""

from __future__ import annotations

import time

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_WIDTH, _HEIGHT = 120.0, 28.0  # of a sparkline, in its own units


def count(n: float) -> str:
    """Thousands parted by a narrow space; no language takes that for a decimal point."""
    return f"{n:,.0f}".replace(",", "\u202f")


def rate(per_second: float) -> str:
    if per_second <= 0:
        return "0"
    return f"{per_second:.2f}" if per_second < 1 else f"{per_second:.1f}" if per_second < 100 else count(per_second)


def span(seconds: float) -> str:
    """A duration in the unit that fits; a dash for none."""
    if seconds <= 0:
        return "–"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (120.0, 1.0, "s"), (7200.0, 1 / 60, "min")):
        if seconds < limit:
            value = seconds * factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} d"


def size(n: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.0f} {unit}"
        n /= 1024
    return f"{n:.1f} GiB"


def moment(ms: int, exact: bool = False) -> str:
    """Wall time of this machine: the time of day, with the date when it is another day; `exact`: all of it, with ms."""
    if not ms:
        return "–"
    then, now = time.localtime(ms / 1000), time.localtime()
    if exact:
        return time.strftime("%Y-%m-%d %H:%M:%S", then) + f".{ms % 1000:03d}"
    same_day = then[:3] == now[:3]
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S", then)


def cell(text: str) -> str:
    """A word in a CSV file; what somebody typed must not be a formula in a table program."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def sparkline(values: list[float], places: int = 60) -> str:
    """Points of a polyline, the newest at the right; "" while nothing happened."""
    top = max(values, default=0.0)
    if top <= 0:
        return ""
    step = _WIDTH / (places - 1)
    left = _WIDTH - step * (len(values) - 1)
    points = [(left + i * step, _HEIGHT - 1 - (_HEIGHT - 2) * value / top) for i, value in enumerate(values)]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
