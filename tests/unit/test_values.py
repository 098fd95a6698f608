"""The ground floor: ids, jobs, names, the log's one line, statistics in shared memory."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepperbus import stats
from pepperbus.clock import ManualClock
from pepperbus.counted import Reader
from pepperbus.ids import EPOCH_MS, IdGenerator, id_time_ms, parse_id
from pepperbus.job import Job, job_json
from pepperbus.log import Log
from pepperbus.names import is_name, split_topic
from tests.fixtures.ids import floor_id

# -- ids ---------------------------------------------------------------------------------------------------------------


def test_id_layout():
    clock = ManualClock(EPOCH_MS + 260_000_000_005)
    made = IdGenerator(2, 3, clock.now_ms).next()
    assert made == 1 << 63 | 260_000_000_005 << 24 | 2 << 18 | 3 << 14
    assert len(str(made)) == 20
    assert id_time_ms(made) == EPOCH_MS + 260_000_000_005
    assert parse_id(str(made)) == made


@given(st.lists(st.integers(-50, 50), max_size=200))
def test_ids_rise_whatever_the_clock_does(steps):
    clock = ManualClock()
    ids = IdGenerator(2, 0, clock.now_ms)
    made = []
    for step in steps:
        clock.advance(step / 1000)
        made.append(ids.next())
    assert made == sorted(set(made))


def test_more_than_a_millisecond_holds():
    clock = ManualClock()
    ids = IdGenerator(2, 0, clock.now_ms)
    made = [ids.next() for _ in range(40_000)]
    assert made == sorted(set(made))
    assert ids.high_water_ms > clock.now_ms()
    successor = IdGenerator(2, 0, clock.now_ms, start_ms=ids.high_water_ms + 1)
    assert successor.next() > made[-1]


def test_processes_never_meet():
    clock = ManualClock()
    made = [IdGenerator(shard, slot, clock.now_ms).next() for shard in (2, 63) for slot in range(16)]
    assert len(set(made)) == len(made)
    assert all(one >= floor_id(clock.now_ms()) for one in made)


@pytest.mark.parametrize("text", ["", "12", "x" * 20, "9" * 20, "0" * 20, "٣" * 20, "13616617215041224705x"])
def test_no_id(text):
    with pytest.raises(ValueError, match="not a job id"):
        parse_id(text)


# -- jobs --------------------------------------------------------------------------------------------------------------


@given(st.integers(1 << 63, (1 << 64) - 1), st.text(max_size=40), st.binary(max_size=300), st.text(max_size=300))
def test_a_job_survives_being_stored(job_id, trace, content, client):
    job = Job(job_id, trace, content, 1_800_000_000_000, client)
    read = Job.decode(job.encode())
    assert (read.id, read.trace, read.content, read.accepted_ms) == (job_id, trace, content, 1_800_000_000_000)
    assert client.encode().startswith(read.client.rstrip("�").encode())


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x02" + b"x" * 50])
def test_other_bytes_are_no_job(body):
    with pytest.raises(ValueError, match="stored job"):
        Job.decode(body)


@given(st.binary(max_size=200))
def test_json_of_any_content(content):
    read = json.loads(job_json(Job(1 << 63, 'tr"ace', content), 2, 1_700_000_000, True, 60))
    keys = [
        "id",
        "inTraceId",
        "content",
        "retrying",
        "RetryTimes",
        "RetryTime",
        "IsRetry",
        "BeginRetry",
        "RetryResidueTime",
    ]
    assert list(read)[:9] == keys
    if "encoding" in read:
        import base64

        assert base64.b64decode(read["content"]) == content
    else:
        assert read["content"].encode() == content
    assert (read["RetryTimes"], read["BeginRetry"], read["IsRetry"], read["RetryResidueTime"]) == (2, True, True, 60)


def test_names():
    assert is_name("orders-2.x_y")
    assert not any(is_name(text) for text in ("", "a/b", "-a", "a b", "ä", "a" * 129, "a\n"))
    assert split_topic("orders/mail") == ("orders", "mail")
    with pytest.raises(ValueError, match="QUEUE/TOPIC"):
        split_topic("orders")


# -- log ---------------------------------------------------------------------------------------------------------------


def test_one_event_is_one_line(tmp_path):
    log = Log("worker.q.0", file=str(tmp_path / "log"), errors=str(tmp_path / "errors"))
    log.info("quiet", "nothing wrong")
    log.warning("attempt_failed", "sendToCGI fail:\n\x1b[31mboom", topic="q/t", text='a "b"')
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.endswith("info worker.q.0 action=quiet - nothing wrong")
    assert second.endswith(
        'warning worker.q.0 action=attempt_failed topic=q/t text="a \\"b\\"" - sendToCGI fail:\\n\\x1b[31mboom'
    )
    assert (tmp_path / "errors").read_text().splitlines() == [second]


def test_json_log_and_reopen(tmp_path):
    log = Log("web", file=str(tmp_path / "log"), format="json")
    log.info("one", topic="q/t")
    (tmp_path / "log").rename(tmp_path / "log.1")
    log.info("two")
    log.reopen()
    log.info("three")
    assert [json.loads(line)["action"] for line in (tmp_path / "log.1").open()] == ["one", "two"]
    assert [json.loads(line)["action"] for line in (tmp_path / "log").open()] == ["three"]


def test_a_full_disk_never_reaches_the_caller(tmp_path):
    log = Log("web", file="/dev/full")
    log.info("one")
    assert log.dropped == 1


def test_what_is_no_unicode_is_logged_all_the_same(tmp_path):
    for kind in ("text", "json"):
        log = Log("web", file=str(tmp_path / kind), format=kind)
        log.info("one", "half a \udc80 character", value="\udcff")
        assert "half a \\udc80 character" in (tmp_path / kind).read_text()
    assert json.loads((tmp_path / "json").read_text())["value"] == "\udcff"


STILL = """
from pepperbus.log import Log
log = Log("worker.0")
for n in range(40_000):
    log.info("one", "a line that nobody reads, " * 4)
