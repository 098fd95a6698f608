"""The tester tested: a bus that commits one crime must be found out by the judge, and an honest one must not.

`scripts/chaos --mutants [NAMES]`; two of them run in `scripts/test`. Each run is short, has only the faults that bring the
crime to light, and counts only if the crime was really committed.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.crimes import CRIMES
from tests.chaos.run import run

#: The check of length and digest in consume.php; a consumer without it accepts what is torn.
_CHECK = "    if (!$whole) {"


@dataclass(frozen=True)
class Mutant:
    """`found`: what the verdict must say. `rest_s`: how long the run waits for rest, short where there will be none."""

    found: str
    faults: tuple[str, ...] = ("kill worker",)
    engine: str = "embedded"
    slow: float = 0.01
    rest_s: float = 30.0
    careless: bool = False


MUTANTS = {
    "nothing": Mutant("", ("kill worker", "kill gateway", "fpm child", "fpm down")),
    "answers before it has stored": Mutant("lost", ("kill gateway",)),
    "lies about what is stored": Mutant("liars", ("hup",)),
    "takes unknown for success": Mutant("lost", ("redis kill", "redis wire cut"), "redis"),
    "invents jobs": Mutant("phantoms", ("hup",)),
    "pops before it runs": Mutant("lost"),
    "acks before the answer": Mutant("lost"),
    "forgets to settle": Mutant("stuck", ("hup",), rest_s=6.0),
    "settles twice": Mutant("no fault explains", ("hup",)),
    "does not count attempts": Mutant("began twice", ("hup",), rest_s=6.0),
    "buries too early": Mutant("without a reason", ("hup",)),
    "buries without a reason": Mutant("without a reason", ("hup",)),
    "never buries": Mutant("more often than attempts allow", ("hup",), rest_s=8.0),
    "hoards outcomes": Mutant("beyond what their fault may repeat"),
    "drops what the dead held": Mutant("lost", slow=0.2),
    "blames nobody for a crash": Mutant("began twice", slow=0.2),
    "sends a torn body": Mutant("corrupt", ("hup",), careless=True),
    "sends again after a reset": Mutant("began twice", ("fpm down",), slow=0.08),
    "takes from the living": Mutant("behind a living worker", ("hup",), slow=0.2),
}
#: Only a power cut brings this one to light: tests/chaos/test_power.py.
assert MUTANTS.keys() == CRIMES.keys() - {"syncs nothing"}


def examine(name: str, directory: Path, seed: int, seconds: float = 9.0) -> str:
    """ "" when the judge found it out, else what went wrong."""
    mutant = MUTANTS[name]
    report = run(
        directory,
        mutant.engine,
        jobs=int(seconds * 150),
        faults=6,
        seed=seed,
        seconds=seconds,
        verbose=False,
        only=mutant.faults,
        mutant=name,
        rest_s=mutant.rest_s,
        slow=mutant.slow,
        gap_s=seconds / 5,  # over the whole load: a worker that is killed before it has begun proves nothing
        consumer=(lambda text: text.replace(_CHECK, "    if (false) {")) if mutant.careless else None,
    )
    verdict = "; ".join(report.verdict)
    if not mutant.found:
        return f"an honest bus was accused: {verdict}" if verdict else ""
    if not (directory / "committed").exists():
        return "the crime was never committed: its seam is gone"
    return "" if mutant.found in verdict else f"not found out (expected: {mutant.found}); verdict: {verdict or 'none'}"


def main(directory: Path, names: str, seed: int) -> int:
    chosen = list(MUTANTS) if names == "all" else [name.strip() for name in names.split(",")]
    escaped = 0
    for name in chosen:
        own = Path(tempfile.mkdtemp(prefix=name.replace(" ", "-") + "-", dir=directory))
        trouble = examine(name, own, seed)
        escaped += bool(trouble)
        honest = "not accused" if name == "nothing" else "caught"
        print(f"a bus that {name}: {trouble or honest}" if name != "nothing" else f"an honest bus: {trouble or honest}")
        if not trouble:
            shutil.rmtree(own, ignore_errors=True)
    print(
        f"{len(chosen) - escaped} of {len(chosen)} as they should be" + (f"; ledgers: {directory}" if escaped else "")
    )
    return 1 if escaped else 0
