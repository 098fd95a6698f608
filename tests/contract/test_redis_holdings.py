"""What a process believes to hold against what Redis holds: a verdict, a claim or its repetition, stopped at one step each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from pepperbus.clock import SystemClock
from pepperbus.config.model import StorageConfig, Topic
from pepperbus.config.secret import Secret
from pepperbus.delivery.contract import TargetEffect
from pepperbus.delivery.target import Target
from pepperbus.errors import StorageError, StorageUnknown
from pepperbus.gateway.handout import Handout
from pepperbus.gateway.place import Place
from pepperbus.ids import IdGenerator
from pepperbus.job import Job, State
from pepperbus.log import Log
from pepperbus.stats import Writer
from pepperbus.storage import redis_claim, redis_copies, redis_settle
from pepperbus.storage.contract import Leased, Outcome, Push, Settle
from pepperbus.storage.redis import RedisStorage
from pepperbus.storage.redis_claim import Claims
from pepperbus.storage.redis_link import Link
from pepperbus.storage.redis_settle import Settlements
from pepperbus.storage.redis_wire import Connection
from pepperbus.worker.lane import Lane
from pepperbus.worker.pump import Pump
from tests.fixtures.redis import Redis
from tests.unit.test_worker_pump import OWNER, Stage

T = "orders/mail"
ME, OTHER = "n1/worker.0/a", "n1/worker.1/b"
new_id = IdGenerator(2, 1, SystemClock().now_ms).next
MODES = pytest.mark.parametrize("mode", ["redis", "pika"])


def push(content: bytes = b"x") -> Push:
    number = new_id()
    return Push(number, Job(number, "t", content).encode() if content == b"x" else content, (T,))


@contextmanager
def storage(redis: Redis, mode: str = "redis", timeout: float = 20.0) -> Iterator[RedisStorage]:
    url = redis.pika_url if mode == "pika" else redis.url
    made = RedisStorage(StorageConfig("main", "redis", Secret(url), mode, timeout))
    made.open()
    yield made
    made.close()


@pytest.fixture
def empty(redis_server: Redis) -> Iterator[Redis]:
    redis_server.ask("FLUSHALL")
    # Some wait for it for two seconds: no disk may be in between.
    redis_server.ask("CONFIG", "SET", "appendfsync", "no")
    yield redis_server
    redis_server.ask("CONFIG", "SET", "appendfsync", "always")


def doubts_for(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a claim in doubt waits for another's; for Redis itself it waits as long as ever."""
    won = redis_claim.won
    monkeypatch.setattr(redis_claim, "won", lambda *args: won(*args[:-1], seconds))


def cut(*_: Any, **__: Any) -> Any:
    raise StorageUnknown("cut")


def back(job: Leased) -> list[Settle]:
    return [Settle(T, job.job_id, Outcome.BACK, spent=False)]


