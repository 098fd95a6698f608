"""A few connections to one Redis, lent to one greenlet at a time; and how to come back after it was away.

Floor 3. Knows nothing of jobs.
"""

from __future__ import annotations

import time

from gevent.lock import BoundedSemaphore

from pepperbus.errors import StorageUnavailable
from pepperbus.log import Log
from pepperbus.storage.redis_url import Address
from pepperbus.storage.redis_wire import Connection

_FIRST_WAIT, _LAST_WAIT = 0.05, 0.5  # between attempts to connect: it works again within a second of Redis' return


class _Loan:
    """A connection while the block lasts. A class, because a generator costs a microsecond more a trip."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __enter__(self) -> Connection:
        self._connection = self._pool.lend()
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._pool.take_back(self._connection)


class Pool:
    """Up to `size` connections to one Redis: as many trips as that are under way at once, the others wait in line.

    No trip takes longer than `timeout` seconds, the wait included. While Redis cannot be reached, trips fail at once
    between two attempts to connect, and `log` gets a line a minute. `losses`: how many connections ended by themselves.
    """

    def __init__(self, address: Address, timeout: float, size: int = 4, log: Log | None = None) -> None:
        self.address = address
        self.timeout = timeout
        self.losses = 0
        self._idle: list[Connection] = []
        self._turns = BoundedSemaphore(size)
        self._log = log
        self._logged_at = -60.0
        self._wait = 0.0
        self._retry_at = 0.0
        self._trouble = ""

    def borrow(self) -> _Loan:
        """A connection for this greenlet alone. Entering raises StorageUnavailable."""
        return _Loan(self)

    def lend(self) -> Connection:
        deadline = time.monotonic() + self.timeout
        if not self._turns.acquire(timeout=self.timeout):
            raise StorageUnavailable(f"{self.address}: all connections are waiting for answers")
        try:
            return self._take(deadline)
        except BaseException:
            self._turns.release()
            raise

    def take_back(self, connection: Connection) -> None:
        if connection.usable:
            self._idle.append(connection)
        else:
            self.losses += 1
        self._turns.release()

    def _take(self, deadline: float) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.fresh():
                connection.deadline, connection.changed = deadline, False
                return connection
            connection.drop()
            self.losses += 1
        if time.monotonic() < self._retry_at:
            raise StorageUnavailable(self._trouble)
        try:
            connection = Connection(self.address, deadline)
        except StorageUnavailable as error:
            self._failed(str(error))
            raise
        self._recovered()
        return connection

    def _failed(self, text: str) -> None:
        now = time.monotonic()
        self._wait = min(self._wait * 2 or _FIRST_WAIT, _LAST_WAIT)
        self._retry_at, self._trouble = now + self._wait, text
        if self._log and now - self._logged_at >= 60:
            self._logged_at = now
            self._log.warning("storage_down", text)

    def _recovered(self) -> None:
        if self._trouble and self._log:
            self._log.info("storage_up", f"{self.address} answers again")
        self._wait, self._retry_at, self._trouble, self._logged_at = 0.0, 0.0, "", -60.0

    def close(self) -> None:
        while self._idle:
            self._idle.pop().drop()
