"""The journal database: every row once, nothing invisible, old rows gone, searches bounded."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from pepperbus.journal import failures, log, reader, store
from pepperbus.journal.contract import Row
from pepperbus.journal.follow import Follower

FIRST_ID = (1 << 63) + 5
NOW = 1_800_000_000_000


def row(n: int, **fields: object) -> Row:
    plain = Row("attempt", FIRST_ID + n, "orders/mail", NOW + n, outcome="done", content=b"order %d" % n)
    return msgspec.structs.replace(plain, **fields)


def write(directory: Path, *rows: Row, process: str = "worker.orders.0") -> log.LogWriter:
    writer = log.LogWriter(directory, process, 1024)
    for one in rows:
        writer.add(one)
    writer.flush()
    return writer


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a busy machine finds less."""
    monkeypatch.setattr(reader, "SEARCH_SECONDS", 60.0)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def ids(rows: list[Row]) -> list[int]:
    return [one.job_id - FIRST_ID for one in rows]


def test_ingesting_twice_is_ingesting_once(tmp_path: Path, database: Path) -> None:
    writer = write(tmp_path, row(1), row(2))
    assert store.ingest(tmp_path, database).rows == 2
    assert store.ingest(tmp_path, database).rows == 0
    writer.add(row(3))
    writer.close()
    assert store.ingest(tmp_path, database, linger_s=0) == store.Ingested(
        1, store.Ingested.__len__ and _size(row(3)), 1, 0
    )
    assert log.files(tmp_path) == []
    assert ids(reader.Reader(database, tmp_path).search()) == [3, 2, 1]


def _size(one: Row) -> int:
    return len(msgspec.msgpack.encode(one)) + log.HEAD_BYTES


def test_a_position_forgotten_with_its_rows_is_a_fresh_start(tmp_path: Path, database: Path) -> None:
    """Rows and position are one transaction: a kill between them is not possible, a kill before both repeats both."""
    write(tmp_path, row(1)).close()
    store.ingest(tmp_path, database)
    for path in (*tmp_path.glob("journal.db*"),):
        path.unlink()
    store.ingest(tmp_path, database, linger_s=0)
    store.ingest(tmp_path, database, linger_s=0)
    assert ids(reader.Reader(database, tmp_path).search()) == [1]


def test_a_kill_9_of_the_ingesting_process_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, database: Path
) -> None:
    script = f"""
from pathlib import Path
from pepperbus.journal import store
store.BATCH_BYTES = 2000
print("go", flush=True)
while True:
    store.ingest(Path({str(tmp_path)!r}), Path({str(database)!r}), linger_s=0)
"""
    writer = log.LogWriter(tmp_path, "w", 1024)
    expected = 0
    for pause in (0.0, 0.003, 0.01, 0.02, 0.04):
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        end = time.monotonic() + pause
        while time.monotonic() < end or not pause:
            writer.add(row(expected))
            writer.flush()
            expected += 1
            if not pause and expected % 300 == 0:
                break
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert ids(reader.Reader(database, tmp_path).search(limit=10**6))[::-1] == list(range(expected))
    store.ingest(tmp_path, database)
    assert ids(reader.Reader(database, tmp_path).search(limit=10**6))[::-1] == list(range(expected))
    writer.close()


