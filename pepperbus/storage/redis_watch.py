"""Hearing of pushes that other nodes announce: one subscription a process.

Floor 3. A wake can get lost (Redis restarts, the connection breaks): so every second, and after each new subscription,
it says "look at all".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import gevent
from gevent import Greenlet

from pepperbus import names
from pepperbus.errors import StorageError
from pepperbus.storage.redis_url import Address
from pepperbus.storage.redis_wire import Connection

SWEEP_S = 1.0


class Watch:
    """Calls `wake(topic)` for pushes to `topics`, `wake("")` for "look at all", until `stop`."""

    def __init__(self, address: Address, timeout: float, topics: Sequence[str], wake: Callable[[str], None]) -> None:
        self._address = address
        self._timeout = timeout
        self._channels = {names.wake_channel(topic).encode(): topic for topic in topics}
        self._wake = wake
        self._greenlets: list[Greenlet] = [gevent.spawn(self._sweep)]
        if self._channels:
            self._greenlets.append(gevent.spawn(self._listen))

    def stop(self) -> None:
        gevent.killall(self._greenlets, block=False)

    def _sweep(self) -> None:
        while True:
            gevent.sleep(SWEEP_S)
            self._wake("")

    def _listen(self) -> None:
        while True:
            try:
                connection = Connection(self._address, time.monotonic() + self._timeout)
            except StorageError:
                gevent.sleep(SWEEP_S / 2)
                continue
            try:
                for channel in connection.subscribe(list(self._channels)):
                    self._wake(self._channels.get(channel, ""))
            except StorageError:
                gevent.sleep(0.05)
            finally:
                connection.drop()
