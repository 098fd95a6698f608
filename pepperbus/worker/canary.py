"""A share of a topic's jobs tried at a second consumer first; what it does not do goes to the first one, in the same attempt.

Floor 4. To the pump it is the topic's consumer; a topic without `canary` has none of this in its way. The second one has no
say about the target: whatever it answers, only the first can close it. When it cannot be reached it is left alone for a while.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import gevent

from pepperbus.config.model import Config, Topic
from pepperbus.delivery import make_consumer
from pepperbus.delivery.contract import Act, Answer, Consumer, Request, Transport, Verdict
from pepperbus.delivery.slots import Slots
from pepperbus.delivery.verdict import judge
from pepperbus.journal.contract import Row
from pepperbus.names import topic_name
from pepperbus.stats import Record
from pepperbus.worker.attempt import Parts

#: After an exchange that did not come to an answer the second consumer rests so long (s), twice as long each time in a row.
_REST_S = (1.0, 60.0)


class Canary:
    """The two consumers of one topic as one; a `Consumer`."""

    def __init__(
        self, topic: Topic, first: Consumer, second: Consumer, places: Slots | None, record: Record, parts: Parts
    ) -> None:
        """`places`: of the second one's pool, where it is another than the first one's. `record`: counts of the second."""
        assert topic.canary is not None
        self.address = first.address
        self.dedicated = first.dedicated and second.dedicated
        self.second = second
        self.share = topic.canary.share
        self.topic = topic.second()
        self.record, self.parts = record, parts
        self._first = first
        self._places = places
        self._cuts = 0  # exchanges in a row that came to no answer
        self._rests_until = 0.0  # monotonic s
        self._waiting: dict[_Trial, gevent.Greenlet] = {}
        self._closed = False

    def pack(self, request: Request) -> object:
        return self._first.pack(request)

    def start(self, request: Request, done: Callable[[Answer], None], packed: object = None) -> None:
        place = -1
        tried = random.random() < self.share and time.monotonic() >= self._rests_until
        if tried and self._places is not None:
            taken = self._places.take()
            place, tried = (taken, True) if taken is not None else (-1, False)
        if tried:
            _Trial(self, request, done, packed, place).begin()
        else:
            self._first.start(request, done, packed)

    def call(self, request: Request) -> Answer:
        return self._first.call(request)

    def reachable(self) -> bool:
        return self._first.reachable()

    def close(self) -> None:
        self._closed = True
        self.second.close()
        for trial, waiting in list(self._waiting.items()):
            waiting.kill()
            trial.done(_last_word())
        self._waiting.clear()
        self._first.close()

    # -- what a trial hands back -----------------------------------------------------------------------------------

    def give(self, place: int, after_s: float) -> None:
        """Its place is free; after a timeout the script may still run in it for so long."""
        if place < 0 or self._places is None:
            return
        if after_s > 0:
            gevent.spawn_later(after_s, self._places.give, place)
        else:
            self._places.give(place)

    def heard(self, answer: Answer) -> None:
        """Whether the second one can be spoken to."""
        if answer.transport is Transport.ANSWERED:
            self._cuts = 0
            return
        self._cuts += 1
        self._rests_until = time.monotonic() + min(_REST_S[1], _REST_S[0] * 2 ** min(self._cuts - 1, 10))

    def fall_back(self, trial: _Trial, after_s: float) -> None:
        """The first consumer's turn; after a timeout not beside a script that may still run."""
        if self._closed:
            trial.done(_last_word())
        elif after_s > 0:
            self._waiting[trial] = gevent.spawn_later(after_s, self._go_back, trial)
        else:
            self._go_back(trial)

    def _go_back(self, trial: _Trial) -> None:
        self._waiting.pop(trial, None)
        try:
            self._first.start(trial.request, trial.done, trial.packed)
        except Exception as error:  # a bug of ours; the exchange has begun long ago, so nobody else ends it
            self.parts.log.error("start_failed", repr(error), topic=self.topic.full_name)
            gevent.get_hub().loop.run_callback(trial.done, Answer(Transport.CUT, detail=repr(error)))


def _last_word() -> Answer:
    return Answer(Transport.CUT, detail="the bus ends; the second consumer may have run it")


class _Trial:
    """One request at the second consumer."""

    __slots__ = ("_at_ms", "_began", "_canary", "_place", "done", "packed", "request")

    def __init__(
        self, canary: Canary, request: Request, done: Callable[[Answer], None], packed: object, place: int
    ) -> None:
        self._canary = canary
        self._place = place
        self.request, self.done, self.packed = request, done, packed
        self._at_ms = canary.parts.clock.now_ms()
        self._began = time.monotonic()

    def begin(self) -> None:
        try:
            self._canary.second.start(self.request, self._ended)
        except Exception as error:  # a bug of ours: nothing was sent as far as we know, and the first one can have it
            self._canary.parts.log.error("canary_failed", repr(error), topic=self._canary.topic.full_name)
            self._canary.give(self._place, 0.0)
            self._canary.fall_back(self, 0.0)

    def _ended(self, answer: Answer) -> None:
        canary = self._canary
        canary.heard(answer)
        is_done, wait_s = False, canary.topic.zombie_grace
        try:
            verdict = judge(answer, self.request, canary.topic, dedicated=canary.dedicated)
            is_done, wait_s = verdict.act is Act.DONE, wait_s if verdict.zombie else 0.0
            canary.record.observe("run", time.monotonic() - self._began)
            canary.record.add("done" if is_done else "failed")
            self._remember(answer, verdict, is_done)
        except Exception as error:  # a bug of ours must not keep the job leased and its place taken for ever
            canary.parts.log.error("canary_failed", repr(error), topic=canary.topic.full_name)
        canary.give(self._place, 0.0 if is_done else wait_s)
        if is_done:
            self.done(answer)
        else:
            canary.fall_back(self, wait_s)

    def _remember(self, answer: Answer, verdict: Verdict, is_done: bool) -> None:
        """A row in the job's life; the attempt gets its own, whoever did it."""
        parts = self._canary.parts
        for one in self.request.jobs:
            parts.journal.add(
                Row(
                    "canary",
                    one.job.id,
                    topic_name(self.request.queue, self.request.topic),
                    self._at_ms,
                    one.attempt,
                    parts.node,
                    parts.process,
                    "served" if is_done else "fell back",
                    verdict.code,
                    verdict.error_code,
                    f"{self._canary.second.address}: {verdict.reason or 'done'}",
                    self.request.trace,
                    one.job.trace,
                    one.job.client,
                    one.job.accepted_ms,
                    0.0,
                    (time.monotonic() - self._began) * 1000,
                    answer.body,
                    answer.stderr,
                ),
                False,
            )


def beside(
    first: Consumer,
    topic: Topic,
    config: Config,
    places: Callable[[str], Slots],
    record: Callable[[str], Record],
    parts: Parts,
) -> Consumer:
    """`first` with the topic's second consumer beside it. `places` of a pool, `record` of a name: where these are kept."""
    second = topic.second()
    theirs = places(second.pool) if second.pool and second.pool != topic.pool else None
    mine = record(counted_as(topic.full_name))
    return Canary(topic, first, make_consumer(second, config), theirs, mine, parts)


def counted_as(topic: str) -> str:
    """The name under which the counts of a topic's second consumer lie; no topic can have it."""
    return f"{topic} canary"
