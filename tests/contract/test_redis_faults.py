"""A Redis that freezes, dies, fills up, or refuses: what is said of a push is never a lie, and it works again after."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest

from pepperbus.clock import SystemClock
from pepperbus.config.model import StorageConfig
from pepperbus.config.secret import Secret
from pepperbus.errors import StorageError, StorageRefused, StorageUnavailable, StorageUnknown
from pepperbus.ids import IdGenerator
from pepperbus.job import State
from pepperbus.log import Log
from pepperbus.names import wake_channel
from pepperbus.storage import redis as redis_module
from pepperbus.storage.contract import Leased, Once, Outcome, Push, Settle
from pepperbus.storage.redis import RedisStorage
from pepperbus.storage.redis_keys import Keys
from pepperbus.storage.redis_link import Link
from pepperbus.storage.redis_settle import Settlements
from pepperbus.storage.redis_url import parse_url
from pepperbus.storage.redis_wire import Connection
from tests.fixtures.redis import Redis

T = "orders/mail"
ME = "n1/worker.0/a"
FOREVER = {"appendonly": "yes", "appendfsync": "always"}
new_id = IdGenerator(2, 0, SystemClock().now_ms).next


def push(content: bytes = b"x", *topics: str) -> Push:
    return Push(new_id(), content, topics or (T,))


@contextmanager
def storage(url: str, timeout: float = 20.0, mode: str = "redis", log: Log | None = None) -> Iterator[RedisStorage]:
    made = RedisStorage(StorageConfig("main", "redis", Secret(url), mode, timeout), log=log)
    made.open()
    yield made
    made.close()


@contextmanager
def frozen(redis: Redis, one: RedisStorage) -> Iterator[None]:
    """Redis stands still, and `one` does not wait long for it; before and after it has the time that a busy machine takes."""
    pool = one._link.pool
    patience, pool.timeout = pool.timeout, 0.3
    redis.freeze()
    try:
        yield
    finally:
        pool.timeout = patience
        redis.thaw()


def until(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        gevent.sleep(0.01)


def works(one: RedisStorage) -> bool:
    try:
        one.depth(T)
        return True
    except StorageUnavailable:
        return False


# -- frozen ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["redis", "pika"])
def test_a_push_into_a_frozen_redis_is_unknown_and_its_repetition_runs_once(
    start_redis: Callable[..., Redis], mode: str
) -> None:
    redis = start_redis(**FOREVER)
    with storage(redis.pika_url if mode == "pika" else redis.url, mode=mode) as one:
        batch = [push(b"%d" % i) for i in range(5)]
        one.push([push(b"x", "orders/other")])
        with frozen(redis, one):
            began = time.monotonic()
            with pytest.raises(StorageUnknown, match="no answer in time"):
                one.push(batch)
            assert 0.25 < time.monotonic() - began < 15
            with pytest.raises(StorageUnavailable):  # a new connection gets no greeting, so nothing of it was sent
                one.push([push()])
        until(lambda: works(one))
        one.push(batch)
        assert [job.body for job in one.lease(T, 100, ME)] == [b"0", b"1", b"2", b"3", b"4"]
        assert one.lease(T, 100, "n1/worker.0/b") == []
        assert one.settle(ME, [Settle(T, job.job_id, Outcome.DONE) for job in batch]) == 5
        assert one.topics() == ["orders/other"]


def test_a_late_push_after_its_repetition_changes_nothing(redis_server: Redis) -> None:
    """Both forms are under way: the second is leased when the first arrives at last."""
    redis_server.ask("FLUSHALL")
    with storage(redis_server.url) as one:
        again = push()
        one.push([again])
        assert len(one.lease(T, 1, ME)) == 1
        one.push([again])
        assert one.lease(T, 1, "n1/worker.0/b") == []
        redis_server.ask(
            "RPUSH", "pb:{orders/mail}:ready", b"%d:ffffff" % again.job_id
        )  # a pusher died before it tidied
        assert one.lease(T, 1, "n1/worker.0/b") == []
        assert one.depth(T)[:4] == (0, 0, 1, 0)


@pytest.mark.parametrize("mode", ["redis", "pika"])
def test_jobs_of_a_claim_without_an_answer_come_with_the_next(start_redis: Callable[..., Redis], mode: str) -> None:
    redis = start_redis(**FOREVER)
    with storage(redis.pika_url if mode == "pika" else redis.url, mode=mode) as one:
        batch = [push(b"%d" % i) for i in range(4)]
        one.push(batch)
        first = one.lease(T, 1, ME)
        with frozen(redis, one), pytest.raises(StorageError):
            one.lease(T, 2, ME)
        until(lambda: works(one))
        rest = [
            job
            for asked in gevent.joinall([gevent.spawn(one.lease, T, 5, ME) for _ in range(5)])
            for job in asked.get()
        ]
        assert sorted(job.job_id for job in first + rest) == [job.job_id for job in batch]
        assert one.settle(ME, [Settle(T, job.job_id, Outcome.DONE) for job in batch]) == 4
        assert one.lease(T, 5, ME) == []


def doubt(one: RedisStorage, redis: Redis) -> None:
    """A claim without an answer: from now on the owner's list is searched for what it may have moved there."""
    with frozen(redis, one), pytest.raises(StorageError):
        one.lease(T, 1, ME)
    until(lambda: works(one))