print("alive", log.dropped > 0, flush=True)
"""


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_reader_of_standard_error_who_stands_still_does_not_stop_the_process(kind):
    """journald, a container's log driver, a supervisor: none of them may hold up the data path."""
    near, far = os.pipe() if kind == "pipe" else (one.detach() for one in socket.socketpair())
    try:
        done = subprocess.run([sys.executable, "-c", STILL], stdout=subprocess.PIPE, stderr=far, timeout=20, check=True)
    finally:
        os.close(near)
        os.close(far)
    assert done.stdout == b"alive True\n"


# -- statistics --------------------------------------------------------------------------------------------------------


def test_counts_outlive_the_process_and_add_up(tmp_path):
    pid = os.fork()
    if pid == 0:
        record = stats.Writer(tmp_path, "worker.q.0").record("q/t")
        record.add("done", 5)
        record.set("in_flight", 3)
        record.observe("run", 0.010)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    stats.Writer(tmp_path, "worker.q.0").record("q/t").add("done", 2)
    stats.Writer(tmp_path, "worker.q.1").record("q/t").add("done", 1)
    total = stats.read_all(tmp_path)["q/t"]
    assert total["done"] == 8
    assert total["in_flight"] == 0  # a gauge of a process that is gone
    assert total.histograms["run"].count == 1


def test_many_names_and_a_filter(tmp_path):
    writer = stats.Writer(tmp_path, "gateway.0")
    for i in range(100):
        writer.record(f"q{i}").add("pushed", i)
    assert len(stats.read_all(tmp_path)) == 100
    assert stats.read_all(tmp_path, ["q7"])["q7"]["pushed"] == 7


def test_a_lasting_reader_sees_what_every_reader_sees(tmp_path):
    """Names, files and chunks that come later, a file that another one replaces, a file that goes."""
    reader = Reader(tmp_path)
    assert reader.counters() == {}
    worker, gateway = stats.Writer(tmp_path, "worker.q.0"), stats.Writer(tmp_path, "gateway.0")
    for i in range(40):
        for writer in (worker, gateway):
            writer.record(f"q{i}").add("done", i + 1)
            writer.record(f"q{i}").observe("run", 0.001 * (i + 1))
        assert reader.counters() == {name: one.counters for name, one in stats.read_all(tmp_path).items()}
    worker.record("q7").set("state", 3)
    gateway.record("q8").set("state", 3)
    states = reader.worker_states()
    assert (states["q7"], states["q8"], len(states)) == ("stopped", "idle", 40)
    found = reader.totals(["q7", "nobody"])
    assert found.keys() == {"q7"}
    assert (found["q7"]["done"], found["q7"].histograms["run"].count) == (16, 2)
    gateway.path.unlink()
    assert reader.totals(["q7"])["q7"]["done"] == 8
    assert reader.counters() == {name: one.counters for name, one in stats.read_all(tmp_path).items()}


def test_a_lasting_reader_gives_the_same_again_while_nothing_moves(tmp_path):
    """What looks every second costs what moved, not what there is."""
    reader = Reader(tmp_path)
    worker, gateway = stats.Writer(tmp_path, "worker.q.0"), stats.Writer(tmp_path, "gateway.0")
    for i in range(40):
        worker.record(f"q{i}").add("done", i + 1)
        gateway.record(f"q{i}").add("pushed", i + 1)
    before = reader.counters()
    assert reader.counters() is before
    gateway.record("q7").add("pushed")
    after = reader.counters()
    assert [name for name in after if after[name] is not before[name]] == ["q7"]
    assert (before["q7"][0], after["q7"][0], after["q7"][3]) == (8, 9, 8)
    stats.Writer(tmp_path, "gateway.0").record("q7").add("done", 100)
    assert reader.totals(["q7"])["q7"]["done"] == 108


@given(st.lists(st.floats(1e-6, 4000), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_percentiles_are_within_five_percent(values, q):
    histogram = stats.Histogram([0] * stats.BUCKETS)
    for value in values:
        histogram.buckets[stats.bucket(value * 1e6)] += 1
    exact = sorted(values)[min(len(values) - 1, max(0, -int(-q * len(values) // 1) - 1))]
    assert histogram.percentile(q) == pytest.approx(exact, rel=0.05)
