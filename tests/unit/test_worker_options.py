"""`rate`, `halt`, `quiet` and `order_by` with a memory storage and a consumer that answers when the test says so."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest

from pepperbus.clock import ManualClock
from pepperbus.config import joboptions as options
from pepperbus.config.values import seconds
from pepperbus.delivery.contract import Answer, Transport
from pepperbus.delivery.paced import paced_target
from pepperbus.delivery.slots import CLOSED_UNTIL
from pepperbus.delivery.target import Closed
from pepperbus.job import Job, State
from pepperbus.storage.contract import Outcome, Push, Settle
from pepperbus.worker import ordered
from pepperbus.worker.inflight import InFlight
from pepperbus.worker.lane import Lane
from pepperbus.worker.ordered import OrderedPump
from pepperbus.worker.pump import Pump
from tests.unit.test_worker_pump import NAME, OWNER, Consumer, Stage

FAILED = 500


class Optioned(Stage):
    """The pump as the worker would make it for such a topic."""

    def __init__(self, where: Path, **words: Any) -> None:
        super().__init__(where, **words)
        self.where = where
        self.pump = self.another(OWNER, self.lane, self.consumer)

    def another(self, owner: str, lane: Lane, consumer: Consumer) -> Any:
        target = paced_target(self.topic, self.slots, self.slots)
        of = (self.topic, lane, target, consumer, self.record, owner, self.parts)
        return OrderedPump(*of, lock=self.where / "order") if self.topic.order_by else Pump(*of)

    def order(self, *numbers: int) -> None:
        """One job for each, with the number as its key."""
        for number in numbers:
            self.push(content=json.dumps({"uid": number}).encode())

    def running(self, consumer: Consumer | None = None) -> list[int]:
        """The keys of what was begun and is not answered."""
        waiting = (consumer or self.consumer).waiting
        return [json.loads(request.jobs[0].job.content)["uid"] for request, _ in waiting]

    def answer(self, status: int = 200, index: int = 0) -> int:
        request, done = self.consumer.waiting.pop(index)
        done(Answer(Transport.ANSWERED, status))
        return request.jobs[0].job.id


@pytest.fixture
def made(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Optioned]:
    def make(**words: Any) -> Optioned:
        stage = Optioned(tmp_path, contract="status", ping=False, **words)
        request.addfinalizer(stage.pump.drain)
        return stage

    return make


# -- rate --------------------------------------------------------------------------------------------------------------


def test_a_rate_holds_over_two_workers(made: Callable[..., Optioned]) -> None:
    stage = made(rate=options.rate("20/s"), concurrency=50)
    stage.push(60)
    began = time.monotonic()
    stage.wait(lambda: len(stage.consumer.waiting) >= 10, 20)
    took = time.monotonic() - began
    assert took > 0.3, "ten jobs at 20 a second, two of them at once"
    other = paced_target(stage.topic, stage.slots, stage.slots)
    stage.slots.words[13] = time.monotonic_ns() + 3_600_000_000_000  # the word all workers of the node share
    assert other.closed() is Closed.BUSY
    assert other.probe_in() > 3000
    count = len(stage.consumer.waiting)
    stage.wait(lambda: stage.pump._ahead.held)  # there is something to start, and a place for it
    stage.pump.turn()
    assert len(stage.consumer.waiting) == count


def test_topics_without_these_options_have_none_of_it(made: Callable[..., Optioned]) -> None:
    stage = made()
    assert type(stage.pump.target).__name__ == "Target"
    assert type(stage.pump) is Pump


# -- halt --------------------------------------------------------------------------------------------------------------


def test_a_bad_deploy_halts_the_topic_and_burns_no_more_attempts(made: Callable[..., Optioned]) -> None:
    stage = made(halt=options.halt("50% of 8, probe 1h", seconds), concurrency=1)
    stage.push(30)
    for status in (200, 200, FAILED, FAILED, FAILED, FAILED):
        stage.wait(lambda: stage.consumer.waiting)
        stage.answer(status)
    stage.wait(lambda: stage.storage.depth(NAME).delayed == 4 and stage.storage.depth(NAME).leased == 0)
    assert stage.pump.target.closed() is Closed.HALTED
    assert stage.pump.target.why == "halted: 4 of the last 8 attempts failed, the last with: HTTP status 500"
    spent = sorted(job.attempts for job in stage.storage.peek(NAME, State.DELAYED).jobs)
    assert spent[0] == 0, "the failure that halts it costs nothing any more"
    assert sum(spent) <= 3
    assert stage.consumer.waiting == []

    stage.pump.target.trial = True  # as the worker's probe does each hour
    stage.pump.turn()
    stage.wait(lambda: stage.consumer.waiting)
    stage.answer(FAILED)
    stage.wait(lambda: stage.storage.depth(NAME).delayed == 5)
    assert sum(job.attempts for job in stage.storage.peek(NAME, State.DELAYED).jobs) == sum(spent)
    assert stage.slots.words[CLOSED_UNTIL] > time.monotonic_ns() + 3_000_000_000_000
    assert stage.consumer.waiting == []

    stage.pump.target.trial = True
    stage.pump.turn()
    stage.wait(lambda: stage.consumer.waiting)
    stage.answer()
    stage.wait(lambda: stage.consumer.waiting)
    assert stage.pump.target.closed() is Closed.OPEN
    stage.answer(FAILED)  # one failure is one failure again
    stage.wait(lambda: stage.consumer.waiting)


# -- quiet -------------------------------------------------------------------------------------------------------------


def test_quiet_hours_are_those_of_their_zone() -> None:
    clock = ManualClock(1_767_225_600_000)  # 2026-01-01T00:00Z
    night = options.quiet("23:00-07:00 Asia/Shanghai")
    lunch = options.quiet("11:30-12:00, 23:30-24:00 UTC")
    assert night is not None
    assert lunch is not None
    assert not night.now(clock.now_ms())  # 08:00 there
    clock.advance(15 * 3600)
    assert night.now(clock.now_ms())  # 23:00
    clock.advance(8 * 3600 - 1)
    assert night.now(clock.now_ms())  # 06:59:59
    assert not night.now(clock.now_ms() + 1000)
    day = 1_767_225_600_000
    assert [hour for hour in range(48) if lunch.now(day + hour * 1_800_000)] == [23, 47]


# -- order -------------------------------------------------------------------------------------------------------------


def test_jobs_of_one_key_run_one_after_the_other_and_others_flow(made: Callable[..., Optioned]) -> None:
    stage = made(order_by="uid", concurrency=3)
    stage.order(1, 1, 1, 2, 3, 1, 2)
    stage.wait(lambda: sorted(stage.running()) == [1, 2, 3], 20)
    first = stage.answer(index=stage.running().index(1))
    stage.wait(lambda: sorted(stage.running()) == [1, 2, 3])
    assert stage.answer(index=stage.running().index(1)) > first
    stage.answer(index=stage.running().index(3))
    stage.wait(lambda: sorted(stage.running()) == [1, 2])
    stage.answer(index=stage.running().index(2))
    stage.wait(lambda: sorted(stage.running()) == [1, 2])
    while stage.consumer.waiting or sum(stage.storage.depth(NAME)[:3]):
        if stage.consumer.waiting:
            stage.answer()
        gevent.sleep(0.005)
    stage.order(5)
    stage.push(content=b"no JSON")
    stage.push(content=b"no JSON")  # without that field nobody waits for another
    stage.wait(lambda: len(stage.consumer.waiting) == 3)


def test_a_failed_job_holds_its_line_until_it_is_done(made: Callable[..., Optioned]) -> None:
    stage = made(order_by="uid", concurrency=2)
    stage.order(1, 1, 2)
    stage.wait(lambda: sorted(stage.running()) == [1, 2], 20)
    failed = stage.answer(FAILED, index=stage.running().index(1))
    stage.wait(lambda: stage.storage.depth(NAME).delayed == 1)
    stage.answer()
    stage.order(3)  # behind the one that waits: when it runs, that one was looked at and left
    stage.wait(lambda: 3 in stage.running())
    assert stage.running() == [3]
    stage.answer()
    stage.storage.replay(NAME, [failed])  # its time has come
    stage.pump.pushed()
    stage.wait(stage.running)
    assert stage.consumer.waiting[0][0].jobs[0].job.id == failed
    stage.answer(400)  # dead at once: it holds nobody any more
    stage.wait(stage.running)
    assert stage.storage.depth(NAME).dead == 1


def test_the_next_leader_keeps_the_order(made: Callable[..., Optioned]) -> None:
    """The old one dies with a job running, others held, and one between attempts."""
    stage = made(order_by="uid", concurrency=2)
    stage.order(1, 1, 1, 2, 2)
    stage.wait(lambda: sorted(stage.running()) == [1, 2], 20)
    failed = stage.answer(FAILED, index=stage.running().index(2))
    stage.wait(lambda: stage.storage.depth(NAME).delayed == 1)
    running = stage.consumer.waiting[0][0].jobs[0].job.id
    stage.wait(lambda: stage.storage.depth(NAME).leased >= 3)

    log, inflight = stage.parts.log, InFlight(stage.where, "node/worker.1/boot")
    consumer, late = Consumer(), []
    lane = Lane(stage.storage, "node/worker.1/boot", inflight, log, lambda: None)
    other = stage.another("node/worker.1/boot", lane, consumer)
    assert not other._claim(), "one at a time"
    assert not other.leads
    stage.pump._leader.kill()  # the process is gone: the kernel frees its lock, its leases are taken back a moment later
    if stage.pump._leaser is not None:
        stage.pump._leaser.kill()
    stage.pump._lock.give(0)
    stage.pump._lock.cool()
    stage.pump._lock.close()
    stage.wait(lambda: other.leads, 20)
    assert stage.running(consumer) == []
    stage.storage.release(OWNER, [(NAME, running)])
    other.pushed()

    def look() -> bool:
        for request, done in consumer.waiting:
            late.append(request.jobs[0].job.id)
            done(Answer(Transport.ANSWERED, 200))
        consumer.waiting.clear()
        return len(late) >= 3

    stage.wait(look, 20)
    assert late == sorted(late)
    assert late[0] == running
    stage.wait(lambda: stage.storage.depth(NAME)[:3] == (0, 1, 1))  # the other line waits for its failed job
    stage.storage.replay(NAME, [failed])
    other.pushed()
    stage.wait(lambda: look() and len(late) == 5, 20)
    assert late[3] == failed
    other.drain()


def test_a_new_leader_finds_who_belongs_before_the_others(tmp_path: Path) -> None:
    """The first of a line failed and became due: behind the others in the storage, and nobody is left who knows."""
    stage = Optioned(tmp_path, contract="status", ping=False, concurrency=2)
    stage.pump.drain()
    stage.order(7, 7, 7, 8)
    (first,) = stage.storage.lease(NAME, 1, "gone/w/1")
    stage.storage.settle("gone/w/1", [Settle(NAME, first.job_id, Outcome.RETRY, 1)])
    assert stage.storage.promote(NAME, stage.clock.now_ms())[0] == 1
    line = [job.job_id for job in stage.storage.peek(NAME, State.READY).jobs]
    assert line[-1] == first.job_id
    stage.topic = replace(stage.topic, order_by="uid")
    lane = Lane(stage.storage, OWNER, InFlight(tmp_path, OWNER), stage.parts.log, lambda: None)
    stage.pump = stage.another(OWNER, lane, stage.consumer)
    ran: list[int] = []

    def all_ran() -> bool:
        while stage.consumer.waiting:
            ran.append(stage.answer())
        return len(ran) == 4

    stage.wait(all_ran, 20)
    sevens = [job_id for job_id in ran if job_id in line[:2] or job_id == first.job_id]
    assert sevens == sorted(sevens)
    stage.pump.drain()


def test_a_new_leader_holds_a_line_for_a_job_that_was_put_off_without_an_attempt(tmp_path: Path) -> None:
    """`Retry-After`, a halt, a full consumer: nothing was spent, and yet it had its turn. One pushed for later had none yet."""
    stage = Optioned(tmp_path, contract="status", ping=False, concurrency=4)
    stage.pump.drain()
    later = stage.clock.now_ms() + 3_600_000
    stage.order(7, 7, 7, 8)
    (first,) = stage.storage.lease(NAME, 1, "gone/w/1")
    stage.storage.settle("gone/w/1", [Settle(NAME, first.job_id, Outcome.RETRY, later, spent=False)])
    number = stage.ids.next()
    body = Job(number, "t", json.dumps({"uid": 9}).encode(), stage.clock.now_ms()).encode()
    stage.storage.push([Push(number, body, (NAME,), due_ms=later)])
    stage.order(9)
    stage.topic = replace(stage.topic, order_by="uid")
    lane = Lane(stage.storage, OWNER, InFlight(tmp_path, OWNER), stage.parts.log, lambda: None)
    stage.pump = stage.another(OWNER, lane, stage.consumer)
    stage.wait(lambda: stage.storage.depth(NAME)[:3] == (0, 2, 4) and {8, 9} <= set(stage.running()))
    assert sorted(stage.running()) == [8, 9]
    stage.pump.drain()


class Skewed:
    """The clocks of another node."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s, self.later_s = ahead_s, 0.0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + int(self.ahead_s * 1000)

    def monotonic(self) -> float:
        return time.monotonic() + self.later_s


