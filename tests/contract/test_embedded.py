"""What only the embedded engine can suffer: several processes, kill -9, forks, full disks, damaged and foreign files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import lmdb
import pytest

from pepperbus.clock import ManualClock
from pepperbus.config.model import StorageConfig
from pepperbus.errors import StorageRefused, StorageUnavailable, StorageUnknown
from pepperbus.job import State
from pepperbus.storage import embedded_engine
from pepperbus.storage.contract import Outcome, Settle
from pepperbus.storage.embedded import EmbeddedStorage
from pepperbus.storage.embedded_compact import compact
from pepperbus.storage.embedded_layout import NUMBER
from pepperbus.storage.embedded_turn import Turn
from tests.contract.rig import Producer

A, ME = "orders/mail", "n1/w/1"


def opened(path: Path, map_size: int = 0) -> EmbeddedStorage:
    storage = EmbeddedStorage(StorageConfig("main", "embedded", path=path))
    storage.map_size = map_size or storage.map_size
    storage.open()
    return storage


@pytest.fixture(params=[60.0, 0.0], ids=["quick", "slow"])
def storage(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddedStorage]:
    """On a disk that counts as quick, and on one that counts as slow, whatever the disk is."""
    monkeypatch.setattr(embedded_engine, "_QUICK", request.param)
    monkeypatch.setattr(embedded_engine, "_SLOW", request.param)
    made = opened(tmp_path / "main")
    yield made
    made.close()


@pytest.fixture
def producer() -> Producer:
    return Producer(ManualClock())


PROGRAM = """
import os, sys, time
from gevent import monkey
monkey.patch_all()
from pathlib import Path
from tests.contract.rig import Producer
from tests.contract.test_embedded import A, opened
from pepperbus.clock import SystemClock
from pepperbus.storage.contract import Outcome, Settle
storage = opened(Path(sys.argv[1]))
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


class Child:
    """A process of its own that runs some lines with `storage` and `say`."""

    def __init__(self, path: Path, lines: str) -> None:
        command = [sys.executable, "-c", PROGRAM + lines, str(path)]
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True)
        assert self.process.stdout
        self.says = self.process.stdout

    def kill(self) -> list[str]:
        self.process.send_signal(signal.SIGKILL)
        return self.finish(-signal.SIGKILL)

    def finish(self, status: int = 0) -> list[str]:
        rest = self.says.read().splitlines()
        assert self.process.wait(30) == status
        self.says.close()
        return rest


# -- processes ---------------------------------------------------------------------------------------------------------

CONSUME = """
owner = f"n1/w/{os.getpid()}"
say("ready")
first = True
while A not in storage.paused():
    jobs = storage.lease(A, 7, owner)
    if jobs:
        say(*[job.job_id for job in jobs])
        assert storage.settle(owner, [Settle(A, job.job_id, Outcome.DONE) for job in jobs]) == len(jobs)
        if first:
            storage.push([Producer(SystemClock()).push(f"took/{os.getpid()}")])
        first = False
    time.sleep(0 if jobs else 0.01)
"""


def test_processes_never_share_a_job(storage: EmbeddedStorage, producer: Producer, tmp_path: Path) -> None:
    children = [Child(tmp_path / "main", CONSUME) for _ in range(3)]
    for child in children:
        assert child.says.readline() == "ready\n"
    batch = []
    with gevent.Timeout(60):  # until everyone got some
        while len(batch) < 600 or sum(topic.startswith("took/") for topic in storage.topics()) < 3:
            batch += producer.several(20, A)
            storage.push(batch[-20:])
        while storage.depth(A).ready:
            gevent.sleep(0.01)
    storage.set_paused(A, True)
    taken = [[int(word) for line in child.finish() for word in line.split()] for child in children]
    assert sorted(job_id for one in taken for job_id in one) == sorted(one.job_id for one in batch)
    assert storage.depth(A)[:4] == (0, 0, 0, 0)


GREEDY = """
producer = Producer(SystemClock())
topic = f"greedy/{os.getpid()}"
say("ready")
while A not in storage.paused():
    storage.push(producer.several(50, topic))
"""


