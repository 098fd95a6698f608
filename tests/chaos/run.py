"""A chaos run: producers push, a nemesis breaks things, and at rest a judge who knows only the ledgers decides.

`scripts/chaos --jobs N --faults M --engine embedded|redis|pika --seed S`; the short form is `test_chaos.py`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.chaos import nemesis
from tests.chaos.checker import TOPICS, Report, check
from tests.chaos.stage import IN_FLIGHT, Stage, wait_until

PRODUCERS = 2
REST_S = 120


def pepperbus(stage: Stage, *words: str) -> Any:
    """What a command prints as JSON; AssertionError with its message when it fails."""
    command = [sys.executable, "-m", "pepperbus.cli", "-c", str(stage.config), "--json", *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout, f"{' '.join(command)}: {result.returncode} {result.stderr}"
    return json.loads(result.stdout)


def listing(stage: Stage, topic: str, state: str) -> dict[str, str]:
    """Job id -> reason, page after page."""
    found: dict[str, str] = {}
    cursor: list[str] = []
    while True:
        page = pepperbus(stage, "jobs", f"chaos/{topic}", "--state", state, "-n", "1000", *cursor)
        found |= {job["id"]: job["reason"] for job in page["jobs"]}
        if not page["cursor"]:
            return found
        cursor = ["--cursor", page["cursor"]]


def at_rest(stage: Stage) -> bool:
    topics = [topic for queue in pepperbus(stage, "status")["queues"] for topic in queue["topics"]]
    return len(topics) == len(TOPICS) and all(t["ready"] + t["delayed"] + t["leased"] == 0 for t in topics)


def run(directory: Path, engine: str, jobs: int, faults: int, seed: int, seconds: float, verbose: bool) -> Report:
    """The whole run; the ledgers stay in `directory`."""
    stage = Stage(directory, engine, seed, verbose)
    producers: list[subprocess.Popen[bytes]] = []
    ledgers = [directory / f"producer{i}.ledger" for i in range(PRODUCERS)]
    nemesis_ledger = directory / "nemesis.ledger"
    nemesis_ledger.touch()
    try:
        stage.open()
        share = jobs // PRODUCERS
        for i, ledger in enumerate(ledgers):
            ledger.touch()
            command = [sys.executable, "-m", "tests.chaos.producer", "--port", str(stage.gateway)]
            command += ["--first", str(i * share), "--count", str(share), "--ledger", str(ledger)]
            command += ["--per-second", str(share / seconds), "--seed", str(seed + i)]
            producers.append(subprocess.Popen(command))
        gap_s = max(0.1, seconds / max(faults, 1) / 2)
        nemesis.run(stage, nemesis_ledger, faults, seed, lambda: all(p.poll() is not None for p in producers), gap_s)
        for producer in producers:
            assert producer.wait(600) == 0
        stage.say("load over, waiting for rest")
        started = time.monotonic()
        wait_until(lambda: at_rest(stage), REST_S, f"all jobs settled; {stage.directory}")
        stage.say(f"at rest after {time.monotonic() - started:.1f} s")
        dead = {topic: listing(stage, topic, "dead") for topic in TOPICS}
        waiting = {
            topic: {id for state in ("ready", "delayed", "leased") for id in listing(stage, topic, state)}
            for topic in TOPICS
        }
        return check(ledgers, stage.consumer_ledger, nemesis_ledger, dead, waiting, IN_FLIGHT)
    finally:
        for producer in producers:
            producer.kill()
            producer.wait()
        stage.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--engine", choices=("embedded", "redis", "pika"), default="embedded")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0, help="length of the load (default: 3 a fault)")
    parser.add_argument("--out", type=Path, help="keep the ledgers here")
    given = parser.parse_args()
    directory = given.out or Path(tempfile.mkdtemp(prefix="pepperbus-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    seconds = given.seconds or max(20.0, given.faults * 3.0)
    report = run(directory, given.engine, given.jobs, given.faults, given.seed, seconds, verbose=True)
    print(f"engine {given.engine}, seed {given.seed}: {report}")
    if report.verdict:
        print(f"ledgers and logs: {directory}")
    return 1 if report.verdict else 0


if __name__ == "__main__":
    sys.exit(main())
