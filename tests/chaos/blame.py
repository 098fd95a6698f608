"""Which fault repeated which job, and how long the load took to come back. Pure: ledgers in, findings out.

A repetition is explained by a fault that struck after the earlier run began and before the later one did.
Each fault explains no more than `bounds` allows; faults take what they can explain in the
order of time, the most urgent first, so that a repetition is left over only when no other sharing-out would have covered it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from tests.chaos.bounds import FROM_THE_BLOW, MAY_REPEAT, ORPHANS, TAIL_S
from tests.chaos.ledger import Attempt, Fault, Ledgers

_SPAN_S, _STEP_S = 0.5, 0.05
_SLACK_S = 0.05


@dataclass
class Blame:
    duplicates: int = 0
    overlaps: int = 0
    unexplained: list[str] = field(default_factory=list)
    crowded: list[str] = field(default_factory=list)
    illegal_overlaps: list[str] = field(default_factory=list)
    by_kind: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # of each fault of a kind


@dataclass
class _Repeat:
    who: str
    earliest: float
    latest: float
    overlaps: bool


def blame(ledgers: Ledgers) -> Blame:
    found = Blame()
    left = [repeat for (n, topic), runs in ledgers.attempts.items() for repeat in _repeats(f"{n}/{topic}", runs)]
    found.duplicates = len(left)
    for repeat in left:
        if repeat.overlaps:
            found.overlaps += 1
            if not any(fault.name in ORPHANS and _covers(fault, repeat) for fault in ledgers.faults):
                found.illegal_overlaps.append(repeat.who)
    left.sort(key=lambda repeat: repeat.latest)
    for fault in sorted(ledgers.faults, key=lambda fault: fault.began):
        most = MAY_REPEAT.get(fault.name, 0)
        mine = [repeat for repeat in left if _covers(fault, repeat)][:most]
        taken = {id(repeat) for repeat in mine}
        left = [repeat for repeat in left if id(repeat) not in taken]
        found.by_kind[fault.name].append(len(mine))
    for repeat in left:
        candidates = [fault for fault in ledgers.faults if _covers(fault, repeat)]
        guilty = [fault for fault in candidates if MAY_REPEAT.get(fault.name)]
        if guilty:
            found.crowded.append(f"{repeat.who} at {guilty[0].name} {guilty[0].began:.2f}")
        else:
            names = ", ".join(fault.name for fault in candidates) or "no fault"
            found.unexplained.append(f"{repeat.who} ({names})")
    return found


def _repeats(who: str, runs: list[Attempt]) -> list[_Repeat]:
    """Every end beyond the first, with the run before it."""
    ended = sorted((run for run in runs if run.ended), key=lambda run: run.began)
    pairs = pairwise(ended)
    return [_Repeat(who, before.began, later.began, later.began < before.ended) for before, later in pairs]


def _covers(fault: Fault, repeat: _Repeat) -> bool:
    until = fault.over + TAIL_S.get(fault.name, 0.0) + _SLACK_S
    return fault.began - _SLACK_S <= repeat.latest and until >= repeat.earliest


def recovery(ledgers: Ledgers) -> dict[str, list[float]]:
    """Per kind of fault, the seconds until nine tenths of the load were accepted and done again; faults that another one
    followed before that, or that struck in the last seconds, are left out."""
    done_at = sorted(run.ended for runs in ledgers.attempts.values() for run in runs if run.ended)
    accepted_at = ledgers.accepted_at
    if len(accepted_at) < 100 or len(done_at) < 100:
        return {}
    usual = 0.9 * _usual(accepted_at), 0.9 * _usual(done_at)
    found: dict[str, list[float]] = defaultdict(list)
    faults = sorted(ledgers.faults, key=lambda fault: fault.began)
    for fault, following in zip(faults, [*faults[1:], None], strict=True):
        since = fault.began if fault.name in FROM_THE_BLOW else fault.over
        end = min(accepted_at[-1] - _SPAN_S, following.began if following else float("inf"))
        at = since
        while at <= end:
            if _within(accepted_at, at) >= usual[0] and _within(done_at, at) >= usual[1]:
                found[fault.name].append(at - since)
                break
            at += _STEP_S
    return dict(found)


def _usual(times: list[float]) -> float:
    bins = Counter(int((at - times[0]) / _SPAN_S) for at in times)
    return float(median(bins.values()))


def _within(times: list[float], since: float) -> int:
    return bisect_left(times, since + _SPAN_S) - bisect_left(times, since)
