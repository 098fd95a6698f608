"""What waits for a storage: the pushes behind one reply, and how they ended. Knows no socket, login or RESP word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pepperbus.storage.contract import Push

#: How a write ended, the worse the higher. Plain numbers: an Enum's members cost a microsecond a push.
STORED, FULL, UNAVAILABLE, UNKNOWN = range(4)


class Waiter(Protocol):
    """Whoever holds submissions and wants to know that some are answered."""

    def answers_ready(self) -> None: ...


class Destination(Protocol):
    """A queue that is pushed to, as far as its pushes' waiting and ending concern it."""

    limits: dict[str, int]  # topic -> how many jobs may lie there

    def count_stored(self, jobs: int, seconds: float) -> None: ...
    def count_failed(self, jobs: int, *, unknown: bool) -> None: ...
    def wake(self) -> None: ...


class Submission:
    """The pushes behind one reply: an LPUSH, or everything between MULTI and EXEC.

    `reply` is None until the outcome is known. `success` is the reply then; `failure` phrases the others from a text.
    """

    __slots__ = ("arrived", "failure", "lacking", "outcome", "reply", "routes", "size", "stored", "success", "waiter")

    def __init__(
        self,
        routes: Sequence[tuple[Destination, int]],
        waiter: Waiter,
        success: bytes,
        failure: Callable[[int, str], bytes],
        arrived: float,
        size: int,
    ) -> None:
        self.routes = routes  # each queue concerned and its number of jobs
        self.waiter = waiter
        self.success = success
        self.failure = failure
        self.arrived = arrived
        self.size = size
        self.reply: bytes | None = None
        self.lacking = 1  # storages that have not reported
        self.stored = False
        self.outcome = STORED

    def report(self, outcome: int, text: str = "") -> bool:
        """One storage's outcome. True when that answers the submission (now, not before)."""
        if self.reply is not None:
            return False
        self.lacking -= 1
        if outcome == STORED:
            self.stored = True
        if outcome > self.outcome:
            self.outcome = outcome
        if self.lacking:
            return False
        if self.outcome == STORED:
            self.reply = self.success
        elif self.stored or self.outcome == UNKNOWN:
            self.outcome = UNKNOWN
            self.reply = self.failure(UNKNOWN, text or "only some of the queue's storages have it; it may run")
        else:
            self.reply = self.failure(self.outcome, text)
        return True


class Share:
    """One storage's part of a submission."""

    __slots__ = ("answer", "jobs", "pushes", "size")

    def __init__(self, submission: Submission, pushes: list[Push]) -> None:
        self.answer = submission
        self.pushes = pushes
        self.jobs = len(pushes)
        self.size = submission.size
