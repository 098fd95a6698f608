"""Which topics of a worker are not fed: by their file, at this hour, or because somebody told the storage so. Floor 4."""

from __future__ import annotations

from pepperbus.clock import Clock
from pepperbus.config.model import Topic
from pepperbus.errors import StorageError
from pepperbus.worker.lane import Lane
from pepperbus.worker.pumps import Pumps


class Pauses:
    """`see` keeps each lane's `paused` as it should be."""

    def __init__(self, clock: Clock, pumps: Pumps) -> None:
        self._clock = clock
        self._pumps = pumps
        self._asking: set[str] = set()

    def rests(self, topic: Topic) -> bool:
        """Its file says that it is not fed, always or at this hour."""
        return topic.paused or (topic.quiet is not None and topic.quiet.now(self._clock.now_ms()))

    def look(self, lane: Lane) -> None:
        """`see`, unless somebody still waits for that storage's answer."""
        if lane.storage.name in self._asking:
            return
        self._asking.add(lane.storage.name)
        try:
            self.see(lane)
        finally:
            self._asking.discard(lane.storage.name)

    def see(self, lane: Lane) -> None:
        """Ask the storage; wake what goes on, and take back what waits here of what is paused now."""
        try:
            paused = lane.storage.paused()
        except StorageError:
            return  # what was known stays true until the storage says otherwise
        files = {pump.name for pump in self._pumps.timed if self.rests(pump.topic)}
        resumed = lane.paused - paused - files
        lane.paused = paused | files
        if not (lane.paused or resumed):
            return
        for pump in self._pumps:
            if pump.name in resumed:
                pump.wake()
            elif pump.name in lane.paused:
                pump.return_ahead()
