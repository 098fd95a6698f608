"""What the ledgers of a chaos run say, read once. Knows their lines and nothing of the bus or of what is allowed.

`S n time mode` sent, `A n id time` accepted, `E n text` definite error, `U n text` unknown; `B n topic attempt id time
whole|TORN` begun, `F n topic attempt id time` ended; `fault time name` and `over time name`, the nemesis'
blow and the end of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Attempt(NamedTuple):
    """One attempt that began; `ended` 0.0 when no end was written."""

    number: int
    began: float
    torn: bool
    ended: float


class Fault(NamedTuple):
    """One blow: from `began` to `over` (wall time, s)."""

    name: str
    began: float
    over: float


@dataclass
class Ledgers:
    """`attempts` by (job, topic), in the order they began."""

    sent: dict[str, str] = field(default_factory=dict)  # job -> mode
    accepted: dict[str, str] = field(default_factory=dict)  # job -> id
    accepted_at: list[float] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    attempts: dict[tuple[str, str], list[Attempt]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def read(producers: Iterable[Path], consumer: Path, nemesis: Path) -> Ledgers:
    found = Ledgers()
    for kind, n, *rest in _lines(producers):
        if kind == "S":
            found.sent[n] = rest[1] if rest[1:] else "ok"
        elif kind == "A":
            found.accepted[n] = rest[0]
            found.accepted_at.append(float(rest[1]))
        elif kind == "E":
            found.refused.add(n)
    found.accepted_at.sort()
    found.attempts = _attempts(consumer)
    found.faults = _faults(nemesis)
    return found


def _attempts(consumer: Path) -> dict[tuple[str, str], list[Attempt]]:
    begins: dict[tuple[str, str], list[tuple[int, float, bool]]] = defaultdict(list)
    ends: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for kind, n, topic, attempt, _id, at, *rest in _lines([consumer]):
        if kind == "B":
            begins[n, topic].append((int(attempt), float(at), rest == ["TORN"]))
        else:
            ends[n, topic, int(attempt)].append(float(at))
    found = {}
    for (n, topic), starts in begins.items():
        one = []
        for number, began, torn in sorted(starts, key=lambda start: start[1]):
            left = ends[n, topic, number]
            one.append(Attempt(number, began, torn, left.pop(0) if left else 0.0))
        found[n, topic] = one
    return found


def _faults(nemesis: Path) -> list[Fault]:
    found: list[Fault] = []
    for kind, at, name in _lines([nemesis]):
        if kind == "fault":
            found.append(Fault(name.replace("_", " "), float(at), float(at)))
        elif found and found[-1].name == name.replace("_", " "):
            found[-1] = found[-1]._replace(over=float(at))
    return found


def _lines(paths: Iterable[Path]) -> Iterable[list[str]]:
    for path in paths:
        for line in path.read_text(errors="replace").splitlines():
            yield line.split(" ")
