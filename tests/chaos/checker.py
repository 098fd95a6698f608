"""The judge: reads ledgers and the final listing of dead and waiting jobs, and nothing else of the bus.

With A accepted, E definite errors, X ended, D dead, Q waiting: lost = A - (X + D + Q); stuck = A in Q at rest; liar = E that
ran; phantom = ran, never sent; corrupt = a body that arrived cut and was accepted all the same; recount = an attempt
number that began twice; duplicates = ends beyond the first, each of which must fall to a fault (`blame`), and no fault may
explain more than `bounds` allows; overlap = two runs of one job at once, only behind a worker that died or hung.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.chaos.blame import Blame, blame, recovery
from tests.chaos.bounds import ATTEMPTS, HIGHEST_ATTEMPT, MAY_REPEAT, RECOVERED_S, TOPICS
from tests.chaos.ledger import Ledgers, read

_HEAD = "| fault | struck | repeated jobs, in all | most at once | may repeat | back after p50 / p95 / most |"


class Dead(NamedTuple):
    """A dead job as the bus lists it."""

    reason: str
    attempts: int = ATTEMPTS


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
    corrupt: list[str] = field(default_factory=list)
    torn: int = 0
    recounted: list[str] = field(default_factory=list)
    overrun: list[str] = field(default_factory=list)
    wrong_dead: list[str] = field(default_factory=list)
    blame: Blame = field(default_factory=Blame)
    ran_once: int = 0
    overspent: int = 0
    displaced: int = 0
    faults: int = 0
    recovery: dict[str, list[float]] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> list[str]:
        """What is wrong, one line each; empty when nothing is."""
        found = [
            ("lost", self.lost),
            ("stuck", self.stuck),
            ("liars (definite error, yet it ran)", self.liars),
            ("phantoms (ran, never sent)", self.phantoms),
            ("corrupt (a torn body was accepted)", self.corrupt),
            ("attempt numbers that began twice", self.recounted),
            ("jobs that began more often than attempts allow", self.overrun),
            ("dead without a reason of their own", self.wrong_dead),
            ("duplicates that no fault explains", self.blame.unexplained),
            ("duplicates beyond what their fault may repeat", self.blame.crowded),
            ("runs of one job at once behind a living worker", self.blame.illegal_overlaps),
            ("resources not given back", self.leaks),
        ]
        return [f"{len(items)} {name}: {', '.join(items[:5])}" for name, items in found if items]

    @property
    def slow(self) -> list[str]:
        """Kinds of fault whose recovery missed the bar. Not part of the verdict: a laden machine is no bug."""
        missed = [(kind, at(times, 0.95), RECOVERED_S.get(kind)) for kind, times in self.recovery.items()]
        return [f"{kind}: p95 {took:.2f} s, the bar is {bar:g} s" for kind, took, bar in missed if bar and took > bar]

    def __str__(self) -> str:
        once = 100 * self.ran_once / max(1, self.done)
        numbers = (
            f"sent {self.sent}, accepted {self.accepted}, refused {self.refused}, unknown {self.unknown}; "
            f"per topic: done {self.done} ({once:.3f} % ran only once), dead {self.dead}; faults {self.faults}, "
            f"duplicates {self.blame.duplicates} ({self.blame.overlaps} at once), torn and refused {self.torn}, "
            f"attempts spent without a begin {self.overspent}, first attempts out of order by at most {self.displaced}"
        )
        return "\n".join([numbers, *self.table(), *(f"slow: {line}" for line in self.slow), *self.verdict])

    def table(self) -> list[str]:
        """One line per kind of fault, as in docs/RELIABILITY.md."""
        rows = [_HEAD, "|---|---|---|---|---|---|"]
        for kind, counts in sorted(self.blame.by_kind.items()):
            took = self.recovery.get(kind, [])
            back = " / ".join(f"{at(took, share):.2f}" for share in (0.5, 0.95, 1.0)) + " s" if took else "-"
            most = MAY_REPEAT.get(kind, 0)
            rows.append(f"| {kind} | {len(counts)} | {sum(counts)} | {max(counts)} | {most} | {back} |")
        return rows


def at(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def check(
    producers: Iterable[Path],
    consumer: Path,
    nemesis: Path,
    dead: Mapping[str, Mapping[str, Dead]],
    waiting: Mapping[str, set[str]],
) -> Report:
    """`dead` and `waiting` by topic, the job ids at the end."""
    ledgers = read(producers, consumer, nemesis)
    report = Report(faults=len(ledgers.faults), sent=len(ledgers.sent))
    report.accepted, report.refused = len(ledgers.accepted), len(ledgers.refused)
    report.unknown = report.sent - report.accepted - report.refused
    _account(report, ledgers, dead, waiting)
    began = {n for n, _ in ledgers.attempts}
    report.liars = sorted(began & ledgers.refused)
    report.phantoms = sorted(began - ledgers.sent.keys())
    _attempts(report, ledgers)
    report.displaced = displacement(ledgers)
    report.blame = blame(ledgers)
    report.recovery = recovery(ledgers)
    return report


def _account(
    report: Report, ledgers: Ledgers, dead: Mapping[str, Mapping[str, Dead]], waiting: Mapping[str, set[str]]
) -> None:
    for n, job_id in ledgers.accepted.items():
        for topic in TOPICS:
            ends = sum(1 for run in ledgers.attempts.get((n, topic), ()) if run.ended)
            if job_id in waiting[topic]:  # also when it has ended: then nobody stored that
                report.stuck.append(f"{n}/{topic}")
            elif ends:
                report.done += 1
                report.ran_once += ends == 1
            elif job_id in dead[topic]:
                report.dead += 1
                if not _died_rightly(dead[topic][job_id]):
                    report.wrong_dead.append(f"{n}/{topic}: {dead[topic][job_id]}")
            else:
                report.lost.append(f"{n}/{topic}")


def _died_rightly(dead: Dead) -> bool:
    """With a reason, and only when its attempts were used up or its worker died three times."""
    return bool(dead.reason) and (dead.attempts >= ATTEMPTS or "died" in dead.reason)


def _attempts(report: Report, ledgers: Ledgers) -> None:
    for (n, topic), runs in ledgers.attempts.items():
        numbers = [run.number for run in runs]
        if len(set(numbers)) != len(numbers):
            report.recounted.append(f"{n}/{topic} {sorted(numbers)}")
        if max(numbers) > HIGHEST_ATTEMPT:
            report.overrun.append(f"{n}/{topic} {sorted(numbers)}")
        report.overspent += max(0, max(numbers) - len(numbers))
        report.torn += sum(run.torn for run in runs)
        report.corrupt += [f"{n}/{topic}" for run in runs if run.torn and run.ended]


def displacement(ledgers: Ledgers) -> int:
    """By how many places a first attempt began late at most, by its id. Order is best effort: a figure, no crime."""
    most = 0
    for topic in TOPICS:
        firsts = [
            (runs[0].began, ledgers.accepted[n])
            for (n, of), runs in ledgers.attempts.items()
            if of == topic and runs[0].number == 1 and n in ledgers.accepted
        ]
        seen: list[int] = []
        for _, job_id in sorted(firsts):
            most = max(most, len(seen) - bisect_left(seen, int(job_id)))
            insort(seen, int(job_id))
    return most
