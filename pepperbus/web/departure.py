"""Notices that a client has gone while its answer still goes on, without writing to it. Floor 5.

Knows a socket, nothing of HTTP or of what is served. Who only half closes has gone too: nobody reads events that way. A client
whose machine vanished sends nothing at all; that shows by writing only.
"""

from __future__ import annotations

import select
from typing import Any

import gevent
from gevent.event import Event
from gevent.monkey import get_original

#: Where the WSGI server leaves the function that begins to watch.
KEY = "pepperbus.departure"
_SOON_S, _AGAIN_S = 0.05, 1.0  # TLS says goodbye a moment before it closes


def of(environ: dict[str, Any]) -> Event:
    """Set as soon as the client of this request has gone; links to it run in the hub. Of another server: never set."""
    watch = environ.get(KEY)
    return watch() if watch else Event()


class Departure:
    """Watches one connection until `stop`, which must come before the socket is closed. Costs no greenlet."""

    def __init__(self, sock: Any) -> None:
        self.gone = Event()
        fd = sock.fileno()
        # The plain one: gevent's knows no RDHUP, and only that shows an end behind bytes nobody has read.
        self._asked = get_original("select", "poll")()
        self._asked.register(fd, select.POLLRDHUP)
        loop: Any = gevent.get_hub().loop  # its stubs do not know all of a watcher
        self._readable = loop.io(fd, 1)
        self._again = loop.timer(_SOON_S, _AGAIN_S)
        self._readable.start(self._look)

    def _look(self) -> None:
        if self._asked.poll(0):
            self.stop()
            self.gone.set()
        elif self._readable.active:  # it has sent more, and would be readable for ever
            self._readable.stop()
            self._again.start(self._look)

    def stop(self) -> None:
        """Watch no longer; again and again if you like."""
        for watcher in (self._readable, self._again):
            watcher.stop()
            watcher.close()
