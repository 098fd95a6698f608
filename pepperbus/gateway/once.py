"""What waits for a storage when a job may be there already: who holds each of its jobs, and the reply that names them.

Knows the storage contract's `push_once` and the shapes of `submission`; who has to wait so is `unique`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from pepperbus.gateway.submission import FULL, STORED, UNKNOWN, Destination, Share, Submission, Waiter
from pepperbus.storage.contract import Once, Push

#: Makes the reply of a success from what maps each job's id to the one that holds.
Phrase = Callable[[Callable[[int], int]], bytes]


class OnceShare(Share):
    """One storage's part of a submission: what is stored only once, and `pushes` for topics without a rule."""

    __slots__ = ("once",)

    answer: UniqueSubmission

    def __init__(self, submission: UniqueSubmission, pushes: list[Push], once: list[Once]) -> None:
        super().__init__(submission, pushes)
        self.once = once
        self.jobs = len(pushes) + len(once)

    def heard(self, held: Sequence[int], refused: Collection[int]) -> int:
        """The storage's answers: who holds each of `once`, and which of `pushes` had no room. How this part ended."""
        for one, holder in zip(self.once, held, strict=True):
            self.answer.heard(one.push.job_id, holder)
        for index, push in enumerate(self.pushes):
            if index not in refused:
                self.answer.heard(push.job_id, push.job_id)
        missing = len(refused) + sum(not holder for holder in held)
        stored = len(self.pushes) - len(refused)
        stored += sum(holder == one.push.job_id for one, holder in zip(self.once, held, strict=True))
        return STORED if not missing else UNKNOWN if stored else FULL


class UniqueSubmission(Submission):
    """A submission whose reply is phrased when it is known which ids hold."""

    __slots__ = ("_mine", "_others", "_phrase")

    def __init__(
        self,
        routes: Sequence[tuple[Destination, int]],
        waiter: Waiter,
        phrase: Phrase,
        failure: Callable[[int, str], bytes],
        arrived: float,
        size: int,
    ) -> None:
        super().__init__(routes, waiter, b"", failure, arrived, size)
        self._phrase = phrase
        self._mine: set[int] = set()
        self._others: dict[int, int] = {}

    def heard(self, job_id: int, holder: int) -> None:
        """What became of one job in some topics; stored anywhere, it is a job of its own."""
        if holder == job_id:
            self._mine.add(job_id)
        elif holder:
            self._others[job_id] = holder

    def report(self, outcome: int, text: str = "") -> bool:
        answered = super().report(outcome, text)
        if answered and self.outcome == STORED:
            self.reply = self._phrase(
                lambda job_id: job_id if job_id in self._mine else self._others.get(job_id, job_id)
            )
            if len(self.routes) == 1:  # what was not stored is not counted
                self.routes = [(self.routes[0][0], len(self._mine))]
        return answered
