"""The first share of a replay at a topic's second consumer: straight from here, while the jobs stay where they lie.

Floor 4. A job that it did leaves the storage as done; any other has not moved, and the rest of the replay takes it. A ticker
that dies meanwhile may have had it run: then it counts as failed, and runs again with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gevent.pool import Pool

from pepperbus.config.model import Config, Topic
from pepperbus.delivery import make_consumer
from pepperbus.delivery.contract import Act, Answer, Delivered, Request, Transport, Verdict
from pepperbus.delivery.verdict import judge
from pepperbus.errors import UsageError
from pepperbus.job import Job
from pepperbus.journal.contract import JournalWriter, Row
from pepperbus.replay.model import Fate, Item, Phase, Replay
from pepperbus.storage.contract import Storage

_AT_ONCE = 4


class Second:
    """The way to a topic's second consumer. Raises UsageError when the topic has none (any more)."""

    def __init__(self, config: Config, name: str, journal: JournalWriter, now_ms: Callable[[], int]) -> None:
        topic = config.topic(name)
        if topic is None or topic.canary is None:
            raise UsageError(f"{name} has no second consumer any more: give it a canary, or cancel the replay")
        self._topic: Topic = topic.second()
        self._consumer = make_consumer(self._topic, config)
        self._node = config.bus.node
        self._journal = journal
        self._now_ms = now_ms
        self._places = min(_AT_ONCE, topic.concurrency)

    def run(self, replay: Replay, storage: Storage, items: Sequence[Item]) -> None:
        """Send them all, a few at once; their phases and fates say what came of it."""
        Pool(self._places).map(lambda item: self._one(replay, storage, item), items)
        self._journal.flush()

    def close(self) -> None:
        self._consumer.close()

    def _one(self, replay: Replay, storage: Storage, item: Item) -> None:
        item.phase, item.fate = Phase.BACK, Fate.FAILED
        found = storage.find(item.job_id, [replay.topic])
        if not found:
            item.phase, item.fate = Phase.GONE, Fate.OPEN
            return
        job, attempt = Job.decode(found[0].body), found[0].attempts + 1
        at_ms = self._now_ms()
        trace = f"{item.job_id}-{self._node}/replay.{replay.id}"
        jobs = (Delivered(job, attempt, at_ms),)
        request = Request(
            self._topic.queue, self._topic.name, trace, jobs, deadline_s=self._topic.timeout, now_ms=at_ms
        )
        try:
            answer = self._consumer.call(request)
        except Exception as error:  # a bug of ours must not end the replay
            answer = Answer(Transport.CUT, detail=repr(error))
        verdict = judge(answer, request, self._topic, dedicated=self._consumer.dedicated)
        if verdict.act is Act.DONE:
            storage.remove(replay.topic, [item.job_id])
            item.phase, item.fate = Phase.MOVED, Fate.SUCCEEDED
        self._tell(replay, request, answer, verdict)

    def _tell(self, replay: Replay, request: Request, answer: Answer, verdict: Verdict) -> None:
        ((job, attempt, at_ms),) = request.jobs
        is_done = verdict.act is Act.DONE
        row = Row(
            "attempt" if is_done else "canary", job.id, replay.topic, at_ms, attempt, self._node, "ticker",
            "done" if is_done else "fell back", verdict.code, verdict.error_code,
            f"replay {replay.id}, {self._consumer.address}: {verdict.reason or 'done'}",
            request.trace, job.trace, job.client, job.accepted_ms, 0.0, answer.total_ms, answer.body, answer.stderr,
            job.content,
        )  # fmt: skip
        self._journal.add(row)
