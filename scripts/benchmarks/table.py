"""What a row is, and how rows are shown: the table for people, the same figures as JSON for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.benchmarks.bench import Bench

#: One round after the other: our figure, and theirs when the row is a ratio.
Measure = Callable[["Bench", int], Iterator[tuple[float, float | None]]]
Side = Callable[["Bench"], float]


class CannotRun(Exception):
    """This row cannot be measured here, and why."""


@dataclass(frozen=True)
class Goal:
    """What the median must reach and what we would be proud of; `most`: it must not be above instead."""

    must: float
    stretch: float
    most: bool = False

    def mark(self, figure: float) -> str:
        def reached(goal: float) -> bool:
            return figure <= goal if self.most else figure >= goal

        return "stretch" if reached(self.stretch) else "must" if reached(self.must) else "MISSED"


@dataclass
class Row:
    """One figure. A ratio is ours / theirs of the same round; without `theirs` the figure is ours, in `unit`."""

    id: str
    title: str
    engine: str
    command: str
    unit: str
    goal: Goal | None
    measure: Measure
    quick: bool = True
    apart: bool = False  # it brings servers of its own, so its rounds do not take turns with the other rows'
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    trouble: str = ""

    @property
    def figures(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)] if self.theirs else self.ours

    @property
    def mark(self) -> str:
        if self.trouble:
            return "not run"
        return self.goal.mark(statistics.median(self.figures)) if self.goal and self.figures else ""

    def add(self, ours: float, theirs: float | None) -> None:
        self.ours.append(ours)
        if theirs is not None:
            self.theirs.append(theirs)


def sides(ours: Side, theirs: Side | None = None) -> Measure:
    """Rounds of two sides that take turns at going first, so that a drifting machine drifts for both."""

    def measure(bench: Bench, rounds: int) -> Iterator[tuple[float, float | None]]:
        for number in range(rounds):
            if theirs is None:
                yield ours(bench), None
            elif number % 2:
                other = theirs(bench)
                yield ours(bench), other
            else:
                mine = ours(bench)
                yield mine, theirs(bench)

    return measure


def number(value: float) -> str:
    """Three figures that count: 12,345  12.3  1.23  0.123."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _goal(row: Row) -> str:
    if not row.goal:
        return ""
    return f"{'<=' if row.goal.most else '>='} {row.goal.must:g} / {row.goal.stretch:g}"


_HEAD = ("row", "what", "engine", "ours", "theirs", "unit", "figure", "min-max", "must / stretch", "")


def _cells(row: Row) -> tuple[str, ...]:
    if row.trouble:
        return (row.id, row.title, row.engine, "-", "-", row.unit, "-", "-", _goal(row), f"not run: {row.trouble}")
    figures = sorted(row.figures)
    theirs = number(statistics.median(row.theirs)) if row.theirs else ""
    spread = f"{number(figures[0])}-{number(figures[-1])}"
    middle = number(statistics.median(figures))
    ours = number(statistics.median(row.ours))
    return (row.id, row.title, row.engine, ours, theirs, row.unit, middle, spread, _goal(row), row.mark)


def text(rows: list[Row]) -> str:
    """The table, in columns."""
    lines = [_HEAD, *[_cells(row) for row in rows if row.ours or row.trouble]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
    widths[-1] = 0
    shown = []
    for line in lines:
        cells = [
            cell.rjust(width) if 3 <= at <= 7 and at != 5 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown)


def markdown(rows: list[Row]) -> str:
    """The same for a document."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|" + " --- |" * len(_HEAD)]
    return "\n".join(lines + ["| " + " | ".join(_cells(row)) + " |" for row in rows if row.ours or row.trouble])


def commands(rows: list[Row]) -> str:
    """What each row ran."""
    return "\n".join(f"{row.id:5} {row.engine:9} {row.command}" for row in rows if row.ours or row.trouble)


def write_json(path: Path, rows: list[Row], about: dict[str, object], further: dict[str, object]) -> None:
    figures = [
        {
            "id": row.id,
            "title": row.title,
            "engine": row.engine,
            "command": row.command,
            "unit": row.unit,
            "must": row.goal.must if row.goal else None,
            "stretch": row.goal.stretch if row.goal else None,
            "at_most": bool(row.goal and row.goal.most),
            "ours": row.ours,
            "theirs": row.theirs,
            "figures": row.figures,
            "mark": row.mark,
            "not_run": row.trouble,
        }
        for row in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": about, "rows": figures, **further}, indent=1) + "\n")