def test_files_of_killed_processes_are_read_to_the_torn_tail_and_deleted(tmp_path: Path, database: Path) -> None:
    write(tmp_path, row(1), row(2)).close()
    (path,) = log.files(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    assert store.ingest(tmp_path, database, linger_s=0)[2:] == (1, 1)
    assert ids(reader.Reader(database, tmp_path).search()) == [1]
    assert log.files(tmp_path) == []


def test_a_living_writers_file_stays_and_a_fresh_end_lingers(tmp_path: Path, database: Path) -> None:
    writer = write(tmp_path, row(1))
    store.ingest(tmp_path, database, linger_s=0)
    assert len(log.files(tmp_path)) == 1
    writer.close()
    store.ingest(tmp_path, database)
    assert len(log.files(tmp_path)) == 1
    store.ingest(tmp_path, database, linger_s=0)
    assert log.files(tmp_path) == []


def test_rows_that_are_not_ingested_yet_are_seen(tmp_path: Path, database: Path) -> None:
    journal = reader.Reader(database, tmp_path)
    assert journal.life(FIRST_ID) == []
    write(tmp_path, row(0, at_ms=NOW, attempt=1, outcome="retry"), row(1))
    assert ids(journal.life(FIRST_ID)) == [0]
    store.ingest(tmp_path, database)
    write(tmp_path, row(0, at_ms=NOW + 9, attempt=2), process="worker.orders.1")
    assert [one.attempt for one in journal.life(FIRST_ID)] == [1, 2]
    assert len(journal.search()) == 3


def test_searching(tmp_path: Path, database: Path) -> None:
    failed = {"outcome": "retry", "error_code": "E7", "reason": "Connection Refused"}
    write(tmp_path, row(1), row(2, **failed), row(3, topic="orders/audit", outcome="dead", reason="timeout"), row(44))
    journal = reader.Reader(database, tmp_path)
    for _ in range(2):  # from the log files, then from the database
        assert ids(journal.search(topic="orders/mail")) == [44, 2, 1]
        assert ids(journal.search(outcome="dead")) == [3]
        assert ids(journal.search(error="connection ref")) == [2]
        assert ids(journal.search(error="e7", topic="orders/audit")) == []
        assert ids(journal.search(since_ms=NOW + 3)) == [44, 3]
        assert ids(journal.search(text="order 4")) == [44]
        assert ids(journal.search(limit=2)) == [44, 3]
        store.ingest(tmp_path, database)


def test_a_long_search_stops_and_says_so(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, *(row(n) for n in range(20_000))).close()
    store.ingest(tmp_path, database, linger_s=0)
    journal = reader.Reader(database, tmp_path)
    assert journal.search(text="nowhere").complete
    monkeypatch.setattr(reader, "SEARCH_SECONDS", 0.0)
    assert not journal.search(text="nowhere").complete


def test_retention_by_age_and_by_bytes(tmp_path: Path, database: Path) -> None:
    write(tmp_path, *(row(n, content=b"x" * 1000) for n in range(30_000))).close()
    store.ingest(tmp_path, database, linger_s=0)
    journal = reader.Reader(database, tmp_path)
    assert store.retain(database, NOW + 10_000, 1 << 30) == 10_000
    assert journal.life(FIRST_ID + 9_999) == []
    assert ids(journal.life(FIRST_ID + 10_000)) == [10_000]
    before = database.stat().st_size
    assert store.retain(database, 0, 5 << 20) == 20_000
    store.ingest(tmp_path, database)
    assert before > 20 << 20
    assert store.retain(database, 0, 5 << 20) == 0


def test_failures_are_counted_by_error_in_the_database_as_in_the_log_files(tmp_path: Path, database: Path) -> None:
    hour = 3_600_000
    late = [row(n, at_ms=NOW + n * hour, outcome="retry", reason=f"order {n} is lost") for n in range(3)]
    write(tmp_path, row(7), row(8, outcome="dead", reason="order 8 is lost"), row(9, outcome="dead", code=500), *late)
    journal = reader.Reader(database, tmp_path)
    for _ in range(2):  # from the log files, then from the database
        counted = journal.failed("", NOW, NOW + 3 * hour)
        found = {failures.shape(failures.words(one.example)): one for one in counted.failures if one.example}
        sums = {text: (one.count, one.dead) for text, one in found.items()}
        assert sums == {"order … is lost": (4, 1), "Code …": (1, 1)}
        lost = found["order … is lost"]
        assert (counted.width_ms, lost.first_ms, lost.last_ms) == (hour, NOW, NOW + 2 * hour)
        assert [lost.bins.get(at) for at in range(counted.from_ms, NOW + 3 * hour, hour)] == [2, 1, 1]
        assert lost.example
        assert lost.example.job_id == FIRST_ID + 2
        assert not journal.failed("orders/audit", NOW, NOW + hour).failures
        assert journal.failed("orders/mail", NOW + 2 * hour, NOW + 3 * hour).failures[0].count == 1
        store.ingest(tmp_path, database)
    store.retain(database, NOW + 7 * hour, 1 << 30)
    assert not journal.failed("", 0, NOW + 9 * hour).failures


def test_texts_that_never_repeat_are_counted_as_one(tmp_path: Path, database: Path) -> None:
    letters = [f"no {'z' * (n % 20 + 1)} {'y' * (n // 20 + 1)}" for n in range(300)]
    write(tmp_path, *(row(n, outcome="dead", reason=text) for n, text in enumerate(letters))).close()
    store.ingest(tmp_path, database)
    found = reader.Reader(database, tmp_path).failed("", 0, NOW).failures
    assert len(found) == 201
    assert sum(one.count for one in found) == 300
    assert [one.count for one in found if one.key == failures.key("orders/mail", failures.OTHERS)] == [100]


def test_ingest_keeps_up(tmp_path: Path, database: Path) -> None:
    n = 40_000
    write(tmp_path, *(row(i, content=b"x" * 200, out_trace="t" * 25, in_trace="t" * 25) for i in range(n))).close()
    started = time.process_time()  # what others use of the machine is not ours to answer for
    assert store.ingest(tmp_path, database).rows == n
    rate = n / (time.process_time() - started)
    print(f"ingest: {rate:,.0f} rows/s of a core")
    assert rate > 10_000


def open_files(directory: Path) -> list[str]:
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed since, by another thread or by the listing itself
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [name for name in names if name.startswith(f"{directory}/w")]


def test_following_sees_every_row_once_also_of_files_that_come_and_go(tmp_path: Path, database: Path) -> None:
    writer = write(tmp_path, row(1))
    follower = Follower(tmp_path)
    assert follower.poll() == []
    writer.add(row(2))
    writer.close()
    write(tmp_path, row(3), process="worker.x.0").close()
    store.ingest(tmp_path, database)
    assert ids(follower.poll()) == [2, 3]
    store.ingest(tmp_path, database, linger_s=0)
    assert follower.poll() == []
    assert open_files(tmp_path) == []
    follower.close()


def test_reading_does_not_need_to_write(tmp_path: Path, database: Path) -> None:
    write(tmp_path, row(1)).close()
    store.ingest(tmp_path, database)
    before = database.read_bytes()
    assert ids(reader.Reader(database, tmp_path).search()) == [1]
    assert database.read_bytes() == before


def test_numbers_that_differ_are_one_error() -> None:
    """`within 3 s` and `within 3.01 s` stood as two lines on the page of errors."""
    shapes = {failures.shape(f"10.0.0.{n}:9000: no complete answer within {s} s") for n, s in ((7, "3"), (8, "3.01"))}
    assert shapes == {"…:…: no complete answer within … s"}
