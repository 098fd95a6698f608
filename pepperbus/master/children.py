"""The registry of the master's children: who should live, who does, what happened to whom.

Pure: it knows no signal, no pid operation, no socket and no clock of its own; times are handed in (monotonic
seconds), pids may be invented. The loop acts on what it answers.

A *place* is one name (`gateway.0`). Its state changes only by this table:

    state      start     ready   drain     exit
    waiting    starting  -       -         -
    starting   -         ready   draining  waiting, or failed after BOOT_FAILURES deaths in a row
    ready      -         ready   draining  waiting
    draining   -         -       draining  waiting
    failed     starting  -       -         -

A place that was *retired* vanishes at its exit instead. While it drains it does not count, and a successor gets the
lowest free index: so a worker of a changed queue starts at once, beside the one that still finishes a long job.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 30.0
#: A life this long clears the record; one that got ready and lasted CALM_S at least does not worsen it.
RESET_S = 60.0
CALM_S = 5.0
BOOT_FAILURES = 5


class Phase(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass
class Place:
    """One name and the process that has it now. `pid` 0: none, or not yet known."""

    role: str
    name: str
    index: int
    group: str
    beat: int
    phase: Phase = Phase.WAITING
    pid: int = 0
    boot: str = ""
    generation: int = 0
    started: float = 0.0
    next_start: float = 0.0
    kill_at: float = 0.0  # while draining
    aborted_at: float = 0.0  # when the traceback dump was asked for
    retired: bool = False
    restarts: int = 0
    short_lives: int = 0  # in a row
    boot_failures: int = 0  # in a row
    was_ready: bool = False
    reason: str = ""  # why the last process left, or why this one is leaving
    last_words: str = ""  # what the process itself said before it ended
    definite: bool = False  # the boot failure will not mend by itself

    @property
    def alive(self) -> bool:
        return self.phase in (Phase.STARTING, Phase.READY, Phase.DRAINING)

    def backoff_s(self, random: float) -> float:
        """How long to wait before the next start; half of it is random."""
        if not self.short_lives:
            return 0.1
        wait = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** (self.short_lives - 1))
        return wait / 2 + random * wait / 2


@dataclass
class Wanted:
    """How many places of a role and group there should be. A single place is called by its role alone.

    `indexes`: only the first so many may be used, 0 = any. A gateway's index stands in the ids it makes, in four bits.
    """

    role: str
    group: str
    count: int
    single: bool = False
    indexes: int = 0

    def name(self, index: int) -> str:
        if self.single and index == 0:
            return self.role
        return f"{self.role}.{self.group}.{index}" if self.group else f"{self.role}.{index}"


@dataclass
class Children:
    """All places by name."""

    places: dict[str, Place] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Place]:
        return iter(list(self.places.values()))

    def alive(self) -> list[Place]:
        return [place for place in self.places.values() if place.alive]

    def of(self, role: str, group: str = "") -> list[Place]:
        """The places that count: not the retired ones; in the order of their index."""
        found = [p for p in self.places.values() if p.role == role and p.group == group and not p.retired]
        return sorted(found, key=lambda place: place.index)

    def by_pid(self, pid: int) -> Place | None:
        return next((p for p in self.places.values() if p.pid == pid and p.alive), None)

    def keep_count(self, wanted: Wanted) -> list[Place]:
        """Add missing places; answer the surplus ones, highest index first, for the caller to retire."""
        have = self.of(wanted.role, wanted.group)
        for _ in range(wanted.count - len(have)):
            self._add(wanted)
        return have[wanted.count :][::-1]

    def _add(self, wanted: Wanted) -> None:
        index = 0
        while wanted.name(index) in self.places:
            index += 1
        if wanted.indexes and index >= wanted.indexes:
            return  # all are still taken by processes that are leaving
        used = {place.beat for place in self.places.values()}
        beat = next(i for i in range(len(used) + 1) if i not in used)
        name = wanted.name(index)
        self.places[name] = Place(wanted.role, name, index, wanted.group, beat)

    def due(self, now: float) -> list[Place]:
        """The places whose process should be started now."""
        return [p for p in self.places.values() if p.phase is Phase.WAITING and p.next_start <= now]

    def start(self, place: Place, boot: str, generation: int, now: float) -> None:
        place.phase, place.boot, place.generation = Phase.STARTING, boot, generation
        place.pid, place.started, place.was_ready = 0, now, False
        place.kill_at = place.aborted_at = 0.0
        place.definite, place.last_words = False, ""

    def ready(self, place: Place) -> None:
        place.was_ready = True
        if place.phase is Phase.STARTING:
            place.phase = Phase.READY

    def drain(self, place: Place, kill_at: float, reason: str) -> bool:
        """True when the process is to be told. A later, shorter limit wins over an earlier, longer one."""
        if not place.alive:
            return False
        if place.phase is Phase.DRAINING and place.kill_at <= kill_at:
            return False
        place.phase, place.kill_at, place.reason = Phase.DRAINING, kill_at, reason
        return True

    def retire(self, place: Place) -> None:
        """It does not come back. Without a process it is gone at once."""
        place.retired = True
        if not place.alive:
            self.places.pop(place.name, None)

    def exit(self, place: Place, reason: str, now: float, random: float = 1.0, gave_up: bool = False) -> None:
        """Its process is gone. `reason` is kept only if nobody asked it to leave.

        `gave_up`: it ended itself, with an error. Soon after its start that counts as a boot failure.
        """
        asked = place.phase is Phase.DRAINING
        lived = now - place.started
        place.pid = 0
        place.phase = Phase.WAITING  # also when it is retired: an upgrade may still have it in hand
        if place.retired:
            self.places.pop(place.name, None)
            return
        place.restarts += 1
        place.next_start = now
        if asked:
            return
        place.reason = reason
        if not place.was_ready or (gave_up and lived < CALM_S):
            place.boot_failures += 1
        else:
            place.boot_failures = 0
        if lived >= RESET_S:
            place.short_lives = 0
        elif not (place.was_ready and lived >= CALM_S):
            place.short_lives += 1
        place.next_start = now + place.backoff_s(random)
        if place.boot_failures >= BOOT_FAILURES:
            place.phase = Phase.FAILED

    def forgive(self) -> None:
        """A new configuration may have mended what failed."""
        for place in self.places.values():
            if place.phase is Phase.FAILED:
                place.phase = Phase.WAITING
                place.boot_failures = place.short_lives = 0
                place.next_start = 0.0

    def settled(self) -> bool:
        """Every place is ready or has failed for good: the boot is over."""
        return all(p.phase in (Phase.READY, Phase.FAILED) or p.retired for p in self.places.values())

    def next_time(self) -> float:
        """The nearest moment something is to be done; infinity when there is none."""
        times = [p.next_start for p in self.places.values() if p.phase is Phase.WAITING]
        times += [p.kill_at for p in self.places.values() if p.phase is Phase.DRAINING]
        return min(times, default=float("inf"))