def test_who_writes_all_the_time_leaves_others_their_turn(
    storage: EmbeddedStorage, producer: Producer, tmp_path: Path
) -> None:
    children = [Child(tmp_path / "main", GREEDY) for _ in range(3)]
    for child in children:
        assert child.says.readline() == "ready\n"
    waited = []
    for _ in range(50):
        began = time.monotonic()
        storage.push(producer.several(1, A))
        waited.append(time.monotonic() - began)
    storage.set_paused(A, True)
    for child in children:
        child.finish()
    assert sorted(waited)[25] < 0.5, waited  # three commits of others, each a few ms even on a busy machine


def test_the_turn_goes_to_who_waits(tmp_path: Path) -> None:
    """Who gives it away and wants it at once stands behind who waits; who waits keeps its place."""
    mine, waiting, third = (Turn(tmp_path) for _ in range(3))
    assert mine.try_take()
    assert not waiting.try_take()
    mine.give()
    assert not mine.try_take()
    assert not third.try_take()
    waiting.take()
    assert not third.try_take()
    waiting.give()
    third.take()
    third.give()
    assert waiting.try_take()
    for one in (mine, waiting, third):
        one.close()


PRODUCE = """
producer = Producer(SystemClock())
while True:
    batch = producer.several(3, A, "orders/stock")
    storage.push(batch)
    say(*[push.job_id for push in batch])
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_producer_loses_nothing_it_was_answered(tmp_path: Path, seed: int) -> None:
    child = Child(tmp_path / "main", PRODUCE)
    first = child.says.readline()
    time.sleep(random.Random(seed).uniform(0.0, 0.1))  # killed anywhere
    lines = [first, *child.kill()]
    answered = [int(word) for line in lines for word in line.split()]
    storage = opened(tmp_path / "main")
    there = [one.job_id for one in storage.peek(A, State.READY, n=100_000).jobs]
    assert set(there) >= set(answered)
    assert len(there) == len(set(there)) == storage.depth(A).ready == storage.depth("orders/stock").ready
    storage.close()


def test_a_killed_consumer_leaves_its_leases(storage: EmbeddedStorage, producer: Producer, tmp_path: Path) -> None:
    storage.push(producer.several(10, A))
    child = Child(tmp_path / "main", f"storage.lease(A, 4, '{ME}')\nsay('leased')\ntime.sleep(60)\n")
    assert child.says.readline() == "leased\n"
    child.kill()
    assert storage.owners() == [ME]
    assert len(storage.release(ME, None)) == 4
    assert len(storage.lease(A, 99, "n1/w/2")) == 10


HOLD = """
def hold(work):
    work.set_paused("half/done", True)
    say("inside")
    from gevent.monkey import get_original
    get_original("time", "sleep")(60)