@pytest.mark.parametrize("ahead_s", [-3600.0, 40.0, 3600.0])
def test_a_node_whose_clock_is_wrong_takes_no_lead_from_who_has_it(
    made: Callable[..., Optioned], tmp_path: Path, ahead_s: float
) -> None:
    stage = made(order_by="uid")
    stage.wait(lambda: stage.pump.leads)
    clock = Skewed(ahead_s)
    stage.where = tmp_path / "other"
    stage.where.mkdir()
    stage.parts = replace(stage.parts, node="other", clock=clock)
    inflight = InFlight(stage.where, "other/worker.0/b")
    lane = Lane(stage.storage, "other/worker.0/b", inflight, stage.parts.log, lambda: None)
    other = stage.another("other/worker.0/b", lane, Consumer())
    other._leader.kill()  # asked by hand
    assert not other._claim()
    clock.later_s = 29.0
    stage.pump._renewed = float("-inf")  # and the leader renews its lead
    assert stage.pump._claim()
    assert not other._claim(), "renewed since it was seen first"
    clock.later_s = 50.0
    assert not other._claim()
    clock.later_s = 60.0
    assert other._claim(), "nobody has renewed it for 30 s"
    stage.pump._renewed = float("-inf")
    assert not stage.pump._claim()
    assert not stage.pump.leads
    other.drain()


