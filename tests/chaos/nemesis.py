"""The nemesis: one fault after the other, chosen by a seed, each written to the ledger at the moment it strikes.

Lines are `fault time name` and, when it is over, `over time name`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from pathlib import Path

from tests.chaos.faults import CLOCK_FAULTS, FAULTS, REDIS_FAULTS
from tests.chaos.stage import Stage


def plan(stage: Stage, faults: int, chance: random.Random, only: Collection[str] = ()) -> list[str]:
    """The names, every kind at least once if there are enough; with `only` no others. ValueError for an unknown name."""
    known = dict(FAULTS)
    if stage.engine != "embedded":
        known |= REDIS_FAULTS
    if stage.clock:
        known |= CLOCK_FAULTS
    if not stage.disk.can_fill:
        stage.say(f"no disk full: {stage.disk.why}")
        del known["disk full"]
    unknown = set(only) - known.keys()
    if unknown:
        raise ValueError(f"no such fault here: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    names = [name for name in known if not only or name in only]
    chance.shuffle(names)
    return (names * (faults // len(names) + 1))[:faults]


def run(
    stage: Stage,
    ledger: Path,
    faults: int,
    seed: int,
    until: Callable[[], bool],
    gap_s: float,
    only: Collection[str] = (),
) -> None:
    """Strike `faults` times, or until `until()` says the load is over."""
    chance = random.Random(seed)
    with ledger.open("a", buffering=1) as out:
        for name in plan(stage, faults, chance, only):
            if until():
                break
            time.sleep(chance.uniform(0.3, 1.0) * gap_s)
            out.write(f"fault {time.time():.6f} {name.replace(' ', '_')}\n")
            detail = strike(stage, name, chance)
            out.write(f"over {time.time():.6f} {name.replace(' ', '_')}\n")
            stage.say(f"{name}: {detail}")


def strike(stage: Stage, name: str, chance: random.Random) -> str:
    """One fault by its name."""
    return {**FAULTS, **REDIS_FAULTS, **CLOCK_FAULTS}[name](stage, chance)