@MODES
def test_a_giving_back_that_arrives_in_the_middle_of_its_repetition_gives_back_once(
    empty: Redis, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen Redis wakes: it reads the repetition's question first, then the first form of the order, then the second."""
    with storage(empty, mode) as one:
        one.push([push()])
        (job,) = one.lease(T, 1, ME)
        move, late = Link.move, []

        def lie_in_the_socket(self: Link, connection: Connection, *args: Any) -> None:
            connection.drop()
            late.append(args)
            cut()

        with monkeypatch.context() as frozen:
            frozen.setattr(Link, "move", lie_in_the_socket)
            with pytest.raises(StorageUnknown):
                one.settle(ME, back(job))

        def wake(self: Link, connection: Connection, *args: Any) -> list[Any]:
            while late:
                with self.pool.borrow() as first:
                    move(self, first, *late.pop())
            return move(self, connection, *args)

        monkeypatch.setattr(Link, "move", wake)
        one.settle(ME, back(job))
        assert len(one.lease(T, 5, ME) + one.lease(T, 5, OTHER)) == 1
        assert one.depth(T)[:4] == (0, 0, 1, 0)


def test_a_job_that_is_back_before_its_giving_back_has_its_answer_is_leased_all_the_same(
    empty: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is late on its way: meanwhile the same owner claims the job, which it may not run yet."""
    with storage(empty) as one:
        one.push([push()])
        (job,) = one.lease(T, 1, ME)
        decide, leased = Settlements._decide, []

        def and_lease(self: Settlements, *args: Any) -> int:
            count = decide(self, *args)
            leased.extend(one.lease(T, 5, ME))
            return count

        with monkeypatch.context() as slow:
            slow.setattr(Settlements, "_decide", and_lease)
            assert one.settle(ME, back(job)) == 1
        leased += one.lease(T, 5, ME)
        assert [one.job_id for one in leased] == [job.job_id]
        assert one.lease(T, 5, ME) == []


@MODES
def test_what_was_leased_through_an_earlier_connection_is_not_leased_again(
    empty: Redis, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload changed the storage's settings: the gateway has it open anew, its clients still have their jobs."""
    with storage(empty, mode) as before, storage(empty, mode) as after:
        before.push([push(b"%d" % i) for i in range(4)])
        first, second = before.lease(T, 2, ME)
        with monkeypatch.context() as lossy:
            lossy.setattr(Connection, "exchange", cut)
            with pytest.raises(StorageError):
                after.lease(T, 5, ME)
        assert [job.body for job in after.lease(T, 5, ME)] == [b"2", b"3"]
        assert after.settle(ME, [Settle(T, first.job_id, Outcome.DONE), *back(second)]) == 2
        assert [job.body for job in after.lease(T, 5, ME)] == [b"1"]


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.DEAD, Outcome.BACK])
def test_a_job_that_is_done_elsewhere_while_it_is_judged_leaves_nothing_behind(
    empty: Redis, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledged through another gateway in the moment in which its lease ended."""
    with storage(empty) as one, storage(empty) as other:
        one.push([push()])
        (job,) = one.lease(T, 1, ME)
        move = Link.move

        def after_the_other(self: Link, *args: Any) -> list[Any]:
            with monkeypatch.context() as plain:
                plain.setattr(Link, "move", move)
                other.settle(OTHER, [Settle(T, job.job_id, Outcome.DONE)])
            return move(self, *args)

        monkeypatch.setattr(Link, "move", after_the_other)
        one.settle(ME, [Settle(T, job.job_id, outcome, due_ms=1 << 42, reason="late")])
        assert one.depth(T)[:4] == (0, 0, 0, 0)
        assert one.peek(T, State.DEAD).jobs == []
        assert empty.ask("KEYS", "pb:{*") == [b"pb:{orders/mail}:owners"]


@MODES
def test_what_a_claim_without_an_answer_moved_is_found_however_late_the_next_one_comes(
    empty: Redis, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the consumer was down, or the topic paused: for longer than a claim is doubted."""
    monkeypatch.setattr(redis_claim, "SUSPECT_S", 0.0)
    with storage(empty, mode) as one:
        batch = [push(), push(), push()]
        one.push(batch)
        with monkeypatch.context() as lossy:
            lossy.setattr(Claims, "_fetch", cut)
            with pytest.raises(StorageUnknown):
                one.lease(T, 5, ME)
        found = [job.job_id for _ in range(4) for job in one.lease(T, 2, ME)]
        assert found == [job.job_id for job in batch]


def test_a_worker_whose_consumer_is_down_gives_back_what_a_claim_without_an_answer_moved(
    empty: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no use for jobs any more, and so no other reason to look: on another node the consumer may be there."""
    with storage(empty) as one:
        stage = Stage(tmp_path)
        stage.pump.drain()
        stage.storage = one  # type: ignore[assignment]
        lane = Lane(one, OWNER, stage.parts.inflight, stage.parts.log, lambda: None)
        target = Target(stage.slots, stage.slots, False)
        with monkeypatch.context() as lossy:
            lossy.setattr(Claims, "_fetch", cut)
            stage.pump = Pump(stage.topic, lane, target, stage.consumer, stage.record, OWNER, stage.parts)
            stage.push(3)
            stage.wait(lambda: one.depth(T).leased > 0)
            target.report(TargetEffect.DOWN, "nobody listens")
            stage.wait(lambda: not stage.pump._leasing)
        stage.wait(lambda: one.depth(T)[:3] == (3, 0, 0))
        assert stage.consumer.waiting == []
        assert [job.attempt for job in one.lease(T, 5, OTHER)] == [1, 1, 1]
        stage.pump.drain()


@pytest.mark.parametrize("along", [False, True])
def test_a_gateway_gives_back_what_a_claim_without_an_answer_moved(
    empty: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, along: bool
) -> None:
    """The client that asked may go to another gateway, and nobody ask here again."""
    with storage(empty) as one:
        owner = f"n1/gateway.0/{along}"
        process: Any = SimpleNamespace(owner=owner, clock=SystemClock(), log=Log("g", str(tmp_path / "log")))
        handout = Handout(process, Writer(tmp_path / "stats", "gateway.0"), SimpleNamespace())  # type: ignore[arg-type]
        lane: Any = SimpleNamespace(storage=one, trouble="", closed=False, config=SimpleNamespace(name="main"))
        topic = Topic("orders", "mail", storage="main", run="pull", contract="status")
        place = Place(topic, lane, {"main": lane}, Writer(tmp_path / "stats", "g").record(T), handout.waiting.look)
        one.push([push(), push(), push()])
        ((first, _),) = handout.lease(place, 1)
        with monkeypatch.context() as lossy:
            lossy.setattr(Claims, "_fetch", cut)
            if along:
                assert handout.settle_and_lease(place, 2, [Settle(T, first.job_id, Outcome.DONE)]) is None
            else:
                one.settle(owner, [Settle(T, first.job_id, Outcome.DONE)])
                with pytest.raises(StorageUnknown):
                    handout.lease(place, 2)
            assert one.depth(T).leased == 2
        deadline = time.monotonic() + 20
        while one.depth(T)[:3] != (2, 0, 0):
            assert time.monotonic() < deadline, one.depth(T)
            gevent.sleep(0.01)


# -- Pika: who has won a job is known to the winner alone ------------------------------------------------------------------


def lose_the_answer(one: RedisStorage, monkeypatch: pytest.MonkeyPatch, owner: str = ME) -> None:
    """A claim that takes what is in line and never hears of it."""
    remove = redis_copies.remove

    def and_lose(*args: Any) -> Any:
        remove(*args)
        cut()

    with monkeypatch.context() as lossy:
        lossy.setattr(redis_copies, "remove", and_lose)
        with pytest.raises(StorageUnknown):
            one.lease(T, 5, owner)


@contextmanager
def dies_before_it_wins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A claim's copies are made; the pointers are in line still."""
    with monkeypatch.context() as lossy:
        lossy.setattr(redis_copies, "remove", cut)
        with pytest.raises(StorageUnknown):
            yield


def leased_in_the_end(*storages: tuple[RedisStorage, str]) -> list[int]:
    """What they get until nothing is open any more."""
    found: list[int] = []
    deadline = time.monotonic() + 40
    while not found:
        assert time.monotonic() < deadline, "the job is lost"
        for one, owner in storages:
            found += [job.job_id for job in one.lease(T, 5, owner)]
        gevent.sleep(0.01)
    for one, owner in storages * 3:
        found += [job.job_id for job in one.lease(T, 5, owner)]
    return found


def test_a_winner_in_doubt_keeps_the_job_beside_a_loser_who_does_not_know_it_yet(
    empty: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loser has its copy, and takes it back a moment after the winner has looked who else has one."""
    doubts_for(0.5, monkeypatch)
    with storage(empty, "pika") as one, storage(empty, "pika") as two:
        sent = push()
        one.push([sent])
        together = Connection.together

        def meanwhile(self: Connection, parts: Any) -> Any:
            monkeypatch.setattr(Connection, "together", together)
            lose_the_answer(one, monkeypatch)
            results = self.together(parts)
            assert one.lease(T, 5, ME) == []
            return results

        monkeypatch.setattr(Connection, "together", meanwhile)
        assert two.lease(T, 5, OTHER) == []
        assert leased_in_the_end((one, ME), (two, OTHER)) == [sent.job_id]


def test_two_in_doubt_over_one_job_do_not_both_let_go_of_it(empty: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pika that was frozen in the middle of two claims wakes, and both look at the same time."""
    doubts_for(0.2, monkeypatch)
    with storage(empty, "pika") as one, storage(empty, "pika") as two:
        sent = push()
        one.push([sent])
        lose_the_answer(one, monkeypatch)
        (copy,) = empty.ask("LRANGE", f"pb:{{{T}}}:in:{ME}", "0", "-1")
        with monkeypatch.context() as lossy:
            lossy.setattr(Connection, "exchange", cut)
            with pytest.raises(StorageError):
                two.lease(T, 5, OTHER)
        empty.ask("SADD", f"pb:{{{T}}}:owners", OTHER)
        empty.ask("LPUSH", f"pb:{{{T}}}:in:{OTHER}", copy)
        tell, together = Connection.tell, Connection.together
        others: list[int] = []

        def also_the_other(self: Connection, *parts: Any) -> Any:
            monkeypatch.setattr(Connection, "tell", tell)
            monkeypatch.setattr(Connection, "together", together)
            others.extend(job.job_id for job in two.lease(T, 5, OTHER))
            return None

        def first_tell(self: Connection, *parts: Any) -> Any:
            also_the_other(self)
            return tell(self, *parts)

        def first_together(self: Connection, parts: Any) -> Any:
            also_the_other(self)
            return together(self, parts)

        monkeypatch.setattr(Connection, "tell", first_tell)
        monkeypatch.setattr(Connection, "together", first_together)
        found = leased_in_the_end((one, ME), (two, OTHER))
        assert others + found == [sent.job_id]


def test_what_a_dead_owner_was_about_to_win_is_in_line_once(empty: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had its copies and died: given back beside what lay in line, each would run twice as the same attempt."""
    with storage(empty, "pika") as one, storage(empty, "pika") as two:
        sent = [push() for _ in range(3)]
        one.push(sent)
        with dies_before_it_wins(monkeypatch):
            one.lease(T, 5, ME)
        assert [job.started for job in two.release(ME, set())] == [False] * 3
        assert [job.job_id for job in two.lease(T, 9, OTHER)] == [job.job_id for job in sent]
        assert two.lease(T, 9, OTHER) == []


def test_what_another_has_won_is_not_given_back_for_the_dead_who_had_a_copy(
    empty: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage(empty, "pika", 2.0) as one, storage(empty, "pika") as two:
        one.push([push()])
        with dies_before_it_wins(monkeypatch):
            one.lease(T, 5, ME)
        (job,) = two.lease(T, 5, OTHER)
        assert one.release(ME, set()) == []
        assert one.depth(T)[:3] == (0, 0, 1)
        assert two.settle(OTHER, [Settle(T, job.job_id, Outcome.DONE)]) == 1
        assert one.depth(T)[:3] == (0, 0, 0)


def test_what_a_dead_owner_had_won_waits_until_the_loser_has_taken_its_copy_back(
    empty: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage(empty, "pika") as one, storage(empty, "pika") as two:
        sent = push()
        one.push([sent])
        remove, released = redis_copies.remove, []

        def after_the_other(*args: Any) -> Any:
            monkeypatch.setattr(redis_copies, "remove", remove)
            lose_the_answer(one, monkeypatch)
            released.append(gevent.spawn(one.release, ME, set()))
            deadline = time.monotonic() + 20
            while not two.pool_is_asked:  # type: ignore[attr-defined]
                assert time.monotonic() < deadline
                gevent.sleep(0.01)
            return remove(*args)

        looked = redis_settle.left_behind

        def and_say_so(*args: Any) -> Any:
            found = looked(*args)
            two.pool_is_asked = True  # type: ignore[attr-defined]
            assert found.unclear
            monkeypatch.setattr(redis_settle, "left_behind", looked)
            return found

        two.pool_is_asked = False  # type: ignore[attr-defined]
        monkeypatch.setattr(redis_settle, "left_behind", and_say_so)
        monkeypatch.setattr(redis_copies, "remove", after_the_other)
        assert two.lease(T, 5, OTHER) == []
        (back_again,) = released[0].get(timeout=20)
        assert (back_again.job_id, back_again.started) == (sent.job_id, False)
        assert [job.job_id for job in two.lease(T, 5, OTHER)] == [sent.job_id]


def test_two_who_died_over_one_job_leave_it_in_line_once(empty: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """One had won it, the other had not taken its copy back; both are taken back at the same time."""
    with storage(empty, "pika", 2.0) as one, storage(empty, "pika", 2.0) as two, storage(empty, "pika") as heir:
        sent = push()
        one.push([sent])
        with dies_before_it_wins(monkeypatch):
            two.lease(T, 5, OTHER)
        lose_the_answer(one, monkeypatch)
        both = [gevent.spawn(one.release, ME, set()), gevent.spawn(two.release, OTHER, set())]
        released = [job.job_id for greenlet in both for job in greenlet.get(timeout=20)]
        assert released == [sent.job_id]
        assert [job.job_id for job in heir.lease(T, 5, "n1/worker.2/c")] == [sent.job_id]
        assert heir.lease(T, 5, "n1/worker.2/c") == []


@pytest.mark.parametrize("before", ["remove", "_judge"])
def test_an_owner_released_in_the_middle_of_its_claim_takes_nothing_out_of_the_line(
    empty: Redis, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for dead and is not: what it took out of the line would be in nobody's list."""
    with storage(empty, "pika") as one, storage(empty, "pika") as two:
        sent = push()
        one.push([sent])
        if before == "_judge":
            lose_the_answer(one, monkeypatch)
        step = getattr(redis_copies, before)

        def after_the_release(*args: Any) -> Any:
            monkeypatch.setattr(redis_copies, before, step)
            two.release(ME, set())
            return step(*args)

        monkeypatch.setattr(redis_copies, before, after_the_release)
        found = [job.job_id for job in one.lease(T, 5, ME)]
        found += [job.job_id for job in two.lease(T, 5, OTHER)]
        assert found == [sent.job_id]


def test_what_others_wrote_among_the_copies_keeps_nobody_from_taking_them_back(
    empty: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rubbish among the owners and in a list, while it is not known who has won."""
    with storage(empty, "pika", 2.0) as one, storage(empty, "pika") as two:
        sent = push()
        one.push([sent])
        lose_the_answer(one, monkeypatch)
        empty.ask("SADD", f"pb:{{{T}}}:owners", b"\xff\xfe")
        empty.ask("LPUSH", f"pb:{{{T}}}:in:{ME}", b"\xff rubbish")
        assert [job.job_id for job in one.lease(T, 5, ME)] == [sent.job_id]
        assert [job.job_id for job in two.release(ME, {(T, sent.job_id)})] == [sent.job_id]
        assert [job.attempt for job in two.lease(T, 5, OTHER)] == [2]
