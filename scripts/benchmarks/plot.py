"""A small SVG line plot: a few series over a logarithmic x, y from zero. Enough for growth; nothing to install."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 340, 70, 160, 40, 50
_COLOURS = ("#1f5fa8", "#c2571a", "#2b8a3e", "#7b4ab5", "#8a6d00", "#555555")


@dataclass(frozen=True)
class Series:
    name: str
    points: Sequence[tuple[float, float]]


def nice(value: float) -> str:
    """A short number: 1k, 2.5M, 0.3."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _ceiling(value: float) -> float:
    """The next round number: 1, 2, 5 and their tens."""
    if value <= 0:
        return 1.0
    ten = 10 ** math.floor(math.log10(value))
    return next(step * ten for step in (1, 2, 5, 10) if value <= step * ten * 1.0001)


def svg(title: str, x_title: str, y_title: str, series: Sequence[Series]) -> str:
    """The plot as a whole SVG document. x must be above 0."""
    xs = sorted({x for one in series for x, _ in one.points})
    top = _ceiling(max((y for one in series for _, y in one.points), default=1.0))
    low, high = math.log10(xs[0]), math.log10(xs[-1])
    right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def across(x: float) -> float:
        return _LEFT + (right - _LEFT) * ((math.log10(x) - low) / (high - low) if high > low else 0.5)

    def up(y: float) -> float:
        return floor - (floor - _TOP) * y / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">{escape(title)}</text>',
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(x_title)}</text>',
        f'<text x="14" y="{_TOP - 8}">{escape(y_title)}</text>',
    ]
    for step in range(6):
        y = top * step / 5
        parts.append(f'<line x1="{_LEFT}" y1="{up(y):.1f}" x2="{right}" y2="{up(y):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{nice(y)}</text>')
    for x in xs:
        parts.append(f'<text x="{across(x):.1f}" y="{floor + 18}" text-anchor="middle">{nice(x)}</text>')
    for number, one in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in one.points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>' for x, y in one.points]
        at = _TOP + 16 * number
        parts.append(f'<rect x="{right + 12}" y="{at}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{right + 27}" y="{at + 9}">{escape(one.name)}</text>')
    return "\n".join([*parts, "</svg>", ""])
