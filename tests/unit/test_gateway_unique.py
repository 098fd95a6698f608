"""`unique` in the group commit, over a storage that loses answers or is full: the reply names who holds, and is no lie."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pepperbus.config.joboptions import unique
from pepperbus.config.model import Queue, Topic
from pepperbus.config.secret import Secret
from pepperbus.config.values import seconds
from pepperbus.gateway import unique as once
from pepperbus.gateway.route import QueueRoute
from pepperbus.gateway.submission import FULL, UNAVAILABLE, Submission
from pepperbus.job import Job
from pepperbus.stats import Writer, read_all
from pepperbus.storage.contract import Push
from tests.contract.flaky import FlakyStorage, lose_answer, lose_question, refuse
from tests.unit.test_gateway_commit import Client, Stage

NAMES = ("orders/mail", "orders/log")


class Uniquely(Stage):
    """A queue whose topic `mail` has the rule, and `log` as well when `both`."""

    def __init__(self, where: Path, both: bool = True, max_length: int = 0) -> None:
        super().__init__(where)
        self.where = where
        self.flaky = FlakyStorage(self.storage)
        self.lane.storage = self.flaky  # type: ignore[assignment]
        rule = unique("order.id", seconds)
        topic = Topic("orders", "mail", storage="local", run="fastcgi", max_length=max_length, unique=rule)
        log = replace(topic, name="log", unique=rule if both else None)
        queue = Queue(
            "orders",
            password=Secret("pw"),
            storage="local",
            durability="memory",
            topics={"mail": topic, "log": log},
        )
        self.route = QueueRoute(queue, {"local": self.lane}, Writer(where, "gateway.1"), -1)

    def order(self, *numbers: int) -> tuple[list[int], Submission]:
        """The ids the jobs would have, and what waits for its answer: the ids that hold, or how it ended."""
        jobs = []
        for number in numbers:
            job_id = self.ids.next()
            body = Job(job_id, "t", json.dumps({"order": {"id": number}}).encode()).encode()
            jobs.append(Push(job_id, body, NAMES))
        ids = [job.job_id for job in jobs]
        phrase = lambda holder: b" ".join(b"%d" % holder(one) for one in ids)  # noqa: E731
        failure = lambda outcome, text: b"failed %d" % outcome  # noqa: E731
        return ids, once.submit(Client(), [(self.route, jobs)], phrase, failure, time.monotonic(), 100)

    def answer(self, *numbers: int) -> tuple[list[int], bytes | None]:
        ids, submission = self.order(*numbers)
        return ids, self.wait(submission)[0]

    def depth(self) -> tuple[int, int]:
        return self.storage.depth(NAMES[0]).ready, self.storage.depth(NAMES[1]).ready


def said(*ids: int) -> bytes:
    return b" ".join(b"%d" % one for one in ids)


def test_pushes_that_go_in_one_write_meet_each_other(tmp_path: Path) -> None:
    stage = Uniquely(tmp_path)
    (one, two), first = stage.order(1, 2)
    (_, three), second = stage.order(1, 3)
    assert stage.wait(first, second) == [said(one, two), said(one, three)]
    assert stage.depth() == (3, 3)
    assert read_all(tmp_path, ("orders",))["orders"]["pushed"] == 3, "what was not stored is not counted"


@pytest.mark.parametrize("fault", [lose_answer, lose_question])
def test_a_write_without_an_answer_is_sent_again_with_the_same_ids(tmp_path: Path, fault) -> None:
    stage = Uniquely(tmp_path)
    stage.flaky.fail("push_once", 1, fault)
    (one,), reply = stage.answer(1)
    assert reply == said(one)
    assert stage.depth() == (1, 1)


def test_a_storage_that_is_away_is_said(tmp_path: Path) -> None:
    stage = Uniquely(tmp_path)
    stage.flaky.fail("push_once", 1, refuse)
    assert stage.answer(1)[1] == b"failed %d" % UNAVAILABLE
    assert stage.depth() == (0, 0)
    assert stage.answer(1)[1] != b"failed %d" % UNAVAILABLE


def test_a_full_topic_is_said(tmp_path: Path) -> None:
    stage = Uniquely(tmp_path, max_length=2)
    (one, two), reply = stage.answer(1, 2)
    assert reply == said(one, two)
    assert stage.answer(1)[1] == said(one), "a job that is there needs no room"
    assert stage.answer(3)[1] == b"failed %d" % FULL
    assert stage.answer(1, 4)[1] == b"failed %d" % FULL, "nothing new was stored"


def test_a_topic_without_the_rule_gets_every_job(tmp_path: Path) -> None:
    stage = Uniquely(tmp_path, both=False)
    (one,), first = stage.answer(1)
    (two,), second = stage.answer(1)
    assert (first, second) == (said(one), said(two))
    assert stage.depth() == (1, 2)
