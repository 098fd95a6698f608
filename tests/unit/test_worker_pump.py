"""The pump and the lane with a memory storage and consumers, storages and judges that break: nothing stays leased or taken."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import pytest

from pepperbus.clock import SystemClock
from pepperbus.config.backoff import Backoff
from pepperbus.config.model import StorageConfig, Topic
from pepperbus.delivery.contract import Answer, Delivered, Request, Transport
from pepperbus.delivery.slots import CLOSED_KIND, CLOSED_UNTIL, Slots
from pepperbus.delivery.target import Closed, Target
from pepperbus.errors import StorageUnavailable
from pepperbus.ids import IdGenerator
from pepperbus.job import Job
from pepperbus.journal.contract import Row
from pepperbus.journal.log import LogWriter, files, read
from pepperbus.log import Log
from pepperbus.stats import Writer
from pepperbus.storage.contract import Leased, Push
from pepperbus.storage.memory import MemoryStorage
from pepperbus.worker import exchange as exchange_module
from pepperbus.worker import lane as lane_module
from pepperbus.worker.ahead import Ahead
from pepperbus.worker.attempt import Parts
from pepperbus.worker.attendance import Attendance
from pepperbus.worker.exchange import Exchange
from pepperbus.worker.inflight import InFlight, started
from pepperbus.worker.lane import Lane
from pepperbus.worker.pump import Pump

NAME = "orders/mail"
OWNER = "node/worker.0/boot"
LATER = Backoff("fixed", (3600.0,), False)  # nothing comes due while a test looks at what waits


class Consumer:
    """Answers when the test says so; `fail` is raised by the next `start`."""

    address = "test"
    dedicated = True

    def __init__(self) -> None:
        self.fail: Exception | None = None
        self.waiting: list[tuple[Request, Callable[[Answer], None]]] = []

    def pack(self, request: Request) -> object:
        return None

    def start(self, request: Request, done: Callable[[Answer], None], packed: object = None) -> None:
        if self.fail:
            raised, self.fail = self.fail, None
            raise raised
        self.waiting.append((request, done))

    def call(self, request: Request) -> Answer:
        raise NotImplementedError

    def reachable(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def answer_all(self) -> None:
        waiting, self.waiting = self.waiting, []
        for _, done in waiting:
            done(Answer(Transport.ANSWERED, 200))


class Stage:
    def __init__(self, where: Path, **words: Any) -> None:
        self.where = where
        self.clock = SystemClock()
        self.storage = MemoryStorage(StorageConfig("local", "memory"), self.clock)
        self.storage.open()
        log = Log("worker.0", str(where / "log"))
        inflight = InFlight(where, OWNER)
        self.lane = Lane(self.storage, OWNER, inflight, log, lambda: self.pump.turn())
        self.topic = replace(
            Topic("orders", "mail", storage="local", run="http", contract="status", concurrency=2, backoff=LATER),
            **words,
        )
        self.slots = Slots(where / "topic", self.topic.concurrency)
        self.consumer = Consumer()
        self.ids = IdGenerator(2, 0, self.clock.now_ms)
        parts = self.parts = Parts(
            "node", "node/worker.0", self.clock, self.ids, inflight, LogWriter(where, "w", 0), log
        )
        self.stats = Writer(where / "stats", "worker.0")
        self.record = self.stats.record(NAME)
        self.pump = Pump(
            self.topic, self.lane, Target(self.slots, self.slots, False), self.consumer, self.record, OWNER, parts
        )

    def push(self, jobs: int = 1, content: bytes = b"x") -> None:
        now_ms = self.clock.now_ms()
        for _ in range(jobs):
            number = self.ids.next()
            self.storage.push([Push(number, Job(number, "t", content, now_ms).encode(), (NAME,))])
        self.pump.pushed()

    def wait(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, self.storage.depth(NAME)
            gevent.sleep(0.005)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_a_job_is_delivered_and_settled(stage: Stage) -> None:
    stage.push()
    stage.wait(lambda: stage.consumer.waiting)
    stage.consumer.answer_all()
    stage.wait(lambda: stage.storage.depth(NAME) == (0, 0, 0, 0, 0))
    assert stage.slots.used == 0


def test_an_idle_topic_keeps_no_greenlet(stage: Stage) -> None:
    for _ in range(2):
        stage.push(3)
        stage.wait(lambda: len(stage.consumer.waiting) == 2)
        assert stage.pump._leaser is not None, "what is busy keeps it"
        stage.consumer.answer_all()
        stage.wait(lambda: len(stage.consumer.waiting) == 1)
        stage.consumer.answer_all()
        stage.wait(lambda: stage.storage.depth(NAME) == (0, 0, 0, 0, 0) and stage.pump._leaser is None)


class Asked(Consumer):
    """Answers a ping when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = gevent.event.Event()
        self.asked = self.most = self.at_once = 0

    def call(self, request: Request) -> Answer:
        self.asked += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.let.wait()
        gevent.sleep(0)
        self.at_once -= 1
        return Answer(Transport.ANSWERED, 200, {"code": "200"}, f"{request.queue}/{request.topic}".encode())


