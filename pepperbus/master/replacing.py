"""Replacing the processes of the old code one by one: each leaves when its successor serves.

A gateway or worker keeps serving while the successor starts beside it under the next free name (no name is ever twice
alive), and drains when that is ready. Ticker and web are single: they leave first, within moments; who asks the web
meanwhile waits in the queue of its listening socket, which is never closed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pepperbus.family import beats
from pepperbus.family.spec import ORPHAN_S
from pepperbus.master.bus import Bus
from pepperbus.master.changes import longest_timeout_s
from pepperbus.master.children import Phase, Place

#: A birth, and the few tries that a boot failure is given.
_PATIENCE_S = 1.5 * beats.BOOT_LIMIT_S
#: Job ids have four bits for their maker; the highest number is the workers'.
_LAST_GATEWAY = 14
_ORDER = ("gateway", "worker", "ticker", "web")  # those that can fall back to the old process come first
_WHY = "replaced by new code"


@dataclass
class Replacing:
    """`left`: incarnations of the old code, in the order in which they go; the first is `current` once it was begun."""

    left: list[str] = field(default_factory=list)
    done: int = 0
    current: Place | None = None
    _until: float = 0.0

    @classmethod
    def of(cls, places: Iterable[Place]) -> Replacing:
        """Everybody who would stay: what drains already goes anyway."""
        old = [place for place in places if not place.retired and place.phase is not Phase.DRAINING]
        old.sort(key=lambda place: _ORDER.index(place.role))
        return cls([place.boot for place in old])

    def covers(self, place: Place) -> bool:
        """Whether that place need not be ready just now: another process serves for it, or nobody will be missed."""
        current = self.current
        return current is not None and (current.role, current.group) == (place.role, place.group)

    def go_on(self, bus: Bus, now: float) -> str:
        """As far as it goes in this turn. The answer: why it goes no further, or empty."""
        while self.left:
            if self.current is None:
                self._begin(bus, now)
            if self.current is None:
                continue
            trouble = self._trouble(bus, now)
            if trouble:
                self._give_up(bus)
                return trouble
            if not self._has_successor(bus):
                return ""
            self._finish(bus)
        return ""

    def _begin(self, bus: Bus, now: float) -> None:
        place = next((p for p in bus.children.alive() if p.boot == self.left[0]), None)
        if place is None or place.retired or place.phase is Phase.DRAINING:
            self.left.pop(0)  # it left by itself; what came after it is new
            return
        self.current, self._until = place, now + _PATIENCE_S
        if not _has_room(bus, place):
            bus.drain(place, _grace_s(bus, place), _WHY)
            return
        bus.children.retire(place)  # it does not count any more, so there is one too few
        bus.keep_count()
        bus.start_due(now)

    def _counted(self, bus: Bus) -> list[Place]:
        assert self.current is not None
        return bus.children.of(self.current.role, self.current.group)

    def _has_successor(self, bus: Bus) -> bool:
        return all(place.phase is Phase.READY and place.boot != self.left[0] for place in self._counted(bus))

    def _trouble(self, bus: Bus, now: float) -> str:
        assert self.current is not None
        for place in self._counted(bus):
            if place.phase is Phase.FAILED:
                return (
                    f"{place.name} of the new code cannot boot, the old processes that are left go on: {place.reason}"
                )
        if now >= self._until:
            waiting = [place for place in self._counted(bus) if place.phase is not Phase.READY]
            said = ", ".join(f"{place.name} ({place.reason or place.phase})" for place in waiting)
            return f"no successor of {self.current.name} within {_PATIENCE_S:g} s, the old processes go on: {said}"
        return ""

    def _finish(self, bus: Bus) -> None:
        assert self.current is not None
        if self.current.boot == self.left[0] and self.current.retired:
            bus.drain(self.current, _grace_s(bus, self.current), _WHY)
        self.left.pop(0)
        self.current = None
        self.done += 1

    def _give_up(self, bus: Bus) -> None:
        """The old process counts again, instead of the successor that did not come."""
        old = self.current
        assert old is not None
        if old.alive and old.retired and old.phase is not Phase.DRAINING:
            for place in self._counted(bus):
                if place.phase is not Phase.READY:
                    bus.retire(place, 0.0, "it did not become ready")
            old.retired = False
        self.current = None


def _has_room(bus: Bus, place: Place) -> bool:
    """Whether a successor may stand beside it."""
    if place.role == "gateway":
        names = bus.children.places
        return any(f"gateway.{index}" not in names for index in range(_LAST_GATEWAY + 1))
    return place.role == "worker"


def _grace_s(bus: Bus, place: Place) -> float:
    """An upgrade cuts no running job: an old worker may finish as long as its jobs may run."""
    match place.role:
        case "worker":
            return max(bus.config.bus.grace, longest_timeout_s(bus.config, place.group))
        case "gateway":
            return bus.config.bus.grace
        case _:
            return ORPHAN_S
