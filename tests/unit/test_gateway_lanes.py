"""A queue whose topics lie in two storages: one push, one answer, and it is true of both. And a write that is sent twice."""

import time
from pathlib import Path

import gevent
import pytest

from pepperbus.clock import SystemClock
from pepperbus.config.model import Queue, StorageConfig, Topic
from pepperbus.config.secret import Secret
from pepperbus.gateway.commit import Lane
from pepperbus.gateway.pushes import _submit
from pepperbus.gateway.route import QueueRoute
from pepperbus.gateway.submission import UNAVAILABLE, UNKNOWN, Submission
from pepperbus.ids import IdGenerator
from pepperbus.log import Log
from pepperbus.stats import Writer
from pepperbus.storage.contract import Push
from pepperbus.storage.memory import MemoryStorage
from tests.contract.flaky import FlakyStorage, lose_answer, lose_question, refuse


class Two:
    """The queue `orders` with `mail` in storage `a` and `audit` in storage `b`."""

    def __init__(self, where: Path) -> None:
        self.told = 0
        self.storages, lanes = {}, {}
        for name in "ab":
            config = StorageConfig(name, "memory", store_timeout=60)
            self.storages[name] = FlakyStorage(MemoryStorage(config, SystemClock()))
            log = Log("gateway.0", str(where / "log"))
            lanes[name] = Lane(self.storages[name], config, SystemClock(), log, lambda: None)
            lanes[name].keep_open(lambda storage: None)
        topics = {"mail": Topic("orders", "mail", storage="a", run="fastcgi")}
        topics["audit"] = Topic("orders", "audit", storage="b", run="fastcgi")
        queue = Queue("orders", password=Secret("pw"), storage="a", durability="memory", topics=topics)
        self.route = QueueRoute(queue, lanes, Writer(where, "gateway.0"), -1)
        self.ids = IdGenerator(2, 0, SystemClock().now_ms)

    def answers_ready(self) -> None:
        self.told += 1

    def push(self) -> bytes | None:
        """The answer to a push of two values: `stored`, or the number of its failure."""

        def failure(outcome: int, text: str) -> bytes:
            return b"%d" % outcome

        one = Submission(((self.route, 2),), self, b"stored", failure, time.monotonic(), 10)
        _submit(one, [(self.route, [Push(self.ids.next(), b"x", ()) for _ in range(2)])])
        until = time.monotonic() + 20
        while one.reply is None:
            assert time.monotonic() < until, "never answered"
            gevent.sleep(0.005)
        return one.reply

    def ready(self) -> tuple[int, int]:
        return self.storages["a"].depth("orders/mail").ready, self.storages["b"].depth("orders/audit").ready


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


def test_stored_means_in_both(two: Two) -> None:
    assert two.push() == b"stored"
    assert two.ready() == (2, 2)
    assert two.told == 1


@pytest.mark.parametrize("down", ["a", "b"])
def test_in_one_of_two_is_unknown(two: Two, down: str) -> None:
    two.storages[down].fail_all("push", refuse)
    assert two.push() == b"%d" % UNKNOWN
    assert sorted(two.ready()) == [0, 2]
    two.storages[down].fail_all("push", None)
    assert two.push() == b"stored"


def test_in_none_is_definite(two: Two) -> None:
    for storage in two.storages.values():
        storage.fail_all("push", refuse)
    assert two.push() == b"%d" % UNAVAILABLE
    assert two.ready() == (0, 0)


def test_refused_here_and_without_answer_there_is_unknown(two: Two) -> None:
    two.storages["a"].fail_all("push", refuse)
    two.storages["b"].fail_all("push", lose_question)
    assert two.push() == b"%d" % UNKNOWN


@pytest.mark.parametrize("fault", [lose_question, lose_answer])
def test_a_write_without_answer_is_sent_once_more_with_the_same_ids(two: Two, fault: object) -> None:
    two.storages["a"].fail("push", 1, fault)  # type: ignore[arg-type]
    assert two.push() == b"stored"
    assert two.storages["a"].calls["push"] == 2
    assert two.ready() == (2, 2)


def test_a_refused_second_send_does_not_make_the_first_definite(two: Two) -> None:
    for storage in two.storages.values():
        storage.fail("push", 1, lose_answer)
        storage.fail("push", 2, refuse)
    assert two.push() == b"%d" % UNKNOWN
    assert two.ready() == (2, 2)
