"""The group commit over storages that hang, break or change their mind: every push is answered once, and no answer is a lie."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gevent
import pytest
from gevent.event import Event

from pepperbus.clock import SystemClock
from pepperbus.config.model import Queue, StorageConfig, Topic
from pepperbus.config.secret import Secret
from pepperbus.errors import StorageUnknown
from pepperbus.gateway import commit
from pepperbus.gateway.commit import Lane
from pepperbus.gateway.process import Process
from pepperbus.gateway.reads import _Pop
from pepperbus.gateway.route import QueueRoute
from pepperbus.gateway.submission import FULL, UNAVAILABLE, UNKNOWN, Submission
from pepperbus.ids import IdGenerator
from pepperbus.job import Job
from pepperbus.log import Log
from pepperbus.stats import Writer
from pepperbus.storage.contract import Push
from pepperbus.storage.memory import MemoryStorage

NAME = "orders/mail"


class Client:
    """Whoever waits for answers; raises when told to."""

    def __init__(self, breaks: bool = False) -> None:
        self.told = 0
        self._breaks = breaks

    def answers_ready(self) -> None:
        self.told += 1
        if self._breaks:
            raise OSError("a bug of ours")


class Stage:
    def __init__(self, where: Path, max_length: int = 0) -> None:
        self.config = StorageConfig("local", "memory", store_timeout=60)
        self.storage = MemoryStorage(self.config, SystemClock())
        self.log = where / "log"
        self.lane = Lane(self.storage, self.config, SystemClock(), Log("gateway.0", str(self.log)), lambda: None)
        self.lane.keep_open(lambda storage: None)
        topic = Topic("orders", "mail", storage="local", run="fastcgi", max_length=max_length)
        queue = Queue("orders", password=Secret("pw"), storage="local", durability="memory", topics={"mail": topic})
        self.route = QueueRoute(queue, {"local": self.lane}, Writer(where, "gateway.0"), -1)
        self.ids = IdGenerator(2, 0, SystemClock().now_ms)

    def push(self, jobs: int = 1, size: int = 10, client: Client | None = None) -> Submission:
        def failure(outcome: int, text: str) -> bytes:
            return b"%d" % outcome

        submission = Submission(((self.route, jobs),), client or Client(), b"stored", failure, time.monotonic(), size)
        self.lane.add(submission, [Push(self.ids.next(), b"x", (NAME,)) for _ in range(jobs)])
        return submission

    def wait(self, *submissions: Submission) -> list[bytes | None]:
        until = time.monotonic() + 20
        while any(one.reply is None for one in submissions):
            assert time.monotonic() < until, "never answered"
            gevent.sleep(0.005)
        return [one.reply for one in submissions]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def broken(*_: Any) -> Any:
    raise KeyError("a bug of an engine")


def test_a_look_that_breaks_does_not_leave_the_push_unanswered(tmp_path: Path) -> None:
    stage = Stage(tmp_path, max_length=10)
    stage.storage.depth = broken  # type: ignore[method-assign]
    assert stage.wait(stage.push(3)) == [b"stored"]


def test_one_clients_trouble_does_not_keep_the_others_from_their_answers(stage: Stage) -> None:
    other = Client()
    stage.wait(stage.push(client=Client(breaks=True)), stage.push(client=other))
    assert other.told == 1


def test_what_waits_behind_writes_that_hang_is_bounded_and_what_is_refused_is_never_stored(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "BACKLOG", 1000)
    go = Event()
    whole: Callable[..., Any] = stage.storage.push

    def push(*args: Any) -> Any:
        go.wait()
        return whole(*args)

    stage.storage.push = push  # type: ignore[method-assign]
    flying = []
    for _ in range(stage.lane._most_flights):
        flying.append(stage.push())
        gevent.sleep(0.01)
    waiting = [stage.push(size=400) for _ in range(5)]
    gevent.sleep(0.05)
    assert [one.reply for one in waiting] == [None, None, *[b"%d" % UNAVAILABLE] * 3]
    go.set()
    assert set(stage.wait(*flying, *waiting[:2])) == {b"stored"}
    assert stage.storage.depth(NAME).ready == len(flying) + 2


def test_full_after_no_answer_is_not_definite(tmp_path: Path) -> None:
    """The first send may have been stored, and its job taken and done, before the second found the topic full."""
    stage = Stage(tmp_path, max_length=1)
    whole: Callable[..., Any] = stage.storage.push
    answers = iter([StorageUnknown("cut"), [0]])

    def push(*args: Any) -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            whole(*args)
            raise answer
        return answer

    stage.storage.push = push  # type: ignore[method-assign]
    assert stage.wait(stage.push()) == [b"%d" % UNKNOWN]
    stage.storage.push = whole  # type: ignore[method-assign]
    assert stage.wait(stage.push()) == [b"%d" % FULL]


def make_pop(stage: Stage) -> _Pop:
    """An RPOP of the topic, without its client."""

    clock = SystemClock()
    ids = IdGenerator(1, 0, clock.now_ms)
    log = Log("gateway.0", str(stage.log))

    class Front:
        process = Process("gateway.0", "node", "node/gateway.0/boot", clock, ids, log, None)  # type: ignore[arg-type]

        class routes:
            lanes: ClassVar[dict[str, Lane]] = {}

            @staticmethod
            def lane(*_: Any) -> Lane:
                return stage.lane

        class handout:
            places: ClassVar[dict[str, Any]] = {}

    class Session:
        front, process = Front, Front.process
        protocol = 2

    class Target:
        queue, topic, route = "orders", "mail", stage.route

    return _Pop(Session, Target)  # type: ignore[arg-type]


def test_a_damaged_job_is_kept_when_somebody_pops_it(stage: Stage) -> None:
    stage.wait(stage.push())
    pop = make_pop(stage)
    assert b"damaged" in pop.run()
    pop.after(True)
    assert stage.storage.depth(NAME).dead == 1


def test_a_popped_job_whose_client_is_gone_waits_again_as_if_never_taken(stage: Stage) -> None:
    body = Job(stage.ids.next(), "trace", b"content").encode()
    stage.storage.push([Push(stage.ids.next(), body, (NAME,))])
    pop = make_pop(stage)
    assert b"content" in pop.run()
    assert stage.storage.depth(NAME)[:3] == (0, 0, 1)
    pop.after(False)
    assert stage.storage.depth(NAME)[:3] == (1, 0, 0)
    assert stage.storage.lease(NAME, 1, "node/w/boot")[0].attempt == 1


def test_an_engine_of_another_package_has_a_lane_too(tmp_path: Path) -> None:
    config = StorageConfig("local", "brought along")
    lane = Lane(MemoryStorage(config, SystemClock()), config, SystemClock(), Log("gateway.0"), lambda: None)
    lane.close()