def test_many_topics_ask_their_php_fpm_a_few_at_a_time(stage: Stage, tmp_path: Path) -> None:
    attendance, consumer, pumps = Attendance(stage.parts.log, stage.clock), Asked(), []
    for i in range(20):
        topic = replace(stage.topic, name=f"t{i}", contract="sdk")
        target = Target(stage.slots, Slots(tmp_path / topic.name, 1), True)
        pumps.append(Pump(topic, stage.lane, target, consumer, stage.stats.record(topic.name), OWNER, stage.parts))
    for _ in range(3):
        for pump in pumps:
            attendance.look(pump)
        gevent.sleep(0)
    assert consumer.asked == stage.slots.n == 2
    consumer.let.set()
    stage.wait(lambda: all(pump.target.closed() is Closed.OPEN for pump in pumps))
    assert (consumer.asked, consumer.most) == (20, 2)


def test_a_consumer_that_raises_costs_an_attempt_and_no_place(stage: Stage) -> None:
    stage.consumer.fail = RuntimeError("a bug of ours")
    stage.push()
    stage.wait(lambda: stage.storage.depth(NAME).delayed == 1)
    assert stage.slots.used == 0
    assert stage.pump.under_way == 0
    stage.push()
    stage.wait(lambda: stage.consumer.waiting)


