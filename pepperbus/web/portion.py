"""A piece of an ordered list that changes under its reader: it begins behind a place, never at a number. Floor 5, pure.

A place is what a row is ordered by (`Place`), so it stays where it is when that row is gone or others come, go and move.
Whoever goes from piece to piece by `cursor`, or back by `before`, sees every row once that has kept its own place
meanwhile. Of one that moved itself (its figure is another) this holds for names only: it may be seen twice, or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

from pepperbus.errors import UsageError

Row = TypeVar("Row")
Place = tuple[float, str, str]  # a figure, and two words without a colon that no two rows have in common


class Portion(NamedTuple, Generic[Row]):
    """`rows`, with `ahead` of them so many of `found`. `cursor`: asks for the rows behind these, `before`: for those ahead of
    them; "" where there are none."""

    rows: list[Row]
    found: int
    ahead: int
    cursor: str
    before: str


def portion(
    placed: Iterable[tuple[Place, Row]], n: int, cursor: str = "", before: str = "", falling: bool = False
) -> Portion[Row]:
    """The first `n` rows, or the first behind `cursor`, or the last ahead of `before`. `falling`: the highest place first.

    Raises UsageError for a text that is no place.
    """
    ordered = sorted(placed, key=itemgetter(0), reverse=falling)
    start = 0
    if before:
        end = _ahead_of(_parse("before", before), ordered, falling)
        start = max(0, end - n)
    else:
        if cursor:
            start = _ahead_of(_parse("cursor", cursor), ordered, falling, itself=True)
        end = min(start + n, len(ordered))
    shown = ordered[start:end]
    return Portion(
        [row for _, row in shown],
        len(ordered),
        start,
        _spell(shown[-1][0]) if shown and end < len(ordered) else "",
        _spell(shown[0][0]) if shown and start else "",
    )


def _ahead_of(place: Place, ordered: list[tuple[Place, Row]], falling: bool, itself: bool = False) -> int:
    """How many rows stand ahead of `place`; `itself`: or upon it."""
    if falling:
        return sum(one > place or (itself and one == place) for one, _ in ordered)
    return sum(one < place or (itself and one == place) for one, _ in ordered)


def _spell(place: Place) -> str:
    figure, *words = place
    return ":".join((f"{figure + 0.0:.17g}", *words))  # no -0


def _parse(name: str, text: str) -> Place:
    words = text.split(":")
    try:
        figure, first, second = float(words[0]), words[1], words[2]
        if math.isnan(figure) or len(words) > 3:
            raise ValueError(text)
    except (ValueError, IndexError) as error:
        raise UsageError(f"{name}: {text[:80]!r} is none that an answer gave") from error
    return figure, first, second