storage._engine.write(hold)
"""


def test_a_kill_inside_a_transaction_frees_the_writer_lock(
    storage: EmbeddedStorage, producer: Producer, tmp_path: Path
) -> None:
    child = Child(tmp_path / "main", HOLD)
    assert child.says.readline() == "inside\n"
    child.kill()
    with gevent.Timeout(20):
        storage.push(producer.several(1, A))
    assert storage.paused() == set()
    assert storage.depth(A).ready == 1


def test_waiting_for_another_process_does_not_stop_the_hub(
    storage: EmbeddedStorage, producer: Producer, tmp_path: Path
) -> None:
    child = Child(tmp_path / "main", HOLD)
    assert child.says.readline() == "inside\n"
    push = gevent.spawn(storage.push, producer.several(1, A))
    gevent.sleep(0.2)  # would not come back if the hub waited inside C
    assert not push.ready()
    assert storage.depth(A).ready == 0  # reading waits for nobody
    child.kill()
    push.get(timeout=20)
    assert storage.depth(A).ready == 1


def test_a_storage_carried_over_a_fork_is_refused(storage: EmbeddedStorage, producer: Producer) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            storage.push(producer.several(1, A))
        except StorageUnavailable as error:
            os.write(write, str(error).encode())
        finally:
            storage.close()
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with open(read) as pipe:
        assert "before a fork" in pipe.read()
    storage.push(producer.several(1, A))
    assert storage.depth(A).ready == 1


# -- group commit ------------------------------------------------------------------------------------------------------


@contextmanager
def somebody_writes(storage: EmbeddedStorage) -> Iterator[None]:
    turn = Turn(storage._engine.path)
    turn.take()
    yield
    turn.give()
    turn.close()


def test_what_waits_is_committed_together(storage: EmbeddedStorage, producer: Producer) -> None:
    def transactions() -> int:
        return storage._engine._opened().env.info()["last_txnid"]

    before = transactions()
    with somebody_writes(storage):
        some = [gevent.spawn(storage.push, producer.several(1, A)) for _ in range(20)]
        gevent.sleep(0.05)
        assert storage.depth(A).ready == 0
    for one in some:
        one.get(timeout=20)
    assert transactions() - before == 1
    assert storage.depth(A).ready == 20


def test_what_is_submitted_in_one_turn_of_the_hub_is_committed_together(
    storage: EmbeddedStorage, producer: Producer
) -> None:
    storage.push(producer.several(3, A))
    before = storage._engine._opened().env.info()["last_txnid"]
    leased = gevent.spawn(storage.lease, A, 1, ME)
    pushed = gevent.spawn(storage.push, producer.several(1, A))
    gevent.joinall([leased, pushed], timeout=20)
    assert storage._engine._opened().env.info()["last_txnid"] == before + 1
    assert (len(leased.value), storage.depth(A).ready) == (1, 3)


def test_one_that_fails_does_not_spoil_the_others(storage: EmbeddedStorage, producer: Producer) -> None:
    def spoil(work) -> None:
        work.push(producer.several(1, A), None)
        raise ZeroDivisionError

    def fails() -> None:
        with pytest.raises(ZeroDivisionError):
            storage._engine.write(spoil)

    with somebody_writes(storage):
        all_of_them = [gevent.spawn(storage.push, producer.several(1, A)) for _ in range(3)]
        all_of_them.append(gevent.spawn(fails))
        all_of_them += [gevent.spawn(storage.push, producer.several(1, A)) for _ in range(3)]
        gevent.sleep(0.02)
    for one in all_of_them:
        one.get(timeout=20)
    assert storage.depth(A).ready == 6


def test_a_caller_that_gives_up_harms_nobody(storage: EmbeddedStorage, producer: Producer) -> None:
    with somebody_writes(storage), pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        storage.push(producer.several(1, A))
    storage.push(producer.several(1, A))
    assert storage.depth(A).ready == 2  # the abandoned one was stored: to its caller it is unknown


# -- the disk ----------------------------------------------------------------------------------------------------------


class Disk:
    """Stands between the engine and LMDB's environment: says what was synced, and takes its time to."""

    def __init__(self, storage: EmbeddedStorage) -> None:
        self.syncs = 0
        self.fails = False
        self._file = storage._engine._opened()
        self._env = self._file.env
        self._file.env = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def sync(self, force: bool) -> None:
        self.syncs += 1
        if self.fails:
            raise lmdb.DiskError("Input/output error")
        self._env.sync(force)


def test_an_answered_push_is_synced_and_a_lease_soon_is(storage: EmbeddedStorage, producer: Producer) -> None:
    """LMDB's own sync comes before the page that makes a commit valid: without another a power cut may undo it."""
    disk = Disk(storage)
    storage.push(producer.several(2, A))
    assert disk.syncs == 1
    began = time.monotonic()
    jobs = storage.lease(A, 2, ME)
    storage.settle(ME, [Settle(A, jobs[0].job_id, Outcome.DONE)])
    assert disk.syncs == 1 or time.monotonic() - began >= embedded_engine._LATE
    with gevent.Timeout(20):
        while disk.syncs == 1:
            gevent.sleep(0.01)
    before = disk.syncs
    storage.settle(ME, [Settle(A, jobs[1].job_id, Outcome.DONE)])
    storage.close()
    assert disk.syncs > before  # closing leaves nothing behind


