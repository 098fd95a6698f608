"""The journal's log files: what a process wrote is read back, whatever way it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import gevent
import msgspec

from pepperbus.journal import log
from pepperbus.journal.contract import Row

FIRST_ID = 1 << 63


def row(n: int, **fields: object) -> Row:
    return msgspec.structs.replace(Row("attempt", FIRST_ID + n, "orders/mail", 1_800_000_000_000 + n), **fields)


def rows_of(path: Path) -> list[Row]:
    return [found for found, _ in log.read(path.read_bytes())]


def test_rows_of_one_turn_are_in_the_file_after_it(tmp_path: Path) -> None:
    writer = log.LogWriter(tmp_path / "journal", "worker.orders.0", 16)
    for n in range(3):
        writer.add(row(n))
    assert log.files(tmp_path / "journal") == []
    gevent.sleep(0.001)
    (path,) = log.files(tmp_path / "journal")
    assert path.name.startswith("worker.orders.0.")
    assert [r.job_id - FIRST_ID for r in rows_of(path)] == [0, 1, 2]
    writer.close()


def test_everything_of_a_row_survives_and_long_parts_are_capped(tmp_path: Path) -> None:
    whole = Row(
        "attempt", FIRST_ID, "a/b", 1, 2, "node", "worker.a.0", "retry", 500, "E1", "why", "out", "in",
        "1.2.3.4:5", 6, 7.5, 8.5, b"b" * 9000, b"s" * 9000 + b"END", b"\xff\0c" * 100,
    )  # fmt: skip
    writer = log.LogWriter(tmp_path, "w", 16)
    writer.add(whole)
    writer.close()
    (found,) = rows_of(log.files(tmp_path)[0])
    assert (len(found.body), len(found.stderr), found.content) == (log.BODY_CAP, log.STDERR_CAP, whole.content[:16])
    assert found.stderr.endswith(b"END")
    assert msgspec.structs.replace(found, body=b"", stderr=b"", content=b"") == msgspec.structs.replace(
        whole, body=b"", stderr=b"", content=b""
    )


def test_every_torn_tail_is_recognised(tmp_path: Path) -> None:
    writer = log.LogWriter(tmp_path, "w", 16)
    writer.add(row(0))
    writer.add(row(1, reason="x" * 50))
    writer.close()
    data = log.files(tmp_path)[0].read_bytes()
    first_end = next(iter(log.read(data)))[1]
    for cut in range(first_end, len(data)):
        assert [end for _, end in log.read(data[:cut])] == [first_end]
    assert len(list(log.read(data[:-1] + bytes([data[-1] ^ 1])))) == 1


def test_a_lock_tells_whether_the_writer_lives(tmp_path: Path) -> None:
    writer = log.LogWriter(tmp_path, "w", 16)
    writer.add(row(0))
    writer.flush()
    fd = os.open(log.files(tmp_path)[0], os.O_RDONLY)
    assert not log.is_finished(fd)
    writer.close()
    assert log.is_finished(fd)
    os.close(fd)


def test_rotation_leaves_the_full_file_to_the_reader(tmp_path: Path) -> None:
    writer = log.LogWriter(tmp_path, "w", 16)
    writer.add(row(0, reason="x" * (log.ROTATE_BYTES + 1)))
    writer.flush()
    writer.add(row(1))
    writer.flush()
    first, second = log.files(tmp_path)
    with first.open() as old, second.open() as new:
        assert log.is_finished(old.fileno())
        assert not log.is_finished(new.fileno())
    writer.close()


def test_nothing_raises_and_drops_are_counted(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    writer = log.LogWriter(blocked, "w", 16)
    writer.add(row(0))
    writer.add(Row("attempt", "no int", "a/b", object()))  # type: ignore[arg-type]
    writer.flush()
    assert writer.dropped == 2
    writer.close()


def test_a_full_disk_costs_the_batch_and_not_the_file(tmp_path: Path) -> None:
    """RLIMIT_FSIZE cuts a write short exactly as a full disk does."""
    script = f"""
import resource, signal
from pathlib import Path
from pepperbus.journal import log
from pepperbus.journal.contract import Row
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = log.LogWriter(Path({str(tmp_path)!r}), "w", 1024)
def put(n, size):
    writer.add(Row("attempt", n, "a/b", n, content=b"x" * size)); writer.flush()
put(1, 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))
put(2, 1000)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
put(3, 10)
writer.close()
print(writer.dropped)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "1"
    assert [r.job_id for r in rows_of(log.files(tmp_path)[0])] == [1, 3]


def test_kill_9_in_mid_write_loses_at_most_the_tail(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from pepperbus.journal import log
from pepperbus.journal.contract import Row
writer = log.LogWriter(Path({str(tmp_path)!r}), "w", 1024)
n = 0
while True:
    n += 1
    writer.add(Row("attempt", n, "a/b", n, content=b"x" * 1000))
    if n % 20 == 0:
        writer.flush()
        print(n, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(50)][-1]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    found = [r.job_id for path in log.files(tmp_path) for r in rows_of(path)]
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= told
    with log.files(tmp_path)[0].open() as file:
        assert log.is_finished(file.fileno())
