"""Guarded dispatch: send all but the end of the params, and go on only when a child of php-fpm has read that.

A job that is queued behind a full pool, or whose child is killed or reloaded meanwhile, has then provably not run. With
the smallest buffer a unix socket is not writable before its peer has read, so the hub tells us. Knows sockets and the
hub; of FastCGI only that nothing runs before the params end.
"""

from __future__ import annotations

import _socket
import time
from collections.abc import Callable
from fcntl import ioctl
from typing import TYPE_CHECKING

from pepperbus.delivery.fastcgi_pool import Connection, Pool

if TYPE_CHECKING:
    from gevent._types import _IoWatcher, _TimerWatcher

_WRITE = 2
_SIOCOUTQ = 0x5411
#: How long a full server is waited for (seconds).
BUSY_S = 5.0
_LOOK_S = 0.001


class Guard:
    """One dispatch. Calls `taken`, `not_taken(why)` or `lost(why)` once, later or within `send`, unless stopped before."""

    def __init__(
        self,
        connection: Connection,
        pool: Pool,
        taken: Callable[[], None],
        not_taken: Callable[[str], None],
        lost: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._began = time.monotonic()
        self._taken, self._not_taken, self._lost = taken, not_taken, lost
        self._writer: _IoWatcher | None = pool.loop.io(connection.sock.fileno(), _WRITE)
        self._timer: _TimerWatcher | None = None

    def send(self, opening: bytes) -> None:
        sock = self._connection.sock
        try:
            sock.send(opening)
        except OSError as error:
            self._end(self._lost, error.strerror or "")
            return
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, 1)
        assert self._writer is not None
        self._writer.start(self._writable)
        self._after(BUSY_S, self._too_long)

    def stop(self) -> None:
        """Forget it; harmless when it has ended."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop()
            writer.close()
        self._stop_timer()

    def _writable(self) -> None:
        """A child has read, all of it if the kernel holds nothing back any more."""
        sock = self._connection.sock
        if any(ioctl(sock.fileno(), _SIOCOUTQ, b"\0\0\0\0")):
            assert self._writer is not None
            self._writer.stop()
            if time.monotonic() - self._began > BUSY_S:
                self._too_long()
            else:
                self._after(_LOOK_S, self._writable)
            return
        try:
            sock.recv(1, _socket.MSG_PEEK)  # the order matters: a child says EOF first, then drains us
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(self._lost, error.strerror or "")
            return
        else:
            self._end(self._lost, "closed before the request was sent")
            return
        self._pool.taken(time.monotonic() - self._began)
        self._end(self._taken)

    def _too_long(self) -> None:
        self._pool.is_full()
        self._end(self._not_taken, f"no child took the request within {BUSY_S:g} s")

    def _end(self, what: Callable[..., None], *args: str) -> None:
        self.stop()
        what(*args)

    def _after(self, seconds: float, what: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._pool.loop.timer(seconds)
        self._timer.start(what, update=True)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()