def test_a_judge_that_raises_costs_an_attempt_and_no_place(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("a bug of ours")

    stage.push()
    stage.wait(lambda: stage.consumer.waiting)
    with monkeypatch.context() as patch:
        patch.setattr(exchange_module, "judge", broken)
        stage.consumer.answer_all()
    stage.wait(lambda: stage.storage.depth(NAME).delayed == 1)
    assert stage.slots.used == 0
    assert stage.pump.under_way == 0


def test_a_record_that_cannot_be_written_does_not_keep_the_job(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise UnicodeEncodeError("utf-8", "x", 0, 1, "a bug of ours")

    monkeypatch.setattr(exchange_module, "attempt_row", broken)
    stage.push(2)
    stage.wait(lambda: len(stage.consumer.waiting) == 2)
    stage.consumer.answer_all()
    stage.wait(lambda: stage.storage.depth(NAME) == (0, 0, 0, 0, 0))
    assert stage.slots.used == 0


def test_a_storage_that_raises_anything_does_not_end_the_loops(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def once(what: str) -> None:
        whole = getattr(stage.storage, what)

        def broken(*args: Any) -> Any:
            if what not in calls:
                calls.append(what)
                raise KeyError("a bug of an engine")
            return whole(*args)

        monkeypatch.setattr(stage.storage, what, broken)

    once("lease")
    once("settle")
    stage.push()
    stage.wait(lambda: stage.consumer.waiting)
    stage.consumer.answer_all()
    stage.wait(lambda: stage.storage.depth(NAME) == (0, 0, 0, 0, 0))
    assert calls == ["lease", "settle"]


def test_a_target_that_another_process_found_busy_is_tried_again_soon(stage: Stage) -> None:
    """The words are shared: no exchange of ours ends, so nothing of ours would ever look again."""
    stage.slots.words[CLOSED_UNTIL] = time.monotonic_ns() + 50_000_000
    stage.slots.words[CLOSED_KIND] = Closed.BUSY
    stage.push()
    stage.wait(lambda: stage.consumer.waiting)


def test_large_jobs_are_not_leased_ahead_by_the_dozen(tmp_path: Path) -> None:
    stage = Stage(tmp_path, concurrency=20)
    stage.push(1, b"x" * (4 << 20))
    stage.wait(lambda: stage.consumer.waiting)
    stage.consumer.answer_all()
    stage.lane.paused.add(NAME)
    stage.push(30, b"x" * (4 << 20))
    most = 0
    whole = stage.storage.lease

    def lease(topic: str, n: int, owner: str) -> Any:
        nonlocal most
        leased = whole(topic, n, owner)
        most = max(most, sum(len(one.body) for one in leased))
        return leased

    stage.storage.lease = lease  # type: ignore[method-assign]
    stage.lane.paused.clear()
    stage.pump.pushed()
    stage.wait(lambda: len(stage.consumer.waiting) == 20)
    assert 0 < most <= 17 << 20


def test_who_is_told_and_raises_does_not_make_a_settled_job_count_twice(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = stage.lane._inflight.free

    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(stage.lane, "_on_open", broken)
    stage.lane.healthy = False
    stage.push()
    stage.lane.healthy = True
    stage.pump.pushed()
    stage.wait(lambda: stage.consumer.waiting)
    stage.lane.healthy = False  # so that the next good settle opens the lane and tells
    stage.consumer.answer_all()
    stage.wait(lambda: stage.lane.healthy)
    stage.push()
    stage.wait(lambda: stage.consumer.waiting)
    stage.consumer.answer_all()
    stage.wait(lambda: stage.storage.depth(NAME) == (0, 0, 0, 0, 0))
    stage.wait(lambda: stage.lane.flush(0.01))
    assert stage.lane._unsettled == 0
    assert stage.lane._inflight.free == free


def _answer_until(stage: Stage, done: Callable[[], Any]) -> None:
    def look() -> bool:
        stage.consumer.answer_all()
        return bool(done())

    stage.wait(look)


@pytest.mark.parametrize("broken", [False, True])
def test_jobs_are_leased_along_with_the_outcomes_of_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    whole, along = stage.storage.settle_and_lease, []

    def counted(*args: Any) -> Any:
        if broken:
            along.append(0)
            raise KeyError("a bug of an engine")
        count, leased = whole(*args)
        along.append(len(leased or ()))
        return count, leased

    monkeypatch.setattr(stage.storage, "settle_and_lease", counted)
    stage.push(400)
    _answer_until(stage, lambda: stage.storage.depth(NAME) == (0, 0, 0, 0, 0))
    assert along
    assert bool(sum(along)) is not broken
    assert stage.slots.used == 0


def test_nobody_else_leases_while_jobs_are_leased_along(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of one owner take turns in some engines, and who asks again and again leaves the outcomes waiting."""
    lease, together = stage.storage.lease, stage.storage.settle_and_lease
    going, go_on = gevent.event.Event(), gevent.event.Event()
    beside: list[str] = []

    def alone(*args: Any) -> Any:
        if going.is_set() and not go_on.is_set():
            beside.append("leased")
        return lease(*args)

    def held_up(*args: Any) -> Any:
        if not going.is_set():
            going.set()
            assert go_on.wait(20)
        count, _ = together(*args[:-1], 0)
        return count, lease(*args[2:], args[0])

    monkeypatch.setattr(stage.storage, "lease", alone)
    monkeypatch.setattr(stage.storage, "settle_and_lease", held_up)
    stage.push(200)
    _answer_until(stage, going.is_set)
    while stage.pump.busy:  # all that is held: nothing is left to begin, and more is pushed
        stage.consumer.answer_all()
    stage.push(3)
    gevent.sleep(0.05)
    assert not beside
    go_on.set()
    _answer_until(stage, lambda: stage.storage.depth(NAME) == (0, 0, 0, 0, 0))


def test_who_has_nothing_left_to_begin_does_not_wait_for_a_batch(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "_GATHER", 10_000)
    stage.lane._gathering = gevent.get_hub().loop.timer(3600.0)  # type: ignore[assignment]  # until somebody asks
    stage.push(40)
    _answer_until(stage, lambda: 0 < stage.pump._ahead.held <= 2)
    stage.push()  # asked for along with the outcomes, which gather
    assert stage.pump._along
    _answer_until(stage, lambda: not stage.pump.busy and stage.storage.depth(NAME).ready == 0)


def test_an_outcome_that_an_engine_cannot_take_does_not_hold_up_the_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    culprit: list[int] = []
    for name in ("settle", "settle_and_lease"):
        whole = getattr(stage.storage, name)

        def broken(owner: str, batch: Any, *more: Any, whole: Any = whole) -> Any:
            if any(one.job_id in culprit for one in batch):
                raise TypeError("a bug of an engine")
            return whole(owner, batch, *more)

        monkeypatch.setattr(stage.storage, name, broken)
    stage.push(2)
    stage.wait(lambda: len(stage.consumer.waiting) == 2)
    culprit.append(stage.consumer.waiting[0][0].jobs[0].job.id)
    stage.consumer.answer_all()
    stage.wait(lambda: stage.storage.depth(NAME).leased == 1)
    stage.push()
    stage.wait(lambda: stage.consumer.waiting)
    stage.consumer.answer_all()
    stage.wait(lambda: stage.storage.depth(NAME) == (0, 0, 1, 0, 0))


@pytest.mark.parametrize("last", [TypeError, StorageUnavailable])
def test_what_could_not_be_settled_still_counts_as_begun(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, last: type[Exception]
) -> None:
    """Should the worker die then, whoever takes back its leases must know that the job ran."""
    monkeypatch.setattr(lane_module, "_RETRY_S", (0.01, 0.01))
    culprit: list[int] = []
    alone: list[int] = []
    for name in ("settle", "settle_and_lease"):
        whole = getattr(stage.storage, name)

        def broken(owner: str, batch: Any, *more: Any, whole: Any = whole) -> Any:
            if any(one.job_id in culprit for one in batch):
                raise (TypeError if len(batch) > 1 else last)("a bug of an engine")
            alone.extend(one.job_id for one in batch)
            return whole(owner, batch, *more)

        monkeypatch.setattr(stage.storage, name, broken)
    stage.push(2)
    stage.wait(lambda: len(stage.consumer.waiting) == 2)
    first, second = (request.jobs[0].job.id for request, _ in stage.consumer.waiting)
    culprit.append(first)
    stage.consumer.answer_all()
    stage.wait(lambda: second in alone and stage.lane._unsettled < 2)
    assert started(stage.where, OWNER) == frozenset({(NAME, first)})
    if last is StorageUnavailable:
        culprit.clear()
        stage.wait(lambda: stage.storage.depth(NAME).leased == 0 and not started(stage.where, OWNER))


def test_only_one_request_of_large_jobs_is_made_before_its_turn(stage: Stage) -> None:
    packed: list[int] = []

    def pack(request: Request) -> object:
        packed.append(len(request.jobs[0].job.content))
        return None

    stage.consumer.pack = pack  # type: ignore[method-assign]
    ahead = Ahead(stage.pump)
    job = Job(1 << 63, "t", b"x" * (1 << 20), 1)
    ahead.add([Leased(NAME, job.id + n, job.encode(), 1) for n in range(8)])
    for _ in range(8):
        ahead.prepare()
    assert len(packed) == 1
    ahead.next()
    ahead.prepare()
    assert len(packed) == 2
    assert len(ahead.take_all()) == ahead.held + 7


def test_the_journal_dates_an_attempt_when_it_began_not_when_its_request_was_made(stage: Stage) -> None:
    rows: list[Row] = []
    stage.pump.parts.journal.add = lambda row, soon=True: rows.append(row)  # type: ignore[method-assign]
    job = Job(stage.ids.next(), "t", b"x", stage.clock.now_ms() // 1000 * 1000)
    exchange = Exchange(stage.pump, [Leased(NAME, job.id, job.encode(), 1)], (Delivered(job, 1, 0),))
    made_ms = exchange.request.now_ms
    stage.wait(lambda: stage.clock.now_ms() > made_ms + 20)
    stage.pump.under_way += 1
    exchange.begin((stage.slots.take() or 0, -1))
    stage.consumer.answer_all()
    stage.wait(lambda: rows)
    assert rows[0].at_ms > made_ms + 20
    assert rows[0].wait_ms == rows[0].at_ms - job.accepted_ms


def test_what_is_answered_while_the_storage_is_away_is_in_the_journal_when_it_is_settled(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, whole, tries = [True], stage.storage.settle, []

    def settle(*args: Any) -> int:
        tries.append(1)
        if away[0]:
            raise StorageUnavailable("away")
        return whole(*args)

    monkeypatch.setattr(stage.storage, "settle", settle)
    stage.lane._before = stage.pump.parts.journal.flush
    stage.push(2)
    stage.wait(lambda: len(stage.consumer.waiting) == 2)
    (_, first), (_, second) = stage.consumer.waiting
    first(Answer(Transport.ANSWERED, 200))
    stage.wait(lambda: tries)
    second(Answer(Transport.ANSWERED, 200))
    away[0] = False
    stage.wait(lambda: stage.storage.depth(NAME) == (0, 0, 0, 0, 0))
    assert len([row for path in files(tmp_path) for row in read(path.read_bytes())]) == 2


def test_many_pushes_are_few_looks_for_due_jobs_and_none_is_missed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    promote = stage.storage.promote

    def counted(topic: str, now_ms: int, n: int = 1000) -> tuple[int, int]:
        looks.append(now_ms)
        return promote(topic, now_ms, n)

    monkeypatch.setattr(stage.storage, "promote", counted)
    stage.push()
    stage.wait(lambda: stage.consumer.waiting)
    began = time.monotonic()
    for _ in range(300):
        stage.pump.pushed()
        gevent.sleep(0)
    assert len(looks) <= 3 + (time.monotonic() - began) / 0.05, "one at once, and one a while after each"
    now_ms, number = stage.clock.now_ms(), stage.ids.next()
    body = Job(number, "t", b"later", now_ms).encode()
    stage.storage.push([Push(number, body, (NAME,), due_ms=now_ms + 100)])
    stage.pump.pushed()
    stage.wait(lambda: len(stage.consumer.waiting) == 2)
    assert stage.clock.now_ms() >= now_ms + 100


def test_as_many_jobs_are_asked_for_as_there_may_be(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    lease = stage.storage.lease

    def noted(topic: str, n: int, owner: str) -> list[Leased]:
        asked.append(n)
        return lease(topic, n, owner)

    monkeypatch.setattr(stage.storage, "lease", noted)
    stage.pump._run_s = 0.0001  # quick jobs: as much room as there ever is
    stage.push()
    stage.wait(lambda: stage.consumer.waiting)
    assert set(asked) == {4}
    asked.clear()
    stage.push(60)
    stage.wait(lambda: stage.storage.depth(NAME).ready == 0)
    assert asked[:4] == [4, 8, 16, 32], "more and more while they come"
