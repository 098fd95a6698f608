"""The judge: reads ledgers and the final listing of dead and waiting jobs, and nothing else of the bus.

`P` producers' ledgers, `X` the consumer's, `N` the nemesis'. With A accepted, E definite errors, X ended, D dead, Q waiting:
lost = A - (X + D + Q); stuck = A in Q at rest; liar = E that ran; phantom = ran, never sent; torn = a body that arrived
cut and was not refused by the consumer; recount = an attempt number that began twice; duplicates = ends beyond the first, each
of which must fall to a fault, and no fault may explain more than what was in flight.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

TOPICS = ("a", "b")


@dataclass
class Report:
    sent: int = 0
    accepted: int = 0
    unknown: int = 0
    refused: int = 0
    done: int = 0
    dead: int = 0
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    liars: list[str] = field(default_factory=list)
    phantoms: list[str] = field(default_factory=list)
    torn: int = 0
    recounted: list[str] = field(default_factory=list)
    wrong_dead: list[str] = field(default_factory=list)
    duplicates: int = 0
    unexplained: list[str] = field(default_factory=list)
    crowded: list[str] = field(default_factory=list)
    overspent: int = 0
    faults: int = 0

    @property
    def verdict(self) -> list[str]:
        """What is wrong, one line each; empty when nothing is."""
        found = [
            ("lost", self.lost),
            ("stuck", self.stuck),
            ("liars (definite error, yet it ran)", self.liars),
            ("phantoms (ran, never sent)", self.phantoms),
            ("attempt numbers that began twice", self.recounted),
            ("dead without a reason of their own", self.wrong_dead),
            ("duplicates that no fault explains", self.unexplained),
            ("faults with more duplicates than jobs in flight", self.crowded),
        ]
        return [f"{len(items)} {name}: {', '.join(items[:5])}" for name, items in found if items]

    def __str__(self) -> str:
        numbers = (
            f"sent {self.sent}, accepted {self.accepted}, refused {self.refused}, unknown {self.unknown}; "
            f"per topic: done {self.done}, dead {self.dead}; faults {self.faults}, duplicates {self.duplicates}, "
            f"attempts spent without a begin {self.overspent}"
        )
        return "\n".join([numbers, *self.verdict])


def lines(paths: Iterable[Path]) -> Iterable[list[str]]:
    for path in paths:
        for line in path.read_text(errors="replace").splitlines():
            yield line.split(" ")


def check(
    producers: Iterable[Path],
    consumer: Path,
    nemesis: Path,
    dead: dict[str, dict[str, str]],
    waiting: dict[str, set[str]],
    in_flight: int,
) -> Report:
    """`dead` and `waiting` by topic, the job ids at the end (dead ones with their reason). `in_flight`: the node's limit."""
    report = Report()
    ids: dict[str, str] = {}
    sent: set[str] = set()
    definite: set[str] = set()
    for kind, n, *rest in lines(producers):
        if kind == "S":
            sent.add(n)
        elif kind == "A":
            ids[n] = rest[0]
        elif kind == "E":
            definite.add(n)
    begins: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    ends: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for kind, n, topic, attempt, _id, at, *rest in lines([consumer]):
        (begins if kind == "B" else ends)[n, topic].append((float(at), int(attempt)))
        report.torn += rest == ["TORN"]
    faults = sorted(float(at) for _, at, *_ in lines([nemesis]))
    report.faults = len(faults)
    report.sent, report.accepted, report.refused = len(sent), len(ids), len(definite)
    report.unknown = report.sent - report.accepted - report.refused
    _account(report, ids, ends, dead, waiting)
    report.liars = sorted({n for n, _ in begins if n in definite})
    report.phantoms = sorted({n for n, _ in begins if n not in sent})
    per_fault: dict[float, int] = defaultdict(int)
    for key, starts in begins.items():
        numbers = [attempt for _, attempt in starts]
        if len(set(numbers)) != len(numbers):
            report.recounted.append(f"{key[0]}/{key[1]} {sorted(numbers)}")
        report.overspent += max(0, max(numbers) - len(numbers))
        _explain(report, key, sorted(starts), sorted(ends.get(key, [])), faults, per_fault)
    report.crowded = [f"{at:.3f}: {n} > {in_flight}" for at, n in per_fault.items() if n > in_flight]
    return report


def _account(report: Report, ids, ends, dead, waiting) -> None:  # type: ignore[no-untyped-def]
    for n, job_id in ids.items():
        for topic in TOPICS:
            if (n, topic) in ends:
                report.done += 1
            elif job_id in dead[topic]:
                report.dead += 1
                if not dead[topic][job_id]:
                    report.wrong_dead.append(f"{n}/{topic}")
            elif job_id in waiting[topic]:
                report.stuck.append(f"{n}/{topic}")
            else:
                report.lost.append(f"{n}/{topic}")


def _explain(report: Report, key, starts, finished, faults, per_fault) -> None:  # type: ignore[no-untyped-def]
    """Every end beyond the first falls to the last fault before the extra attempt began and after the first one began."""
    for _extra_at, attempt in finished[1:]:
        report.duplicates += 1
        began = next((at for at, number in starts if number == attempt), _extra_at)
        i = bisect.bisect_right(faults, began) - 1
        if i >= 0 and faults[i] >= starts[0][0] - 5.0:
            per_fault[faults[i]] += 1
        else:
            report.unexplained.append(f"{key[0]}/{key[1]}")