def test_a_job_given_back_and_claimed_again_is_held_once(
    start_redis: Callable[..., Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given back in a batch with jobs of another topic, it is leased anew before the whole batch is through."""
    redis = start_redis(**FOREVER)
    with storage(redis.url) as one:
        doubt(one, redis)
        one.push([push(b"x", T, "orders/other")])
        jobs = one.lease(T, 1, ME) + one.lease("orders/other", 1, ME)
        again: list[Leased] = []
        decide = Settlements._decide

        def and_lease(self: Settlements, connection: Connection, owner: str, keys: Keys, *args: Any) -> int:
            count = decide(self, connection, owner, keys, *args)
            if keys.topic == "orders/other":
                again.extend(one.lease(T, 1, ME))
            return count

        monkeypatch.setattr(Settlements, "_decide", and_lease)
        one.settle(ME, [Settle(job.topic, job.job_id, Outcome.BACK, spent=False) for job in jobs])
        assert len(again) == 1
        assert one.lease(T, 5, ME) == []


def test_a_job_whose_giving_back_is_repeated_does_not_run_in_between(
    start_redis: Callable[..., Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first giving back had no answer but took effect: leased at once, the second would take it away while it runs."""
    redis = start_redis(**FOREVER)
    with storage(redis.url) as one:
        one.push([push(b"x")])
        (job,) = one.lease(T, 1, ME)
        back = [Settle(T, job.job_id, Outcome.BACK, spent=False)]
        move = Link.move

        def and_lose(self: Link, *args: Any) -> None:
            move(self, *args)
            raise StorageUnknown("cut")

        with monkeypatch.context() as lossy:
            lossy.setattr(Link, "move", and_lose)
            with pytest.raises(StorageUnknown):
                one.settle(ME, back)
        leased = one.lease(T, 5, ME)
        one.settle(ME, back)
        leased += one.lease(T, 5, ME)
        assert [job.job_id for job in leased] == [job.job_id]
        assert one.depth(T)[:4] == (0, 0, 1, 0)


def test_a_claim_that_fails_behind_the_bodies_loses_none(
    start_redis: Callable[..., Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a pointer that leads nowhere, whose removal fails."""
    redis = start_redis(**FOREVER)
    with storage(redis.url) as one:
        sent = push(b"x")
        one.push([sent])
        redis.ask("RPUSH", "pb:{orders/mail}:ready", b"%020d:ffffff" % (sent.job_id - 1))

        def cut(self: Connection, *parts: Any) -> Any:
            raise StorageUnknown("cut")

        with monkeypatch.context() as lossy:
            lossy.setattr(Connection, "tell", cut)
            with pytest.raises(StorageUnknown):
                one.lease(T, 5, ME)
        assert [job.job_id for job in one.lease(T, 5, ME)] == [sent.job_id]


# -- killed, stopped ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [1, 2, 3])
def test_what_was_said_of_pushes_holds_after_kill_9(start_redis: Callable[..., Redis], again: int) -> None:
    redis = start_redis(**FOREVER)
    said: dict[str, set[int]] = {"stored": set(), "definite": set(), "unknown": set()}
    running = True

    def producer(one: RedisStorage) -> None:
        while running:
            batch = [push(b"x" * 100, T, "orders/audit") for _ in range(8)]
            ids = {job.job_id for job in batch}
            try:
                one.push(batch)
                said["stored"] |= ids
            except StorageUnavailable:
                said["definite"] |= ids
                gevent.sleep(0.01)
            except StorageUnknown:
                said["unknown"] |= ids

    with storage(redis.url) as one:
        producers = [gevent.spawn(producer, one) for _ in range(6)]
        until(lambda: len(said["stored"]) > 200 * again)
        redis.kill()
        until(lambda: bool(said["definite"]))
        redis.start()
        back = time.monotonic()
        before = len(said["stored"])
        until(lambda: len(said["stored"]) > before)
        assert time.monotonic() - back < 20
        running = False
        gevent.joinall(producers)
        for topic in (T, "orders/audit"):
            there: list[int] = []
            while jobs := one.lease(topic, 500, ME):
                there += [job.job_id for job in jobs]
            assert len(there) == len(set(there))
            assert said["stored"] <= set(there)
            assert not said["definite"] & set(there)
            assert set(there) <= said["stored"] | said["unknown"]


def test_a_stopped_redis_is_a_definite_error_at_once_and_one_line_in_the_log(
    start_redis: Callable[..., Redis], tmp_path: Path
) -> None:
    redis = start_redis()
    log = tmp_path / "log"
    with storage(redis.url, log=Log("test", str(log))) as one:
        one.push([push()])
        redis.stop()
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(StorageUnavailable):
                one.push([push()])
            gevent.sleep(0.01)
        assert time.monotonic() - began < 40  # each would wait twenty seconds for an answer
        health = one.health()
        assert not health.alive
        assert "redis.sock" in health.detail
        redis.start()
        began = time.monotonic()
        until(lambda: works(one))
        assert time.monotonic() - began < 20
    lines = log.read_text().splitlines()
    assert [line.split("action=")[1].split()[0] for line in lines] == ["storage_down", "storage_up"]


def test_a_socket_nobody_accepts_from_costs_no_cpu(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "full"))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(tmp_path / "full"))
            began, cpu = time.monotonic(), time.process_time()
            with pytest.raises(StorageUnavailable, match="no answer in time"):
                Connection(parse_url("main", f"unix://{tmp_path}/full"), time.monotonic() + 0.5)
            assert time.monotonic() - began >= 0.45
            assert time.process_time() - cpu < 0.25


def test_a_killed_greenlet_leaves_no_answer_for_the_next(redis_server: Redis) -> None:
    redis_server.ask("FLUSHALL")
    with storage(redis_server.url) as one:
        one.push([push()])
        for wait in range(40):
            victim = gevent.spawn(one.lease, T, 1, "n1/worker.0/v")
            gevent.sleep(wait * 2e-5)
            victim.kill()
            one.release("n1/worker.0/v", ())
            assert one.paused() == set()
            assert one.topics() == [T]
        until(lambda: one.release("n1/worker.0/v", ()) is not None and one.depth(T).ready == 1)


# -- full, refusing ----------------------------------------------------------------------------------------------------


def test_a_redis_that_fills_up_refuses_jobs_before_it_refuses_claims(start_redis: Callable[..., Redis]) -> None:
    redis = start_redis(maxmemory="8mb", **FOREVER)
    with storage(redis.url) as one:
        stored = 0
        with pytest.raises(StorageUnavailable, match="OOM"):
            while True:
                one.push([push(b"x" * 20_000)])
                stored += 1
                gevent.sleep(0.005)
        assert one.depth(T).ready == stored
        assert one.health().used > 0.8 * one.health().limit
        done = 0
        while jobs := one.lease(T, 10, ME):
            done += one.settle(ME, [Settle(T, job.job_id, Outcome.DONE) for job in jobs])
        assert done == stored
        one.push([push()])


def test_a_full_redis_stores_nothing_of_a_batch_and_still_takes_done(start_redis: Callable[..., Redis]) -> None:
    redis = start_redis(**FOREVER)
    with storage(redis.url) as one:
        one.push([push(), push()])
        leased = one.lease(T, 1, ME)
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StorageUnavailable, match="OOM"):
            one.push([push(b"x", T, "orders/audit")])
        with pytest.raises(StorageUnavailable, match="OOM"):
            one.lease(T, 1, ME)
        assert one.settle(ME, [Settle(T, leased[0].job_id, Outcome.DONE)]) == 1
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        assert one.depth(T)[:4] == (1, 0, 0, 0)
        assert one.topics() == [T]


def test_a_full_redis_takes_done_even_where_a_claim_comes_along(start_redis: Callable[..., Redis]) -> None:
    redis = start_redis(**FOREVER)
    with storage(redis.url) as one:
        one.push([push(), push(), push()])
        first, second = one.lease(T, 2, ME)
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        for job in (first, second):
            assert one.settle_and_lease(ME, [Settle(T, job.job_id, Outcome.DONE)], T, 1) == (1, None)
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        assert one.depth(T)[:4] == (1, 0, 0, 0)
        assert len(one.lease(T, 1, ME)) == 1


def test_what_came_along_without_an_answer_comes_with_the_next(start_redis: Callable[..., Redis]) -> None:
    redis = start_redis(**FOREVER)
    with storage(redis.url) as one:
        batch = [push(b"%d" % i) for i in range(4)]
        one.push(batch)
        done = [Settle(T, one.lease(T, 1, ME)[0].job_id, Outcome.DONE)]
        with frozen(redis, one), pytest.raises(StorageUnknown):
            one.settle_and_lease(ME, done, T, 2)
        until(lambda: works(one))
        count, leased = one.settle_and_lease(ME, done, T, 3)
        rest = leased or []
        while more := one.lease(T, 3, ME):
            rest += more
        assert count == 0
        assert sorted(job.body for job in rest) == [b"1", b"2", b"3"]


def test_an_eviction_policy_is_refused_with_the_line_to_type(start_redis: Callable[..., Redis]) -> None:
    redis = start_redis(maxmemory="50mb", maxmemory_policy="allkeys-lru")
    with pytest.raises(StorageRefused, match="CONFIG SET maxmemory-policy noeviction"), storage(redis.url):
        pass
    redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    with storage(redis.url):
        pass


def test_durability_is_what_the_server_is_set_to(start_redis: Callable[..., Redis]) -> None:
    redis = start_redis(appendonly="no")
    with storage(redis.url) as one:
        assert one.durability == "memory"
        assert one.advice("power").splitlines() == ["CONFIG SET appendonly yes", "CONFIG SET appendfsync always"]
        for line in one.advice("process").splitlines():
            assert redis.ask(*line.split()) == b"OK"
        one.open()
        assert (one.durability, one.advice("process")) == ("process", "")
        for line in one.advice("power").splitlines():
            assert redis.ask(*line.split()) == b"OK"
        one.open()
        assert (one.durability, one.advice("power")) == ("power", "")


def test_a_server_that_hides_its_settings_is_trusted_less(start_redis: Callable[..., Redis]) -> None:
    redis = start_redis(**FOREVER)
    redis.ask("ACL", "SETUSER", "shy", "on", ">p:w/d@", "~*", "&*", "+@all", "-config")
    with storage(f"redis://shy:p%3Aw%2Fd%40@127.0.0.1:{redis.port}/0") as one:
        assert one.durability == "process"
        assert "CONFIG GET is not allowed" in one.health().detail
        one.push([push()])
        assert one.depth(T).ready == 1


@pytest.mark.parametrize("login", ["pika:wrong@", "nobody:pika@"])
def test_a_wrong_login_is_named(redis_server: Redis, login: str) -> None:
    url = redis_server.url.replace("unix://", f"unix://{login}")
    with pytest.raises(StorageUnavailable, match="WRONGPASS"), storage(url):
        pass


def test_a_missing_right_is_a_definite_error(start_redis: Callable[..., Redis]) -> None:
    redis = start_redis(**FOREVER)
    with storage(redis.pika_url, mode="pika") as one:
        for verb in ("hsetnx", "lpush", "exec", "multi"):
            redis.ask("ACL", "SETUSER", "pika", f"-{verb}")
            with pytest.raises(StorageError, match="NOPERM"):
                one.push([push()])
            redis.ask("ACL", "SETUSER", "pika", f"+{verb}")
        redis.ask("DEL", "pb:topics", *redis.ask("KEYS", "*"))
        redis.ask("ACL", "SETUSER", "pika", "-hsetnx")
        with pytest.raises(StorageUnavailable, match="NOPERM"):
            one.push([push(), push()])
        assert redis.ask("KEYS", "pb:{*") == []


# -- many at once, and wakes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["redis", "pika"])
def test_many_owners_at_once_run_every_job_once(redis_server: Redis, mode: str) -> None:
    """Leases, retries, backs, promotions by several processes and repeated pushes, all at the same time."""
    redis_server.ask("FLUSHALL")
    url = redis_server.pika_url if mode == "pika" else redis_server.url
    batch = [push(b"%d" % i) for i in range(300)]
    ran: list[int] = []
    running: set[int] = set()

    def worker(number: int) -> None:
        owner = f"n1/worker.{number}/a"
        with storage(url, mode=mode) as one:
            while len(ran) < len(batch):
                one.promote(T, 1 << 42, 7)
                jobs = one.lease(T, 5, owner)
                here = {job.job_id for job in jobs}
                assert not here & running
                running.update(here)
                verdicts = []
                for job in jobs:
                    kind = (job.job_id + number) % 4 if job.attempt < 3 else 0
                    outcome = (Outcome.DONE, Outcome.RETRY, Outcome.BACK, Outcome.DONE)[kind]
                    verdicts.append(Settle(T, job.job_id, outcome, 1))
                gevent.sleep(0.001)
                running.difference_update(here)
                if not verdicts:
                    continue
                assert one.settle(owner, verdicts) == len(jobs)
                ran.extend(verdict.job_id for verdict in verdicts if verdict.outcome is Outcome.DONE)

    with storage(url, mode=mode) as one:
        one.push(batch[:150])
        workers = [gevent.spawn(worker, number) for number in range(4)]
        one.push(batch[150:])
        done = gevent.joinall(workers, timeout=90, raise_error=True)
        assert len(done) == 4
        assert sorted(ran) == [job.job_id for job in batch]
        assert one.depth(T)[:4] == (0, 0, 0, 0)
        assert one.peek(T, State.READY).jobs == []


def listeners(redis: Redis, topic: str) -> int:
    return int(redis.ask("PUBSUB", "NUMSUB", wake_channel(topic))[1])


@pytest.mark.parametrize("mode", ["redis", "pika"])
def test_a_push_elsewhere_wakes_also_after_redis_was_away(start_redis: Callable[..., Redis], mode: str) -> None:
    redis = start_redis()
    url = redis.pika_url if mode == "pika" else redis.url
    with storage(url, mode=mode) as mine, storage(url, mode=mode) as other:
        woken: list[str] = []
        mine.watch([T, "orders/audit"], woken.append)
        until(lambda: listeners(redis, T) == 1)
        for _ in range(2):
            woken.clear()
            other.push([push(), push()])
            until(lambda: T in woken)
            redis.stop()
            redis.start()
            until(lambda: works(other))
            until(lambda: listeners(redis, T) == 1)
        mine.watch(["orders/audit"], woken.append)
        until(lambda: [listeners(redis, topic) for topic in (T, "orders/audit")] == [0, 1])
        woken.clear()
        other.push([push()])
        other.push([push(b"x", "orders/audit")])
        until(lambda: "orders/audit" in woken)
        assert T not in woken


def test_jobs_that_wait_unheard_are_found(start_redis: Callable[..., Redis]) -> None:
    """Nobody publishes what an older version, or a push whose last words were lost, left there."""
    redis = start_redis()
    with storage(redis.url) as mine, storage(redis.url) as other:
        late = Push(new_id(), b"x", ("orders/late",), due_ms=SystemClock().now_ms() + 3_600_000)
        other.push([push(b"x", "orders/audit"), late])
        topics = [f"orders/t{i}" for i in range(300)]
        woken: list[str] = []
        mine.watch([T, *topics, "orders/audit", "orders/late"], woken.append)
        until(lambda: {"orders/audit", "orders/late"} <= set(woken))
        assert not {T, *topics} & set(woken)
        mine.watch([], woken.append)


# -- somebody else's hand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("RPUSH", f"pb:{{{T}}}:ready", '{"job": "pushed past the bus"}'),
        ("HSET", f"pb:{{{T}}}:att", "ID", "many"),
        ("ZADD", f"pb:{{{T}}}:dead", "inf", "x"),
        ("SADD", f"pb:{{{T}}}:owners", "me"),
        ("SADD", f"pb:{{{T}}}:owners", b"\xff"),
        ("SADD", "pb:topics", b"\xff"),
        ("SADD", "pb:paused", b"\xff"),
        ("SET", "pb:once:name", "x"),
        ("SADD", f"pb:{{{T}}}:going", "x"),
    ],
)
def test_what_others_write_among_the_keys_stops_nothing(redis_server: Redis, command: tuple[str | bytes, ...]) -> None:
    redis_server.ask("FLUSHALL")
    with storage(redis_server.url) as one:
        job = push()
        one.push([job])
        assert type(redis_server.ask(*[str(job.job_id) if word == "ID" else word for word in command])) is int or (
            command[0] == "SET"
        )
        assert [found.job_id for found in one.lease(T, 5, ME)] == [job.job_id]
        assert one.owners() == [ME]
        assert one.topics() == [T]
        assert one.lost_nodes(60_000) == []
        assert [one.peek(T, state).cursor for state in State] == ["", "", "", ""]
        assert one.depth(T).leased == 1
        one.upkeep()
        one.paused()
        once = Once(push(), "name", 60_000, True)
        assert one.push_once([once]) == [once.push.job_id]
        assert [found.job_id for found in one.release(ME, None)] == [job.job_id]


@pytest.mark.parametrize("part", ["job", "att", "ready", "owners"])
def test_a_key_of_another_type_is_named_and_all_is_well_once_it_is_gone(redis_server: Redis, part: str) -> None:
    redis_server.ask("FLUSHALL")
    key = f"pb:{{{T}}}:{part}"
    with storage(redis_server.url) as one:
        redis_server.ask("SET", key, "mine")
        for _ in range(2):
            with pytest.raises(StorageError, match=re.escape(f"the key {key} is somebody else's")):
                one.push([push()])
                one.lease(T, 1, ME)
        redis_server.ask("DEL", key)
        job = push()
        one.push([job])
        found = [leased.job_id for _ in range(3) for leased in one.lease(T, 5, ME)]
        assert found[-1] == job.job_id
        assert one.settle(ME, [Settle(T, job_id, Outcome.DONE) for job_id in found]) == len(found)
        assert one.topics() == [], "no body is left that nothing leads to"


def test_one_topic_that_cannot_be_counted_hides_none_of_the_others(redis_server: Redis) -> None:
    """And a thousand of them are asked in a few trips, not in one or two each."""
    redis_server.ask("FLUSHALL")
    names, key = [f"orders/t{n}" for n in range(1000)], "pb:{orders/t7}:delay"
    with storage(redis_server.url) as one:
        one.push([push(b"x", *names)])
        redis_server.ask("SET", key, "mine")
        redis_server.ask("SET", "pb:{orders/t8}:in:n1/worker.9/1", "mine")
        redis_server.ask("SADD", "pb:{orders/t8}:owners", "n1/worker.9/1")
        redis_server.ask("RPUSH", "pb:{orders/t9}:ready", "pushed past the bus")
        before = reads(redis_server)
        found = one.depths(names)
        assert reads(redis_server) - before < 200
        assert list(found) == [*names[:7], *names[9:]]
        assert {depth.ready for depth in found.values()} == {1, 2}
        for raises in (lambda: one.depth(names[7]), lambda: one.depths([names[7]])):
            with pytest.raises(StorageError, match=re.escape(f"the key {key} is somebody else's")):
                raises()


def reads(redis: Redis) -> int:
    """How often this server has read from a socket."""
    return int(re.findall(rb"total_reads_processed:(\d+)", redis.ask("INFO", "stats"))[0])


@pytest.mark.parametrize("kind", ["plain", "front", "later", "once"])
def test_a_push_into_a_line_of_another_type_leaves_nothing_there(redis_server: Redis, kind: str) -> None:
    redis_server.ask("FLUSHALL")
    key = f"pb:{{{T}}}:{'delay' if kind == 'later' else 'ready'}"
    with storage(redis_server.url) as one:
        redis_server.ask("SET", key, "mine")
        job = push()._replace(front=kind == "front", due_ms=1 if kind == "later" else 0)
        with pytest.raises(StorageUnavailable, match=re.escape(f"the key {key} is somebody else's")):
            one.push_once([Once(job, "name", 60_000)]) if kind == "once" else one.push([job])
        with pytest.raises(StorageError):
            one.swap("moved", "", "these", [job])
        assert one.recall("moved") == "", "or whoever moves jobs here would take them for moved"
        redis_server.ask("DEL", key)
        other = push()
        assert one.push_once([Once(other, "name", 60_000)]) == [other.job_id]
        assert one.remove(T, [other.job_id]) == 1
        assert one.find(job.job_id, [T]) == []
        assert one.topics() == []
        one.push([job])
        assert one.promote(T, 2)[0] == int(kind == "later")
        assert [leased.job_id for leased in one.lease(T, 5, ME)] == [job.job_id]


def test_an_emptied_redis_is_told_again_whose_the_shard_is(redis_server: Redis) -> None:
    redis_server.ask("FLUSHALL")
    with storage(redis_server.url) as one:
        one.claim_shard(5, "n1")
        redis_server.ask("FLUSHALL")
        one.heartbeat("n1")
        with pytest.raises(StorageRefused, match="shard 5 belongs to node n1"):
            one.claim_shard(5, "n2")
        one.heartbeat("n1")
        assert set(one.nodes()) == {"n1"}


def test_a_clone_of_a_machine_is_refused_while_the_other_lives(redis_server: Redis) -> None:
    """The same host name and the same shard, the default one: both would make the same ids."""
    redis_server.ask("FLUSHALL")
    with storage(redis_server.url) as one, storage(redis_server.url) as again, storage(redis_server.url) as clone:
        clone._machine = b"another"
        one.claim_shard(2, "n1")
        for _ in range(2):
            with pytest.raises(StorageRefused, match=r"a node n1 runs on another machine, heard of \d+ s ago"):
                clone.claim_shard(2, "n1")
        again.claim_shard(2, "n1")  # another process, or a restart after a crash
        one.heartbeat("n1")
        one.leave("n1")
        clone.claim_shard(2, "n1")
        with pytest.raises(StorageRefused, match="runs on another machine"):
            one.claim_shard(2, "n1")
        redis_server.ask("PEXPIRE", "pb:node:n1", 86_400_000 - 20_000)
        one.claim_shard(2, "n1")
        assert set(one.nodes()) == {"n1"}


def test_where_the_machine_has_no_name_nobody_is_refused_for_it(
    redis_server: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.ask("FLUSHALL")
    monkeypatch.setattr(redis_module, "_BOOT_ID", tmp_path / "hidden")
    with storage(redis_server.url) as one, storage(redis_server.url) as two:
        one.claim_shard(2, "n1")
        one.heartbeat("n1")
        two.claim_shard(2, "n1")
        assert two.nodes().keys() == {"n1"}
