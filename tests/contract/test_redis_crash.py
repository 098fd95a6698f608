"""A process that dies between any two steps it takes in Redis, and a Pika that dies within a transaction: nothing is lost.

A life of some jobs is run again and again, each time cut one step later. Then another process repairs, as it would: it
repeats the push that had no answer, takes back what the dead owner held, and runs what there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import pytest

from pepperbus.clock import ManualClock
from pepperbus.config.model import StorageConfig
from pepperbus.config.secret import Secret
from pepperbus.job import State
from pepperbus.storage.contract import Outcome, Push, Settle
from pepperbus.storage.redis import RedisStorage
from pepperbus.storage.redis_wire import Connection
from tests.fixtures.redis import Redis

T, FAR = "orders/mail", 1 << 42
IDS = [(1 << 63) + (i << 24) for i in range(1, 9)]
PUSHES = [Push(job_id, b"body %d" % job_id, (T, "orders/audit")) for job_id in IDS[:5]]
PUSHES += [Push(IDS[5], b"later", (T,), due_ms=1000), Push(IDS[6], b"first", (T,), front=True)]
PUSHES += [Push(IDS[7], b"to be removed", (T,), due_ms=FAR - 1)]
A, B = "n1/worker.0/a", "n1/worker.0/b"


class Cut(BaseException):
    """The process is no more."""


class Knife:
    """Counts what is sent and dies at step `at`: before it is sent (`lost`), or after it was done, the answer unread.

    A step is a trip; with `between` a command of a trip, where a transaction is one; with `inside` any command.
    """

    def __init__(self, at: int, lost: bool = False, inside: bool = False, between: bool = False) -> None:
        self.at = at
        self.lost = lost
        self.inside = inside
        self.between = between
        self.steps = 0
        self._exchange = Connection.exchange

    def method(self) -> Callable[..., list[Any]]:
        """To be put in the place of `Connection.exchange`."""
        return lambda connection, data, count, whole=False: self.exchange(connection, data, count, whole)

    def exchange(self, connection: Connection, data: bytes, count: int, whole: bool) -> list[Any]:
        if self.inside:
            return self._within(connection, data, count, whole)
        if self.between:
            return self._between(connection, data, count, whole)
        self.steps += 1
        if self.steps < self.at:
            return self._exchange(connection, data, count, whole)
        if not self.lost:
            self._exchange(connection, data, count, whole)
        raise Cut

    def _within(self, connection: Connection, data: bytes, count: int, whole: bool) -> list[Any]:
        """Each command is a step, and a cut transaction leaves the commands before it, as on a killed Pika."""
        commands = [one for one in _commands(data) if one[0] not in (b"MULTI", b"EXEC")]
        if self.steps + len(commands) < self.at:
            self.steps += len(commands)
            return self._exchange(connection, data, count, whole)
        done = commands[: self.at - self.steps]
        self.steps = self.at
        self._exchange(connection, b"".join(hiredis.pack_command(tuple(one)) for one in done), len(done))
        raise Cut

    def _between(self, connection: Connection, data: bytes, count: int, whole: bool) -> list[Any]:
        units = _units(data)
        if self.steps + len(units) < self.at:
            self.steps += len(units)
            return self._exchange(connection, data, count, whole)
        done = [command for unit in units[: self.at - self.steps] for command in unit]
        self.steps = self.at
        self._exchange(connection, b"".join(hiredis.pack_command(tuple(one)) for one in done), len(done))
        raise Cut


def _units(data: bytes) -> list[list[list[bytes]]]:
    """The commands, those of a transaction together."""
    units: list[list[list[bytes]]] = []
    in_one = False
    for command in _commands(data):
        if in_one:
            units[-1].append(command)
        else:
            units.append([command])
        in_one = command == [b"MULTI"] or (in_one and command != [b"EXEC"])
    return units


def _commands(data: bytes) -> list[list[bytes]]:
    reader = hiredis.Reader()
    reader.feed(data)
    return list(iter(reader.gets, False))


class Life:
    """What a process does with some jobs, and what it knows of them when it dies."""

    def __init__(self, storage: RedisStorage) -> None:
        self.storage = storage
        self.answered = False
        self.gone: set[int] = set()  # done or removed, and said so
        self.maybe: set[int] = set()  # a DONE or a removal was under way

    def run(self) -> None:
        storage = self.storage
        storage.push(PUSHES)
        self.answered = True
        assert [job.job_id for job in storage.lease(T, 4, A)] == [IDS[6], *IDS[:3]]
        self._settle(
            A,
            Settle(T, IDS[6], Outcome.RETRY, due_ms=5),
            Settle(T, IDS[0], Outcome.DONE),
            Settle(T, IDS[1], Outcome.DEAD, reason="bad"),
            Settle(T, IDS[2], Outcome.BACK, spent=False),
        )
        assert storage.promote(T, 2000) == (2, FAR - 1)
        assert [job.job_id for job in storage.lease(T, 3, A)] == [IDS[2], IDS[3], IDS[4]]
        storage.release(A, {(T, IDS[3])})
        assert storage.replay(T, [IDS[1]]) == 1
        assert len(storage.lease(T, 2, B)) == 2
        storage.push(PUSHES[1:4])
        self.maybe.add(IDS[7])
        assert storage.remove(T, [IDS[7], IDS[2]]) == 1
        self.gone.add(IDS[7])
        self._settle(B, Settle(T, IDS[2], Outcome.DONE), Settle(T, IDS[3], Outcome.RETRY, due_ms=7))
        (first,) = storage.lease(T, 1, B)
        self.maybe.add(first.job_id)
        count, leased = storage.settle_and_lease(B, [Settle(T, first.job_id, Outcome.DONE)], T, 3)
        self.gone.add(first.job_id)
        assert (count, len(leased or ())) == (1, 3)

    def _settle(self, owner: str, *batch: Settle) -> None:
        done = {one.job_id for one in batch if one.outcome is Outcome.DONE}
        self.maybe |= done
        assert self.storage.settle(owner, batch) == len(batch)
        self.gone |= done


def _assert_whole(storage: RedisStorage) -> None:
    """Every job that is there lies somewhere, and what is dead or delayed and counted is there."""
    listed = {state: {one.job_id for one in storage.peek(T, state, "", 100).jobs} for state in State}
    assert set().union(*listed.values()) == {job_id for job_id in IDS if storage.find(job_id, [T])}
    depth = storage.depth(T)
    assert (depth.delayed, depth.dead) == (len(listed[State.DELAYED]), len(listed[State.DEAD]))


def _repair(storage: RedisStorage, life: Life) -> Counter[int]:
    """What other processes do after the death; returns how often each job is there to run."""
    if not life.answered:
        storage.push(PUSHES)
    for owner in storage.owners():
        storage.release(owner, ())
    _assert_whole(storage)
    storage.promote(T, FAR)
    storage.replay(T, [job.job_id for job in storage.peek(T, State.DEAD).jobs])
    found: Counter[int] = Counter()
    while jobs := storage.lease(T, 5, "n2/worker.0/c"):
        found.update(job.job_id for job in jobs)
        for job in jobs:
            assert job.body == next(push.body for push in PUSHES if push.job_id == job.job_id)
    return found


@pytest.fixture
def redis(redis_server: Redis) -> Iterator[Redis]:
    redis_server.ask("FLUSHALL")
    redis_server.ask("CONFIG", "SET", "appendfsync", "no")  # an fsync a trip would make these many lives long
    yield redis_server
    redis_server.ask("CONFIG", "SET", "appendfsync", "always")


def _storage(redis: Redis, mode: str) -> RedisStorage:
    url = redis.pika_url if mode == "pika" else redis.url
    return RedisStorage(StorageConfig("main", "redis", Secret(url), mode), ManualClock())


def _all_cuts(
    redis: Redis, mode: str, monkeypatch: pytest.MonkeyPatch, knife: Callable[[int], Knife], check: Callable[..., None]
) -> int:
    """Live the life with a cut at step 1, 2, 3 … until one ends uncut; returns how many were cut."""
    for at in range(1, 1000):
        redis.ask("FLUSHALL")
        cutter, storage, other = knife(at), _storage(redis, mode), _storage(redis, mode)
        life = Life(storage)
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "exchange", cutter.method())
            try:
                life.run()
                cut = False
            except Cut:
                cut = True
        other.upkeep()
        other.upkeep()
        check(at, life, _repair(other, life))
        other.settle("n2/worker.0/c", [Settle(T, job_id, Outcome.DONE) for job_id in IDS])
        left = {key.decode().partition("}:")[2] for key in redis.ask("KEYS", f"pb:{{{T}}}:*")} - {"owners"}
        assert left <= ({"why"} if cutter.inside else set()), f"step {at} leaves {left}"
        storage.close()
        other.close()
        if not cut:
            return at - 1
    raise AssertionError("the life has no end")


@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize("mode", ["redis", "pika"])
def test_a_process_dies_between_any_two_trips(
    redis: Redis, mode: str, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(at: int, life: Life, found: Counter[int]) -> None:
        assert set(found) >= set(IDS) - life.maybe - life.gone, f"lost at step {at}: {found}"
        assert not set(found) & life.gone, f"run again at step {at}"
        assert not found or max(found.values()) == 1, f"twice at step {at}: {found}"

    cuts = _all_cuts(redis, mode, monkeypatch, lambda at: Knife(at, lost=lost), check)
    assert cuts > 20


def test_a_connection_dies_within_any_trip(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis has done the first commands of a pipeline when it ends."""

    def check(at: int, life: Life, found: Counter[int]) -> None:
        assert set(found) >= set(IDS) - life.maybe - life.gone, f"lost at step {at}: {found}"
        assert not set(found) & life.gone, f"run again at step {at}"
        assert not found or max(found.values()) == 1, f"twice at step {at}: {found}"

    cuts = _all_cuts(redis, "redis", monkeypatch, lambda at: Knife(at, between=True), check)
    assert cuts > 60


def test_a_pika_dies_within_any_transaction(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(at: int, life: Life, found: Counter[int]) -> None:
        assert set(found) >= set(IDS) - life.maybe - life.gone, f"lost at step {at}: {found}"
        assert not set(found) & life.gone, f"run again at step {at}"

    cuts = _all_cuts(redis, "pika", monkeypatch, lambda at: Knife(at, inside=True), check)
    assert cuts > 80
