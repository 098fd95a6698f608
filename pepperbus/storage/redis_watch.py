"""Hearing of pushes that other nodes announce: one subscription a process.

Floor 3. A wake can get lost (Redis restarts, the connection breaks): so after each new subscription it says "look at all",
and every second asks of some topics whether jobs wait there; of a thousand empty ones that is one short command.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import gevent
from gevent import Greenlet

from pepperbus import names
from pepperbus.errors import StorageError
from pepperbus.storage.redis_link import Link
from pepperbus.storage.redis_wire import Connection

SWEEP_S = 1.0
#: So many topics are asked about at once.
_ASKED = 256


class Watch:
    """Calls `wake(topic)` for pushes to `topics`, `wake("")` for "look at all", until `stop`."""

    def __init__(self, link: Link, topics: Sequence[str], wake: Callable[[str], None]) -> None:
        self._link = link
        self._topics = topics
        self._channels = {names.wake_channel(topic).encode(): topic for topic in topics}
        self._wake = wake
        self._greenlets: list[Greenlet] = [gevent.spawn(self._sweep)]
        if self._channels:
            self._greenlets.append(gevent.spawn(self._listen))

    def stop(self) -> None:
        gevent.killall(self._greenlets, block=False)

    def _sweep(self) -> None:
        at = 0
        while True:
            gevent.sleep(SWEEP_S)
            at = at if at < len(self._topics) else 0
            try:
                for topic in _holding(self._link, self._topics[at : at + _ASKED]):
                    self._wake(topic)
            except StorageError:
                continue  # the same ones again
            at += _ASKED

    def _listen(self) -> None:
        while True:
            try:
                connection = Connection(self._link.pool.address, time.monotonic() + self._link.pool.timeout)
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


def _holding(link: Link, topics: Sequence[str]) -> list[str]:
    """In which of `topics` jobs are ready or delayed. While there are none: one command."""
    keys = [link.keys(topic) for topic in topics]
    both = [key for one in keys for key in (one.ready, one.delay)]
    if not both or not link.ask((b"EXISTS", *both))[0]:
        return []
    found = link.ask(*[(b"EXISTS", one.ready, one.delay) for one in keys])
    return [topic for topic, n in zip(topics, found, strict=True) if n]
