"""The other gateways of this node: who of them has clients that wait for jobs, and how it is told of a push.

Floor 4. Knows the mapped page, the eventfds and the bell; nothing of topics' storages. A gateway says that somebody waits
before it looks into the storage, and who pushes looks at the page afterwards: so one of the two sees the other.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import gevent

from pepperbus.config.model import MOST_GATEWAYS, gateway_wake
from pepperbus.family.bell import Bell, Ear


class Neighbours:
    """One gateway's view of its kind."""

    def __init__(self, run_dir: Path, index: int, wakes: Mapping[str, int], heard: Callable[[str], None]) -> None:
        """`heard(queue)`: another gateway pushed to it. `wakes` may grow later."""
        self._index = index
        self._wakes = wakes
        self._heard = heard
        self._bell = Bell(run_dir)
        self._ear: Ear | None = None
        self._watcher: Any = None
        fd = os.open(run_dir / "waiting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.posix_fallocate(fd, 0, MOST_GATEWAYS * 8)
            self._page = memoryview(mmap.mmap(fd, MOST_GATEWAYS * 8)).cast("Q")
        finally:
            os.close(fd)
        self._page[index] = 0

    def listen(self, queues: Iterable[str]) -> None:
        """From now on these queues matter."""
        self._ear = Ear(self._bell, queues)
        fd = self._wakes.get(gateway_wake(self._index))
        if fd is not None and self._watcher is None:
            self._watcher = gevent.get_hub().loop.io(fd, 1)
            self._watcher.start(self._woken, fd)

    def _woken(self, fd: int) -> None:
        try:
            os.eventfd_read(fd)
        except BlockingIOError:
            pass
        if self._ear is not None:
            for queue in self._ear.rung():
                self._heard(queue)

    def waits(self, waits: bool) -> bool:
        """Say whether somebody waits here; True when the others did not know so yet."""
        if bool(self._page[self._index]) == waits:
            return False
        self._page[self._index] = waits
        return waits

    def tell(self) -> None:
        """Wake those who wait. The bell has been rung."""
        page = self._page
        for index in range(MOST_GATEWAYS):
            if page[index] and index != self._index:
                try:
                    os.eventfd_write(self._wakes[gateway_wake(index)], 1)
                except (OSError, KeyError):
                    pass  # so full that it is awake, or from before this configuration

    def close(self) -> None:
        self._page[self._index] = 0
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
