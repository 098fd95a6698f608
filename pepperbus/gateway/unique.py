"""`unique`: a push whose job is there already is answered with that job's id and stores nothing.

Knows routes, sessions' pushes and the rules; queues without the option never come here. Each group of topics with the same
rule in one storage decides by itself, in one step with the push.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pepperbus.config.sameness import Rule
from pepperbus.gateway.commit import Lane
from pepperbus.gateway.once import OnceShare, Phrase, UniqueSubmission
from pepperbus.gateway.route import QueueRoute
from pepperbus.gateway.submission import Waiter
from pepperbus.job import Job
from pepperbus.storage.contract import Once, Push


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
