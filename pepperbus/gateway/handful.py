"""What plain pushes wait as: the values of one chunk of bytes, made jobs only when the storage takes them.

Knows who pushed and where to by what it needs of them; `express` makes these, `flight` stores them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Protocol

from pepperbus.gateway import replies
from pepperbus.gateway.process import Process
from pepperbus.gateway.submission import STORED, Destination, Waiter
from pepperbus.job import Stamp
from pepperbus.storage.contract import Line, Lines, Push

_OVERHEAD = 200  # bytes a waiting push costs beside its value


class Pusher(Protocol):
    """Whose pushes they are: a `Session`."""

    process: Process
    waiter: Waiter
    stamp: Stamp
    one_job: bytes
    trace_tail: bytes


class Way(Protocol):
    """Where they go: an `Express`."""

    plain: bool
    topics: tuple[str, ...]

    @property
    def route(self) -> Destination: ...


class Handful:
    """The plain pushes of one chunk of bytes: what waits for the storage, and the place of their replies.

    `first` is the number of the first push's trace; its job has the number behind it, the next push the two behind.
    """

    __slots__ = ("accepted_ms", "arrived", "first", "jobs", "outcome", "pusher", "reply", "size", "values", "way")

    def __init__(self, way: Way, pusher: Pusher, values: list[bytes], size: int) -> None:
        process = pusher.process
        self.way = way
        self.pusher = pusher
        self.values = values
        self.jobs = jobs = len(values)
        self.first = process.ids.take(2 * jobs)
        self.arrived = process.turn
        self.accepted_ms = process.turn_ms
        self.size = size + _OVERHEAD * jobs
        self.reply: bytes | None = None
        self.outcome = STORED

    @property
    def answer(self) -> Handful:
        return self

    @property
    def waiter(self) -> Waiter:
        return self.pusher.waiter

    @property
    def routes(self) -> Sequence[tuple[Destination, int]]:
        return ((self.way.route, self.jobs),)

    def report(self, outcome: int, text: str = "") -> bool:
        """The storage's outcome, as `Submission.report`."""
        if self.reply is not None:
            return False
        self.outcome = outcome
        self.reply = self._success() if outcome == STORED else self._failure(outcome, text)
        return True

    def _success(self) -> bytes:
        if self.way.plain:
            return b":1\r\n" * self.jobs
        form, first = self.pusher.one_job, self.first
        if self.jobs == 1:
            return form % (first + 1, first)
        return b"".join([form % (number + 1, number) for number in range(first, first + 2 * self.jobs, 2)])

    def _failure(self, outcome: int, text: str) -> bytes:
        if self.way.plain:
            return replies.plain_failure(outcome, text) * self.jobs
        tail = self.pusher.trace_tail
        traces = [b"%d%b" % (number, tail) for number in range(self.first, self.first + 2 * self.jobs, 2)]
        return b"".join([replies.json_failure(trace)(outcome, text) for trace in traces])

    @property
    def pushes(self) -> list[Push]:
        """What is stored, as the usual way would put it."""
        bodies = self.pusher.stamp.forms(self.first, self.values, self.accepted_ms)
        topics = self.way.topics
        return [Push(n, body, topics) for n, body in zip(count(self.first + 1, 2), bodies, strict=False)]


def columns(handfuls: Sequence[Handful]) -> Lines:
    """All pushes of `handfuls`, a line for each queue."""
    lines: dict[tuple[str, ...], Line] = {}
    way = None
    for one in handfuls:
        if one.way is not way:
            way = one.way
            line = lines.get(way.topics)
            if line is None:
                line = lines[way.topics] = Line(way.topics, [], [])
            ids, bodies = line.ids, line.bodies
        first = one.first + 1
        ids += range(first, first + 2 * one.jobs, 2)
        bodies += one.pusher.stamp.forms(one.first, one.values, one.accepted_ms)
    return Lines(list(lines.values()))
