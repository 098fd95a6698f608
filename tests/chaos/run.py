"""A chaos run: producers push, a nemesis breaks things, and at rest a judge who knows only the ledgers decides.

`scripts/chaos --jobs N --faults M --engine embedded|redis|pika --seed S`; the short form is `test_chaos.py`.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from tests.chaos import nemesis
from tests.chaos.bounds import TOPICS
from tests.chaos.checker import Dead, Report, check
from tests.chaos.stage import Stage, wait_until

PRODUCERS = 2
REST_S = 120.0
#: A process that ends the run with this many more open files than it began with keeps what it should give back.
_SPARE_DESCRIPTORS = 40


def pepperbus(stage: Stage, *words: str) -> Any:
    """What a command prints as JSON; AssertionError with its message when it fails."""
    command = [sys.executable, "-m", "pepperbus.cli", "-c", str(stage.config), "--json", *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout, f"{' '.join(command)}: {result.returncode} {result.stderr}"
    return json.loads(result.stdout)


def listing(stage: Stage, topic: str, state: str) -> dict[str, Dead]:
    """Job id -> why and after how many attempts, page after page."""
    found: dict[str, Dead] = {}
    cursor: list[str] = []
    while True:
        page = pepperbus(stage, "jobs", f"chaos/{topic}", "--state", state, "-n", "1000", *cursor)
        found |= {job["id"]: Dead(job["reason"], job["attempts"]) for job in page["jobs"]}
        if not page["cursor"]:
            return found
        cursor = ["--cursor", page["cursor"]]


def at_rest(stage: Stage) -> bool:
    topics = [topic for queue in pepperbus(stage, "status")["queues"] for topic in queue["topics"]]
    return len(topics) == len(TOPICS) and all(t["ready"] + t["delayed"] + t["leased"] == 0 for t in topics)


def leaks(stage: Stage, before: dict[str, int]) -> list[str]:
    """What the processes still hold at rest: open files, and in-flight tables of workers that are gone."""
    found = []
    for name, now in stage.descriptors().items():
        usual = before.get(name, max((n for other, n in before.items() if other[:4] == name[:4]), default=now))
        if now > usual + _SPARE_DESCRIPTORS:
            found.append(f"{name}: {now} open files, {usual} at the start")
    return found


def load(stage: Stage, jobs: int, seconds: float, seed: int, slow: float) -> tuple[list[Path], list[Any]]:
    """Producers at a steady pace, every second one over the bad wire; their ledgers and processes."""
    ledgers = [stage.directory / f"producer{i}.ledger" for i in range(PRODUCERS)]
    processes = []
    share = jobs // PRODUCERS
    for i, ledger in enumerate(ledgers):
        ledger.touch()
        port = stage.front.port if i % 2 else stage.gateway
        command = [sys.executable, "-m", "tests.chaos.producer", "--port", str(port), "--slow", str(slow)]
        command += ["--first", str(i * share), "--count", str(share), "--ledger", str(ledger)]
        command += ["--per-second", str(share / seconds), "--seed", str(seed + i)]
        processes.append(subprocess.Popen(command))
    return ledgers, processes


def run(
    directory: Path,
    engine: str,
    jobs: int,
    faults: int,
    seed: int,
    seconds: float,
    verbose: bool = True,
    *,
    only: Collection[str] = (),
    mutant: str = "",
    clock: bool = False,
    rest_s: float = REST_S,
    slow: float = 0.01,
    consumer: Callable[[str], str] | None = None,
    gap_s: float = 0.0,
) -> Report:
    """The whole run; the ledgers stay in `directory`. `consumer` may rewrite the consumer's script; `gap_s`: between faults."""
    stage = Stage(directory, engine, seed, verbose, mutant, clock)
    producers: list[subprocess.Popen[bytes]] = []
    nemesis_ledger = directory / "nemesis.ledger"
    nemesis_ledger.touch()
    if consumer is not None:
        Path(stage.script).write_text(consumer(Path(stage.script).read_text()))
    try:
        stage.open()
        before = stage.descriptors()
        ledgers, producers = load(stage, jobs, seconds, seed, slow)
        wait_until(lambda: all(ledger.stat().st_size for ledger in ledgers), 30, "the load has begun")
        gap_s = gap_s or max(0.1, seconds / max(faults, 1) / 2)  # a fault takes about as long as the gap before it
        nemesis.run(
            stage, nemesis_ledger, faults, seed, lambda: all(p.poll() is not None for p in producers), gap_s, only
        )
        for producer in producers:
            assert producer.wait(600) == 0
        stage.say("load over, waiting for rest")
        stage.revive_fpm()
        _wait_for_rest(stage, rest_s)
        dead = {topic: listing(stage, topic, "dead") for topic in TOPICS}
        waiting = {
            topic: {id for state in ("ready", "delayed", "leased") for id in listing(stage, topic, state)}
            for topic in TOPICS
        }
        report = check(ledgers, stage.consumer_ledger, nemesis_ledger, dead, waiting)
        report.leaks = leaks(stage, before)
        return report
    finally:
        for producer in producers:
            producer.kill()
            producer.wait()
        stage.close()


def _wait_for_rest(stage: Stage, rest_s: float) -> None:
    """Until nothing waits any more; what waits for ever is the judge's to name."""
    started = time.monotonic()
    try:
        wait_until(lambda: at_rest(stage), rest_s, "all jobs settled")
    except AssertionError as error:
        stage.say(str(error))
    else:
        stage.say(f"at rest after {time.monotonic() - started:.1f} s")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--engine", choices=("embedded", "redis", "pika"), default="embedded")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0, help="length of the load (default: 4 a fault)")
    parser.add_argument("--slices", type=int, default=1, help="this many runs with the seeds that follow, summed up")
    parser.add_argument("--only", default="", help="these faults, separated by commas, and no others")
    parser.add_argument("--clock", action="store_true", help="the bus' wall clock jumps as well")
    parser.add_argument(
        "--mutants", nargs="?", const="all", default="", help="test the tester: all, or names by commas"
    )
    parser.add_argument("--power", type=int, default=0, metavar="CUTS", help="power cuts instead (needs root)")
    parser.add_argument("--out", type=Path, help="keep the ledgers here")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started and mounted is put away
    directory = given.out or Path(tempfile.mkdtemp(prefix="pepperbus-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    if given.mutants:
        from tests.chaos import mutants

        return mutants.main(directory, given.mutants, given.seed)
    if given.power:
        from tests.chaos import power

        return power.main(directory, given.engine, given.power, given.seed)
    seconds = given.seconds or max(20.0, given.faults * 4.0)
    only = [name.strip() for name in given.only.split(",") if name.strip()]
    failed = 0
    for seed in range(given.seed, given.seed + given.slices):
        own = directory / f"seed-{seed}"
        own.mkdir()
        report = run(own, given.engine, given.jobs, given.faults, seed, seconds, only=only, clock=given.clock)
        text = f"engine {given.engine}, seed {seed}, {seconds:g} s: {report}"
        (own / "report.md").write_text(text + "\n")
        print(text, flush=True)
        failed += bool(report.verdict)
    if failed:
        print(f"{failed} of {given.slices} runs found something; ledgers and logs: {directory}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
