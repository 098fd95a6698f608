"""Signs that there may be jobs: what other processes of this node say by an eventfd, and a storage of other nodes.

Floor 4. Knows the bell, the eventfd and the pumps; nothing of how a pump looks for its jobs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import gevent

from pepperbus.child import Child
from pepperbus.family.bell import Bell, Ear
from pepperbus.names import split_topic
from pepperbus.worker.pumps import Pumps

#: So many topics at most are looked at for wakes that got lost, whenever a storage asks for that.
_LOOK_MOST = 200


class Wakes:
    """What one worker hears, and what it tells the others of its group."""

    def __init__(self, child: Child, queues: Iterable[str], pumps: Pumps) -> None:
        self._child = child
        self._pumps = pumps
        self._bell = Bell(child.config.bus.run_dir)
        self._ear = Ear(self._bell, queues)
        self._next_look = 0
        self._watcher: Any = None

    def listen(self) -> None:
        wake_fd = self._child.wakes.get(self._child.group)
        if wake_fd is not None:
            self._watcher = gevent.get_hub().loop.io(wake_fd, 1)
            self._watcher.start(self._on_eventfd, wake_fd)

    def stop(self) -> None:
        """The next push is for the others to hear."""
        if self._watcher is not None:
            self._watcher.stop()

    def tell(self, queues: set[str]) -> None:
        """What this worker gave back is not announced by a push: the others of the group must look."""
        for queue in queues:
            self._bell.ring(queue)
        wake_fd = self._child.wakes.get(self._child.group)
        if wake_fd is not None:
            try:
                os.eventfd_write(wake_fd, 1)
            except OSError:
                pass  # so full that they are awake

    def _on_eventfd(self, wake_fd: int) -> None:
        try:
            os.eventfd_read(wake_fd)
        except BlockingIOError:
            pass  # another worker of the group was quicker; the jobs may still be more than it takes
        for queue in self._ear.rung():
            for pump in self._pumps.of(queue):
                pump.pushed()

    def heard(self, name: str) -> None:
        """A storage's word: a push to topic `name` on another node; "" when one may have gone unheard (every second)."""
        if name:
            for pump in self._pumps.of(split_topic(name)[0]):
                if pump.name == name:
                    pump.pushed()
            return
        for _ in range(min(_LOOK_MOST, len(self._pumps))):
            self._next_look = (self._next_look + 1) % len(self._pumps)
            self._pumps[self._next_look].pushed()