@pytest.mark.parametrize("along", [False, True])
def test_a_lease_without_an_answer_is_given_back(storage: EmbeddedStorage, producer: Producer, along: bool) -> None:
    """Nobody has its jobs, and their owner lives: they would stay leased until it is replaced."""
    one, two, three = producer.several(3, A)
    storage.push([one, two])
    (first,) = storage.lease(A, 1, ME)
    Disk(storage).fails = True

    def lease() -> None:
        if along:
            storage.settle_and_lease(ME, [Settle(A, first.job_id, Outcome.DONE)], A, 1)
        else:
            storage.lease(A, 1, ME)

    def outcome(write: Callable[[], object]) -> type[Exception] | None:
        try:
            write()
        except Exception as error:
            return type(error)
        return None

    both = [gevent.spawn(outcome, write) for write in (lambda: storage.push([three]), lease)]
    gevent.joinall(both, timeout=20)
    assert [one.value for one in both] == [StorageUnknown, StorageUnknown]
    storage.settle(ME, [Settle(A, first.job_id, Outcome.DONE)])
    found = storage.lease(A, 9, ME)
    assert [(one.job_id, one.attempt) for one in found] == [(two.job_id, 1), (three.job_id, 1)]
    storage.settle(ME, [Settle(A, found[0].job_id, Outcome.DONE)])
    assert storage.depth(A)[:4] == (0, 0, 1, 0)


def test_a_sync_that_failed_is_not_made_good_by_one_that_has_nothing_to_write(
    storage: EmbeddedStorage, producer: Producer
) -> None:
    """The kernel reports a page it could not write once and then takes it for written."""

    def commits() -> int:
        return int(storage._engine._opened().env.info()["last_txnid"])

    batch = producer.several(1, A)
    before = commits()
    Disk(storage).fails = True
    with pytest.raises(StorageUnknown):
        storage.push(batch)
    storage.push(batch)  # it is there already
    assert commits() == before + 2
    storage.push(batch)
    assert commits() == before + 2
    assert storage.depth(A).ready == 1


def test_a_disk_that_gets_slow_no_longer_holds_up_the_hub(
    tmp_path: Path, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = opened(tmp_path / "main")
    engine = storage._engine
    clock = [0.0]
    took = 0.0001

    def monotonic() -> float:
        clock[0] += took
        return clock[0]

    monkeypatch.setattr(embedded_engine, "monotonic", monotonic)
    for _ in range(30):
        storage.push(producer.several(1, A))
    assert engine._quick
    took = 0.05
    storage.push(producer.several(1, A))
    assert not engine._quick
    took = 0.0001
    for _ in range(30):
        storage.push(producer.several(1, A))
    assert engine._quick
    storage.close()
    assert storage.durability == "power"


# -- full --------------------------------------------------------------------------------------------------------------


def fill(storage: EmbeddedStorage, producer: Producer) -> list[int]:
    stored: list[int] = []
    with pytest.raises(StorageUnavailable):
        for _ in range(100_000):
            batch = [producer.push(A, content=b"x" * 20_000) for _ in range(5)]
            storage.push(batch)
            stored += [one.job_id for one in batch]
    return stored


def can_drain(storage: EmbeddedStorage, producer: Producer, stored: list[int]) -> None:
    """Nothing of the refused batch is there, all of the others are, settling works, and then pushing does again."""
    assert storage.depth(A).ready == len(stored) > 0
    seen: list[int] = []
    while jobs := storage.lease(A, 10, ME):
        seen += [one.job_id for one in jobs]
        storage.settle(ME, [Settle(A, one.job_id, Outcome.DONE) for one in jobs])
    assert seen == stored
    gevent.sleep(0.25)  # the disk is asked for room five times a second
    storage.push(producer.several(1, A))
    assert storage.depth(A)[:4] == (1, 0, 0, 0)


def test_a_full_disk_is_an_answer_and_passes(tmp_path: Path, producer: Producer) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "pepperbus-test", str(directory)]
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    storage = opened(directory / "main")
    try:
        stored = fill(storage, producer)
        ballast = directory / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(StorageUnavailable):
            gevent.sleep(0.25)
            storage.push(producer.several(1, A))
        ballast.unlink()
        can_drain(storage, producer, stored)
    finally:
        storage.close()
        subprocess.run(["umount", str(directory)], check=True)


