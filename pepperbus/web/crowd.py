"""Everybody connected to the sidecar: how many, from where, who keeps us waiting, and who goes when there is no place.

Floor 5. Knows sockets only to end them; of HTTP nothing. A connection that waits for its client (idle, a request that
comes slowly, an answer nobody takes) costs its place to whoever comes next; one we work for keeps it.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

MOST = 512  # live pages are 200 of them at most
OF_ONE_ADDRESS = 384
_TOLD_EVERY_S = 60.0


class Visitor:
    """One connection. `waits_since` (monotonic): since when it keeps us waiting; None while we work for it."""

    __slots__ = ("address", "sock", "waits_since")

    def __init__(self, sock: Any, address: str) -> None:
        self.sock = sock
        self.address = address
        self.waits_since: float | None = time.monotonic()


class Crowd:
    """All of them, over all listeners. `tell` is given a line now and then about those who had to go."""

    def __init__(self, tell: Callable[[str], None], most: int = MOST, of_one: int = OF_ONE_ADDRESS) -> None:
        self._tell = tell
        self._most = most
        self._of_one = of_one
        self._here: dict[Visitor, None] = {}
        self._gone = self._refused = 0
        self._told_at = -_TOLD_EVERY_S

    def admit(self, sock: Any, address: str) -> Visitor | None:
        """A place for a new connection, made if need be; None: everybody here is being worked for."""
        if len(self._here) >= min(self._of_one, self._most) and not self._make_place(address):
            self._refused += 1
            self._report()
            return None
        visitor = Visitor(sock, address)
        self._here[visitor] = None
        return visitor

    def leave(self, visitor: Visitor) -> None:
        """The connection has ended."""
        self._here.pop(visitor, None)

    def _make_place(self, address: str) -> bool:
        theirs = [visitor for visitor in self._here if visitor.address == address]
        if len(theirs) >= self._of_one:
            return self._send_away(theirs)
        if len(self._here) < self._most:
            return True
        waiting = Counter(visitor.address for visitor in self._here if visitor.waits_since is not None)
        if not waiting:
            return False
        (busiest, _), *_ = waiting.most_common(1)  # a flood from one address takes its own places only
        return self._send_away(visitor for visitor in self._here if visitor.address == busiest)

    def _send_away(self, some: Iterable[Visitor]) -> bool:
        """The one who waits longest; its greenlet sees the end of the connection and leaves by itself."""
        waiting = [(visitor.waits_since, visitor) for visitor in some if visitor.waits_since is not None]
        if not waiting:
            return False
        _, visitor = min(waiting, key=lambda pair: pair[0])
        del self._here[visitor]
        try:
            visitor.sock._sock.shutdown(socket.SHUT_RDWR)  # the plain one: TLS would first say goodbye
        except OSError:
            pass  # it has gone already
        self._gone += 1
        self._report()
        return True

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._told_at >= _TOLD_EVERY_S:
            self._told_at = now
            self._tell(
                f"no place for everybody: {self._gone} connections that kept us waiting were closed and "
                f"{self._refused} refused so far; {len(self._here)} of {self._most} are open"
            )
