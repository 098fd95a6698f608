"""`unique`: a push whose job is there already is answered with that job's id and stores nothing.

Knows routes, sessions' pushes and the storage contract's `push_once`; queues without the option never come here. Each group of
topics with the same rule in one storage decides by itself, in one step with the push.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from pepperbus.config.sameness import Rule
from pepperbus.gateway.submission import FULL, STORED, UNKNOWN, Share, Submission, Waiter
from pepperbus.job import Job
from pepperbus.storage.contract import Once, Push

if TYPE_CHECKING:
    from pepperbus.gateway.commit import Lane
    from pepperbus.gateway.routes import QueueRoute

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
        routes: Sequence[tuple[QueueRoute, int]],
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


def submit(
    waiter: Waiter,
    pushes: Sequence[tuple[QueueRoute, list[Push]]],
    phrase: Phrase,
    failure: Callable[[int, str], bytes],
    arrived: float,
    size: int,
) -> UniqueSubmission:
    """Give each storage its share of pushes to queues some of which have a rule."""
    submission = UniqueSubmission(
        [(route, len(jobs)) for route, jobs in pushes], waiter, phrase, failure, arrived, size
    )
    lanes: dict[int, Lane] = {}
    parts: dict[int, tuple[list[Push], list[Once]]] = {}
    for route, jobs in pushes:
        for index, (lane, topics) in enumerate(route.lanes):
            lanes[id(lane)] = lane
            plain, once = parts.setdefault(id(lane), ([], []))
            _divide(route.unique[index] if route.unique else (), topics, jobs, plain, once)
    submission.lacking = len(lanes)
    for number, (plain, once) in parts.items():
        lanes[number].join(OnceShare(submission, plain, once))
    return submission


def _divide(
    known: Sequence[Rule], topics: tuple[str, ...], jobs: Sequence[Push], plain: list[Push], once: list[Once]
) -> None:
    for job in jobs:
        content = Job.decode(job.body).content if known else b""
        free = topics
        for rule in known:
            if name := rule.name(content):
                once.append(Once(job._replace(topics=rule.topics), name, rule.ttl_ms, rule.alive))
                free = tuple(topic for topic in free if topic not in rule.topics)
        if free:
            plain.append(job._replace(topics=free))
