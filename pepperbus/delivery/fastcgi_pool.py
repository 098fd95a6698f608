"""One php-fpm pool as one process uses it: how to reach it, and its kept connections, shared by all topics there.

An idle kept connection pins a php-fpm child, so it is closed after a second, long before php-fpm's own five, and
another topic of the pool may take it before that.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from gevent import get_hub, spawn
from gevent.socket import getaddrinfo

from pepperbus.config.model import FastcgiPool
from pepperbus.delivery.contract import Answer
from pepperbus.delivery.fastcgi_connect import Address

if TYPE_CHECKING:
    from gevent._types import _IoWatcher, _Loop

#: Seconds a kept connection may lie idle.
IDLE_S = 1.0
#: With `guard = auto`: one request of so many is guarded, and all of them for so many seconds after the pool was full.
_SAMPLE, _FULL_S = 16, 5.0
#: After one that was taken late all are guarded for so many times what it waited; when so many in a row were late, each
#: begun after the one before was taken, the pool is full. A machine that is busy for 10 ms is not a full pool: at half
#: load one request in a hundred waits longer than PROMPT_S, and 5 s of guarding each time made that one in twenty.
_LATE_TIMES, _LATE_IN_A_ROW = 8, 3
#: A free child takes a request within this (seconds). More than this would let jobs that wait behind a killed php-fpm
#: count as begun.
PROMPT_S = 0.005
#: Answers that came before, byte for byte, need no parsing. How many of them are remembered, and how large ones.
_KNOWN, MOST_KNOWN = 256, 1024
#: Seconds a looked-up host name is used again.
_NAME_S = 10.0


class Connection:
    """A connected socket, the watcher that reads it, and whom it reads for: an exchange, or nobody while it is idle.

    The watcher stays started from one exchange to the next: starting it twice a job cost 3 µs.
    """

    __slots__ = ("_pool", "reader", "reused", "since", "sock", "watcher")

    def __init__(self, sock: _socket.socket, pool: Pool) -> None:
        self.sock = sock
        self.watcher: _IoWatcher = pool.loop.io(sock.fileno(), 1)
        self.reused = False
        self.since = 0.0
        self.reader: Callable[[], None] | None = None
        self._pool = pool

    def read_for(self, reader: Callable[[], None]) -> None:
        """From now on call `reader` whenever there is something to read."""
        self.reader = reader
        self.watcher.start(self._readable)

    def _readable(self) -> None:
        if self.reader is not None:
            self.reader()
        else:
            self._pool.discard(self)

    def close(self) -> None:
        self.watcher.stop()
        self.watcher.close()
        self.sock.close()


class Pool:
    """Made by `pool_of`, once per process and configured pool."""

    def __init__(self, settings: FastcgiPool) -> None:
        self.settings = settings
        self.address = Address(settings.address)
        self.loop: _Loop = get_hub().loop
        self.keepalive = settings.dedicated and settings.keepalive
        self.known: dict[bytes, Answer] = {}
        self._full_until = 0.0
        self._late = 0  # so many in a row were taken late, and when the last of these was taken
        self._late_at = 0.0
        self._dispatched = 0
        self._idle: list[Connection] = []
        self._sweeping = False
        self._sweep = self.loop.timer(IDLE_S / 2, IDLE_S / 2)  # a timer without a repeat, started again, fires at once
        self._hosts: list[str] = []
        self._hosts_until = 0.0

    def look_up(self, found: Callable[[list[str], str], None]) -> None:
        """Call `found(numeric addresses, why none)`, later, from the hub."""

        def ask() -> None:
            why = ""
            if not self._hosts or self.loop.now() > self._hosts_until:
                try:
                    rows = getaddrinfo(self.address.host, self.address.port, 0, _socket.SOCK_STREAM)
                    self._hosts = [str(row[4][0]) for row in rows]
                    self._hosts_until = self.loop.now() + _NAME_S
                except OSError as error:
                    self._hosts, why = [], f"no such host: {error.strerror}"
            self.loop.run_callback(found, self._hosts, why)

        spawn(ask)

    def learn(self, data: bytes, answer: Answer) -> None:
        """Remember what a whole answer means; all are forgotten when they become too many."""
        if len(self.known) >= _KNOWN:
            self.known.clear()
        self.known[data] = answer

    def guarded(self) -> bool:
        """Whether the next request is to wait, harmlessly, until a child has taken it.

        Only a unix socket can tell. It costs a sixth of the rate, so `auto` guards one request in sixteen, and all of
        them for a while after one that no child took at once: the pool may be full, with whosever requests.
        """
        mode = self.settings.guard
        if mode == "auto" and self.address.path:
            self._dispatched += 1
            return self._dispatched % _SAMPLE == 1 or self.loop.now() < self._full_until
        return mode == "always" and bool(self.address.path)

    def is_full(self) -> None:
        """No child was free just now."""
        self._full_until = self.loop.now() + _FULL_S

    def taken(self, waited_s: float) -> None:
        """A child took a guarded request after this long."""
        if waited_s <= PROMPT_S:
            self._late = 0
            return
        now = self.loop.now()
        if now - waited_s >= self._late_at:  # not those that one and the same delay made late
            self._late += 1
            self._late_at = now
        if self._late >= _LATE_IN_A_ROW:
            self.is_full()
        else:
            self._full_until = max(self._full_until, now + min(_FULL_S, waited_s * _LATE_TIMES))

    def take(self) -> tuple[Connection | None, bool]:
        """An idle connection that is still alive, the last used first; and whether one was found closed on the way."""
        idle, found_closed = self._idle, False
        while idle:
            connection = idle.pop()
            connection.reused = True
            if connection.since == self.loop.now():  # read from in this turn of the hub: a second look finds nothing
                return connection, found_closed
            try:
                connection.sock.recv(1)  # EOF, or bytes nobody asked for: either way it is of no use
            except BlockingIOError:
                return connection, found_closed
            except OSError:
                pass
            connection.close()
            found_closed = True
        return None, found_closed

    def give(self, connection: Connection) -> None:
        """Keep a connection whose answer ended cleanly."""
        connection.reader = None
        connection.since = self.loop.now()
        self._idle.append(connection)
        if not self._sweeping:
            self._sweeping = True
            self._sweep.start(self._close_old)

    def discard(self, connection: Connection) -> None:
        """An idle connection never has anything to say: php-fpm closed it (reload, max_requests)."""
        self._idle.remove(connection)
        connection.close()

    def drop_idle(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        self._stop_sweeping()

    def _close_old(self) -> None:
        oldest = self.loop.now() - IDLE_S
        while self._idle and self._idle[0].since < oldest:
            self._idle.pop(0).close()
        if not self._idle:
            self._stop_sweeping()

    def _stop_sweeping(self) -> None:
        self._sweeping = False
        self._sweep.stop()


_pools: WeakValueDictionary[FastcgiPool, Pool] = WeakValueDictionary()


def pool_of(settings: FastcgiPool) -> Pool:
    """The one Pool of this process for these settings, alive as long as a consumer uses it."""
    found = _pools.get(settings)
    if found is None:
        found = _pools[settings] = Pool(settings)
    return found
