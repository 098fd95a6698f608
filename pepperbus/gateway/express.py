"""The quick way of the commonest push: `LPUSH key value` to a key that was pushed to before.

Knows routes and sessions, not sockets. The first push to a key goes the usual way (`commands`, `pushes`), which checks
everything; if it was a plain one to a simple queue, there is an `Express` for that key from then on, and a chunk of such
pushes by any client that may push there becomes one `Handful`, without a command or a reply for each before they are
stored. The usual way is the plain twin: the same bytes stored, the same replies. A new configuration ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

from pepperbus.gateway import replies
from pepperbus.gateway.submission import STORED, Waiter
from pepperbus.storage.contract import Line, Lines, Push
from pepperbus.wire import plain_push

if TYPE_CHECKING:
    from pepperbus.gateway.routes import QueueRoute, Routes, Target
    from pepperbus.gateway.session import Session

_OVERHEAD = 200  # bytes a waiting push costs beside its value


class Express:
    """What all plain pushes to one key have in common. Its queue is a `simple` one."""

    __slots__ = ("head", "lane", "plain", "route", "routes", "target", "topics")

    def __init__(self, head: bytes, routes: Routes, target: Target, route: QueueRoute) -> None:
        self.head = head
        self.routes = routes  # good for as long as these are the front's
        self.target = target
        self.route = route
        self.plain = target.plain
        self.lane, self.topics = route.lanes[0]

    def take(self, session: Session, data: bytes) -> tuple[Handful | None, bytes]:
        """Bring in the plain pushes that `data` begins with, if any; and the bytes behind them."""
        values, rest = plain_push.take(data, self.head)
        return self.bring(session, values, len(data) - len(rest)) if values else None, rest

    def bring(self, session: Session, values: list[bytes], size: int) -> Handful:
        """Bring in one push for each of `values`, which came in `size` bytes."""
        handful = Handful(self, session, values, size)
        self.lane.join(handful)
        return handful


class Handful:
    """The plain pushes of one chunk of bytes: what waits for the storage, and the place of their replies.

    `first` is the number of the first push's trace; its job has the number behind it, the next push the two behind.
    """

    __slots__ = ("accepted_ms", "arrived", "express", "first", "jobs", "outcome", "reply", "session", "size", "values")

    def __init__(self, express: Express, session: Session, values: list[bytes], size: int) -> None:
        front = session.front
        self.express = express
        self.session = session
        self.values = values
        self.jobs = jobs = len(values)
        self.first = front.ids.take(2 * jobs)
        self.arrived = front.turn
        self.accepted_ms = front.turn_ms
        self.size = size + _OVERHEAD * jobs
        self.reply: bytes | None = None
        self.outcome = STORED

    @property
    def answer(self) -> Handful:
        return self

    @property
    def waiter(self) -> Waiter:
        return self.session.waiter

    @property
    def routes(self) -> Sequence[tuple[QueueRoute, int]]:
        return ((self.express.route, self.jobs),)

    def report(self, outcome: int, text: str = "") -> bool:
        """The storage's outcome, as `Submission.report`."""
        if self.reply is not None:
            return False
        self.outcome = outcome
        self.reply = self._success() if outcome == STORED else self._failure(outcome, text)
        return True

    def _success(self) -> bytes:
        if self.express.plain:
            return b":1\r\n" * self.jobs
        form, first = self.session.one_job, self.first
        if self.jobs == 1:
            return form % (first + 1, first)
        return b"".join([form % (number + 1, number) for number in range(first, first + 2 * self.jobs, 2)])

    def _failure(self, outcome: int, text: str) -> bytes:
        if self.express.plain:
            return replies.plain_failure(outcome, text) * self.jobs
        tail = self.session.trace_tail
        traces = [b"%d%b" % (number, tail) for number in range(self.first, self.first + 2 * self.jobs, 2)]
        return b"".join([replies.json_failure(trace)(outcome, text) for trace in traces])

    @property
    def pushes(self) -> list[Push]:
        """What is stored, as the usual way would put it."""
        bodies = self.session.stamp.forms(self.first, self.values, self.accepted_ms)
        topics = self.express.topics
        return [Push(n, body, topics) for n, body in zip(count(self.first + 1, 2), bodies, strict=False)]


def columns(handfuls: Sequence[Handful]) -> Lines:
    """All pushes of `handfuls`, a line for each queue."""
    lines: dict[tuple[str, ...], Line] = {}
    express = None
    for one in handfuls:
        if one.express is not express:
            express = one.express
            line = lines.get(express.topics)
            if line is None:
                line = lines[express.topics] = Line(express.topics, [], [])
            ids, bodies = line.ids, line.bodies
        first = one.first + 1
        ids += range(first, first + 2 * one.jobs, 2)
        bodies += one.session.stamp.forms(one.first, one.values, one.accepted_ms)
    return Lines(list(lines.values()))
