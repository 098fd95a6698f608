"""Power cuts: the bus stores on a file system of its own in an image file, and the image is copied at a random moment.

What has not reached the block device by then is gone, as when the power goes (a little kinder: the drive itself loses nothing).
Everything that writes stands still while the image is copied; which pushes were answered is read before. Then the
bus is started on a copy that was mounted and repaired from its journal, and every answered push must be there.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.bounds import TOPICS
from tests.chaos.disk import LoopDisk
from tests.chaos.ledger import read
from tests.chaos.run import listing
from tests.chaos.stage import Stage, wait_until

#: Pushes a producer offers per second; they wait, nobody consumes them.
_PER_SECOND = 400.0


@dataclass
class Cuts:
    """What a row of cuts found: answered pushes at each cut, and how many of them (per topic) were gone afterwards."""

    answered: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        at_stake = f"{sum(self.answered)} answered pushes in {len(TOPICS)} topics at stake"
        return f"{len(self.lost)} power cuts, {at_stake}, lost {sum(self.lost)} jobs {self.lost}"


def run(directory: Path, engine: str, cuts: int, seed: int, *, mutant: str = "", fsync: str = "always") -> Cuts:
    """`engine`: embedded or redis. `mutant` and `fsync` are for the controls: a bus or a Redis that does not sync."""
    chance = random.Random(seed)
    found = Cuts()
    for number in range(cuts):
        own = directory / f"cut-{number}"
        own.mkdir(parents=True)
        answered, lost = _cut(own, engine, chance, seed + number, mutant, fsync)
        found.answered.append(answered)
        found.lost.append(lost)
        if not lost:
            shutil.rmtree(own)
    return found


def _cut(directory: Path, engine: str, chance: random.Random, seed: int, mutant: str, fsync: str) -> tuple[int, int]:
    durability = "power" if fsync == "always" else "process"
    before, after = directory / "before", directory / "after"
    before.mkdir()
    after.mkdir()
    disk = LoopDisk(before / "disk")
    stage = Stage(before, engine, seed, mutant=mutant, disk=disk, durability=durability, fsync=fsync)
    try:
        answered = _load_and_copy(stage, disk, after / "disk.img", chance, seed)
    finally:
        stage.close()
    copy = LoopDisk(after / "disk", after / "disk.img")
    again = Stage(after, engine, seed, disk=copy, durability=durability, fsync=fsync)
    try:
        if engine == "redis" and fsync != "always":
            _repair(copy.path / "redis" / "appendonlydir" / "appendonly.aof.manifest")
        again.open(consumer=False)
        lost = sum(len(_missing(again, topic, answered)) for topic in TOPICS)
    finally:
        again.close()
    return len(answered), lost


def _repair(manifest: Path) -> None:
    """What an operator would do: without fsync, holes may be left in the file, and Redis refuses to start on it."""
    subprocess.run(["redis-check-aof", "--fix", str(manifest)], input=b"y\n", capture_output=True, check=False)


def _missing(stage: Stage, topic: str, ids: set[str]) -> set[str]:
    """Those of `ids` that are in no state; they should all be ready."""
    for state in ("ready", "leased", "delayed", "dead"):
        if ids:
            ids = ids - listing(stage, topic, state).keys()
    return ids


def _load_and_copy(stage: Stage, disk: LoopDisk, image: Path, chance: random.Random, seed: int) -> set[str]:
    """Push, stop everything at a random moment, copy the image; the ids of the pushes answered by then."""
    ledger = stage.directory / "producer.ledger"
    ledger.touch()
    stage.open(consumer=False)
    command = [sys.executable, "-m", "tests.chaos.producer", "--port", str(stage.gateway), "--first", "0"]
    command += ["--count", "1000000", "--per-second", str(_PER_SECOND), "--ledger", str(ledger), "--seed", str(seed)]
    producer = subprocess.Popen(command)
    try:
        wait_until(lambda: ledger.read_text().count("\nA ") > 100, 60, "pushes are answered")
        time.sleep(chance.uniform(0.0, 1.5))  # the random moment itself
        stage.freeze(signal.SIGSTOP)
        ids = set(read([ledger], stage.consumer_ledger, stage.consumer_ledger).accepted.values())
        disk.copy(image)
    finally:
        producer.kill()
        producer.wait()
        stage.freeze(signal.SIGCONT)
    return ids


def main(directory: Path, engine: str, cuts: int, seed: int) -> int:
    if why := LoopDisk.unavailable():
        print(f"no power cuts here: {why}")
        return 0
    found = run(directory / "cuts", engine, cuts, seed)
    print(f"engine {engine}, seed {seed}: {found}")
    careless: dict[str, str] = {"mutant": "syncs nothing"} if engine == "embedded" else {"fsync": "everysec"}
    control = run(directory / "control", engine, 1, seed, **careless)
    print(f"control that does not sync ({', '.join(careless.values())}): {control}")
    return 1 if sum(found.lost) or not sum(control.lost) else 0
