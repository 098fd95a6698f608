"""One pop of one connection: what the connection had is settled, what comes next is leased to it.

Floor 4. Knows sessions and the handout, and of RESP only what a trouble is called; the commands are `pops`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gevent

from pepperbus.errors import StorageError, StorageUnavailable
from pepperbus.gateway.place import Jobs, Place, Waiter
from pepperbus.gateway.session import Session
from pepperbus.gateway.taken import Taken
from pepperbus.wire import resp

CALM_S = 1.0  # before a blocking command is refused, so that a loop around it does not spin


class Pop:
    """One pop of one connection: what it had is settled, what comes next is leased."""

    __slots__ = (
        "_arrive",
        "_jobs",
        "_kept",
        "_n",
        "_place",
        "_places",
        "_reply",
        "_seconds",
        "_session",
        "_stopped",
        "_waiter",
    )

    def __init__(
        self,
        session: Session,
        places: list[tuple[bytes, Place]],
        n: int,
        reply: Callable[[bytes, Jobs], bytes],
        seconds: float = 0.0,
        kept: bool = False,
    ) -> None:
        """`reply` makes the answer from the key and the jobs that came from it. `kept`: only LREM says that they are done."""
        self._session = session
        self._kept = kept
        self._places = places
        self._n = n
        self._reply = reply
        self._seconds = seconds
        self._place: Place | None = None
        self._jobs: Jobs = []
        self._waiter: Waiter | None = None
        self._stopped = False

    def now(self) -> bytes:
        """For RPOP: what there is. Blocks while the storage is asked."""
        try:
            found = self._look()
        except StorageUnavailable:
            return resp.error("TRYAGAIN storage unavailable")
        except StorageError as error:
            return resp.error(f"UNKNOWN {error}")
        return found or self._reply(self._places[0][0], [])

    def wait(self, arrive: Callable[[bytes], None]) -> bytes | None:
        """For BRPOP: what there is; None: `arrive` is called with the reply once there is something, or time is over."""
        handout = self._session.front.handout
        self._arrive = arrive
        seen = [place.rings for _, place in self._places]
        reply = self.now()
        if reply.startswith(b"-"):
            gevent.sleep(CALM_S)
        elif not (self._jobs or self._stopped):
            self._waiter = Waiter([place for _, place in self._places], self._n, self._seconds, self._received)
            handout.waiting.wait(self._waiter, seen)
            return None
        return reply

    def _received(self, place: Place | None, jobs: Jobs) -> None:
        self._place, self._jobs = place, jobs
        self._arrive(self._answer(place, jobs) if place is not None else self._reply(b"", []))

    def _look(self) -> bytes:
        """Settle what the connection has, then take what there is; b"" when there is nothing."""
        handout = self._session.front.handout
        first = self._places[0][1]
        had = [one for one in self._session.holding if not one.kept]
        jobs = self._settle_and_take(first, had) if had else handout.lease(first, self._n)
        if jobs:
            return self._got(first, jobs)
        for _, place in self._places[1:]:
            if jobs := handout.lease(place, self._n):
                return self._got(place, jobs)
        return b""

    def _settle_and_take(self, place: Place, had: list[Taken]) -> Jobs:
        """What it had is done; in the same trip the next, where both lie in one storage."""
        session = self._session
        handout = session.front.handout
        with let_go(session, had):
            ends = [one.done() for one in had]
            if had[0].lane is place.lane:
                jobs = handout.settle_and_lease(place, self._n, ends)
            else:
                had[0].lane.storage.settle(session.process.owner, ends)
                jobs = None
        return handout.lease(place, self._n) if jobs is None else jobs

    def _got(self, place: Place, jobs: Jobs) -> bytes:
        self._place, self._jobs = place, jobs
        return self._answer(place, jobs)

    def _answer(self, place: Place, jobs: Jobs) -> bytes:
        return self._reply(next(key for key, one in self._places if one is place), jobs)

    def stop(self) -> None:
        """The client has gone while it waited."""
        self._stopped = True
        if self._waiter is not None:
            self._waiter.stop()

    def after(self, written: bool) -> None:
        """The reply is in the socket's hands, or can no longer get there."""
        if self._place is None or not self._jobs:
            return
        session = self._session
        handout = session.front.handout
        if written:
            mine = handout.take(self._place, self._jobs, session.client.decode())
            for one in mine:
                one.kept = self._kept
            session.holding += mine
        else:
            handout.untake(self._place, self._jobs)


@contextmanager
def let_go(session: Session, had: list[Taken]) -> Iterator[None]:
    """Around storing that `had` is done: it is out of the connection's hands, and back in them when that fails."""
    session.holding = [one for one in session.holding if one not in had]
    try:
        yield
    except Exception:  # StorageError, or a bug of an engine: either way their leases must end some day
        session.holding += had
        if session.left:
            session.gone()
        raise
    session.front.handout.remember_done(had)
