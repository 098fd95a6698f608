"""A Redis that comes back older than what it acknowledged: its box lost the last second, or somebody put back a copy of its
files while the bus ran. Jobs may run again then, nothing else: none sticks with an owner that does not know it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pepperbus.job import State
from pepperbus.storage import redis_look
from pepperbus.storage.contract import Outcome, Settle
from pepperbus.storage.redis import RedisStorage
from tests.contract.test_redis_holdings import ME, OTHER, T, push, storage
from tests.fixtures.redis import Redis

SETTINGS = {"appendonly": "yes", "appendfsync": "no"}


class Past:
    """The files of a Redis as they are now, to be put back later."""

    def __init__(self, redis: Redis, where: Path) -> None:
        self._redis, self._kept = redis, where / "copy"
        shutil.copytree(redis.directory / "appendonlydir", self._kept)

    def put_back(self) -> None:
        self._redis.kill()
        now = self._redis.directory / "appendonlydir"
        shutil.rmtree(now)
        shutil.copytree(self._kept, now)
        self._redis.start()


def empties(one: RedisStorage, owner: str) -> list[int]:
    """Everything that this owner can get and do, until there is nothing."""
    ran: list[int] = []
    while jobs := one.lease(T, 10, owner):
        ran += [job.job_id for job in jobs]
        one.settle(owner, [Settle(T, job.job_id, Outcome.DONE) for job in jobs])
    return ran


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_verdict_that_redis_forgot_leaves_no_job_with_a_living_owner(
    start_redis: Callable[..., Redis], tmp_path: Path, outcome: Outcome
) -> None:
    redis = start_redis(**SETTINGS)
    with storage(redis) as one, storage(redis) as other:
        one.push([push()])
        (job,) = one.lease(T, 1, ME)
        past = Past(redis, tmp_path)
        assert one.settle(ME, [Settle(T, job.job_id, outcome, due_ms=1, reason="bad")]) == 1
        past.put_back()
        assert empties(one, ME) == [job.job_id]
        assert other.lease(T, 1, OTHER) == []
        assert one.depth(T)[:4] == (0, 0, 0, 0)


def test_a_job_that_runs_while_redis_forgets_its_lease_ends_once_and_for_all(
    start_redis: Callable[..., Redis], tmp_path: Path
) -> None:
    redis = start_redis(**SETTINGS)
    with storage(redis) as one, storage(redis) as other:
        one.push([push(), push()])
        past = Past(redis, tmp_path)
        first, second = one.lease(T, 2, ME)
        past.put_back()
        assert [job.job_id for job in other.lease(T, 2, OTHER)] == [first.job_id, second.job_id]
        late = [Settle(T, first.job_id, Outcome.DONE), Settle(T, second.job_id, Outcome.RETRY, due_ms=1)]
        assert one.settle(ME, late) == 1, "what is done is done; the other one is not its any more"
        assert one.depth(T)[:4] == (0, 0, 1, 0)
        assert other.settle(OTHER, [Settle(T, second.job_id, Outcome.DONE)]) == 1
        assert one.lease(T, 2, ME) == other.lease(T, 2, OTHER) == []
        assert one.depth(T)[:4] == (0, 0, 0, 0)


def test_half_a_done_leaves_nothing_that_is_counted(start_redis: Callable[..., Redis], tmp_path: Path) -> None:
    """A done is no transaction: the file may end behind its first command."""
    redis = start_redis(**SETTINGS)
    with storage(redis) as one:
        one.push([push()])
        (job,) = one.lease(T, 1, ME)
        redis.ask("HDEL", f"pb:{{{T}}}:job", str(job.job_id))
        past = Past(redis, tmp_path)
        one.settle(ME, [Settle(T, job.job_id, Outcome.DONE)])
        past.put_back()
        assert one.peek(T, State.LEASED).jobs == []
        assert empties(one, ME) == []
        assert one.depth(T)[:4] == (0, 0, 0, 0)


@pytest.mark.parametrize("outcome", [Outcome.BACK, Outcome.RETRY, Outcome.DEAD])
def test_a_job_that_comes_back_while_it_is_removed_goes_whole(
    redis_server: Redis, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    """It was with a worker when its places were looked through, and with nobody when the owners were asked."""
    redis_server.ask("FLUSHALL")
    with storage(redis_server) as one, storage(redis_server) as other:
        one.push([push()])
        (job,) = one.lease(T, 1, ME)
        look = redis_look._orphans

        def late(*words: Any) -> list[bytes]:
            one.settle(ME, [Settle(T, job.job_id, outcome, due_ms=1 << 42, reason="bad")])
            return look(*words)

        monkeypatch.setattr(redis_look, "_orphans", late)
        assert other.remove(T, [job.job_id]) == 1
        assert one.depth(T)[:4] == (0, 0, 0, 0)
        assert one.lease(T, 1, ME) == []


def test_what_is_counted_as_dead_and_is_not_there_goes_with_the_first_look(redis_server: Redis) -> None:
    """A late done of an owner that was released: whoever did it may die before it has looked for the other pointers."""
    redis_server.ask("FLUSHALL")
    with storage(redis_server) as one:
        one.push([push(), push()])
        one.settle(ME, [Settle(T, job.job_id, Outcome.DEAD, reason="bad") for job in one.lease(T, 2, ME)])
        kept, gone = (job.job_id for job in one.peek(T, State.DEAD).jobs)
        redis_server.ask("HDEL", f"pb:{{{T}}}:job", str(gone))
        assert one.depth(T).dead == 2
        assert [job.job_id for job in one.peek(T, State.DEAD).jobs] == [kept]
        assert one.depth(T).dead == 1


@pytest.mark.parametrize("side", ["LPUSH", "RPUSH"])
def test_of_two_pointers_to_one_job_the_good_one_is_judged(redis_server: Redis, side: str) -> None:
    """A push was repeated, and a claim was cut off after it had moved both."""
    redis_server.ask("FLUSHALL")
    held = f"pb:{{{T}}}:in:{ME}"
    with storage(redis_server) as one, storage(redis_server) as other:
        one.push([push()])
        (job,) = one.lease(T, 1, ME)
        second = f"{job.job_id}:ffffff"
        redis_server.ask(side, held, second)
        assert one.settle(ME, [Settle(T, job.job_id, Outcome.RETRY, due_ms=1)]) == 1
        assert one.promote(T, 2) == (1, 0)
        assert [(again.job_id, again.attempt) for again in one.lease(T, 5, ME)] == [(job.job_id, 2)]
        assert len(redis_server.ask("LRANGE", held, 0, -1)) == 2
        (released,) = other.release(ME, None)
        assert (released.job_id, released.attempt) == (job.job_id, 2)
        assert one.depth(T)[:4] == (1, 0, 0, 0)