def test_a_full_map_is_an_answer_and_passes(tmp_path: Path, producer: Producer) -> None:
    storage = opened(tmp_path / "main", map_size=4 << 20)
    can_drain(storage, producer, fill(storage, producer))
    storage.close()


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "main").close()
    with lmdb.open(str(tmp_path / "main"), max_dbs=20) as env, env.begin(write=True) as txn:
        txn.put(b"format", NUMBER.pack(9), db=env.open_db(b"about", txn=txn))
    with pytest.raises(StorageRefused, match=r"format 9.*up to 1"):
        opened(tmp_path / "main")


def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "main").mkdir()
    file = tmp_path / "main" / "data.mdb"
    file.write_bytes(b"precious" * 1024)
    with pytest.raises(StorageRefused, match="not an LMDB file"):
        opened(tmp_path / "main")
    assert file.read_bytes() == b"precious" * 1024


def test_a_path_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable, match="file/main"):
        opened(tmp_path / "file" / "main")


def test_a_damaged_body_is_dead_with_a_reason(tmp_path: Path, producer: Producer) -> None:
    storage = opened(tmp_path / "main")
    batch = producer.several(3, A)
    storage.push(batch)
    storage.close()
    with lmdb.open(str(tmp_path / "main"), max_dbs=20) as env, env.begin(write=True) as txn:
        bodies = env.open_db(b"bodies", txn=txn)
        key, record = list(txn.cursor(bodies))[1]
        txn.put(key, record[:-1] + bytes([record[-1] ^ 1]), db=bodies)
    storage.open()
    assert [one.job_id for one in storage.lease(A, 2, ME)] == [batch[0].job_id, batch[2].job_id]
    (found,) = storage.find(batch[1].job_id, [A])
    assert (found.state, storage.depth(A)[:4]) == (State.DEAD, (0, 0, 2, 1))
    assert "damaged" in found.reason
    storage.close()


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_a_file_cut_off_is_never_silently_empty(tmp_path: Path, producer: Producer, keep: float) -> None:
    """Also it must not kill the process: the file is mapped, and reading behind its end would."""
    storage = opened(tmp_path / "main")
    storage.push([producer.push(A, content=b"x" * 3000) for _ in range(300)])
    storage.close()
    file = tmp_path / "main" / "data.mdb"
    os.truncate(file, int(file.stat().st_size * keep))
    look = f"""
print("open")
jobs = storage.lease(A, 1000, "{ME}")
depth = storage.depth(A)
assert depth.leased + depth.dead + depth.ready == 300 and len(jobs) < 300, depth
say("noticed")
"""
    command = [sys.executable, "-c", PROGRAM + look, str(tmp_path / "main")]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert run.returncode in (0, 1), run  # not killed by a signal
    assert "noticed" in run.stdout or "Storage" in run.stderr, run


def test_compact_gives_space_back(tmp_path: Path, producer: Producer) -> None:
    storage = opened(tmp_path / "main")
    storage.push([producer.push(A, content=b"x" * 10_000) for _ in range(300)])
    while jobs := storage.lease(A, 100, ME):
        storage.settle(ME, [Settle(A, one.job_id, Outcome.DONE) for one in jobs])
    kept = producer.several(3, A)
    storage.push(kept)
    storage.close()
    child = Child(tmp_path / "main", "say('open')\ntime.sleep(60)\n")
    assert child.says.readline() == "open\n"
    with pytest.raises(StorageRefused, match="in use"):
        compact(tmp_path / "main")
    child.kill()
    before, after = compact(tmp_path / "main")
    assert after < before / 5
    storage.open()
    assert [one.body for one in storage.lease(A, 9, ME)] == [one.body for one in kept]
    storage.close()


def test_health_names_sizes(storage: EmbeddedStorage, producer: Producer) -> None:
    empty = storage.health()
    storage.push([producer.push(A, content=b"x" * 100_000) for _ in range(10)])
    full = storage.health()
    assert full.used >= empty.used + 1_000_000
    assert full.limit > full.used
    assert full.version.startswith("LMDB 0.9")
    assert storage.reader_check() == 0
    storage.close()
    assert not storage.health().alive