def test_damaged_jobs_do_not_keep_a_topic_from_being_led(tmp_path: Path) -> None:
    stage = Optioned(tmp_path, contract="status", ping=False)
    stage.pump.drain()
    stage.storage.push([Push(stage.ids.next(), b"no job", (NAME,))])
    stage.order(1)
    stage.topic = replace(stage.topic, order_by="uid")
    lane = Lane(stage.storage, OWNER, InFlight(tmp_path, OWNER), stage.parts.log, lambda: None)
    stage.pump = stage.another(OWNER, lane, stage.consumer)
    stage.wait(lambda: stage.running() == [1])
    stage.answer()
    stage.wait(lambda: stage.storage.depth(NAME)[:4] == (0, 0, 0, 1))
    stage.pump.drain()


def test_a_job_that_was_removed_by_hand_holds_nobody(made: Callable[..., Optioned]) -> None:
    stage = made(order_by="uid", concurrency=1)
    stage.order(1, 1)
    stage.wait(stage.running, 20)
    failed = stage.answer(FAILED)
    stage.wait(lambda: stage.storage.depth(NAME).delayed == 1)
    assert stage.storage.remove(NAME, [failed]) == 1
    stage.wait(stage.running, 20)


def test_a_failed_job_is_found_behind_more_than_is_held(
    made: Callable[..., Optioned], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Due again, it joins the end of the line, and all that may be held is before it."""
    monkeypatch.setattr(ordered, "_MOST_PARKED", 20)
    stage = made(order_by="uid", concurrency=1)
    stage.order(*[1] * 60)
    stage.wait(stage.running, 20)
    failed = stage.answer(FAILED)
    stage.wait(lambda: stage.storage.depth(NAME).delayed == 1 and stage.pump._lines.parked >= 20, 20)
    stage.storage.replay(NAME, [failed])  # its time has come
    stage.pump.pushed()
    stage.wait(stage.running, 20)
    ran: list[int] = []

    def all_ran() -> bool:
        stage.storage.promote(NAME, stage.clock.now_ms() + 4_000_000)  # nobody needs to wait for them here
        stage.pump.pushed()
        while stage.consumer.waiting:
            ran.append(stage.answer())
        return len(ran) == 60

    stage.wait(all_ran, 30)
    assert ran == sorted(ran)
    assert ran[0] == failed


def test_whoever_waits_for_a_removed_job_is_looked_after_in_its_turn(
    made: Callable[..., Optioned], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "_LOOKED_FOR", 1)
    stage = made(order_by="uid", concurrency=2)
    stage.order(1, 2, 1, 2)
    stage.wait(lambda: sorted(stage.running()) == [1, 2], 20)
    failed = [stage.answer(FAILED), stage.answer(FAILED)]
    stage.wait(lambda: stage.storage.depth(NAME).delayed == 2)
    stage.wait(lambda: len(stage.pump._lines.awaited) == 2)
    last = stage.pump._lines.awaited[-1]
    assert last in failed
    assert stage.storage.remove(NAME, [last]) == 1
    stage.wait(stage.running, 20)


def test_what_is_given_back_keeps_its_place(made: Callable[..., Optioned]) -> None:
    stage = made(concurrency=8)
    stage.pump.target.pool.words[0] = 0
    stage.lane.healthy = False
    stage.push(5)
    line = [job.job_id for job in stage.storage.peek(NAME, State.READY).jobs]
    leased = stage.storage.lease(NAME, 4, OWNER)
    stage.lane.healthy = True
    stage.pump._give_back(leased)
    stage.wait(lambda: stage.storage.depth(NAME).ready == 5 or stage.consumer.waiting)
    seen = [request.jobs[0].job.id for request, _ in stage.consumer.waiting]
    seen += [job.job_id for job in stage.storage.peek(NAME, State.READY).jobs]
    assert sorted(seen) == sorted(line)
    assert seen == line
