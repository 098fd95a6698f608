"""Places, window and breaker shared by processes; the in-flight table of a killed worker."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from pepperbus.delivery import slots as slots_module
from pepperbus.delivery import target as target_module
from pepperbus.delivery.contract import TargetEffect
from pepperbus.delivery.slots import CLOSED_UNTIL, HALVED_AT, WANTED, Slots
from pepperbus.delivery.target import Closed, Target
from pepperbus.stats import Writer
from pepperbus.worker.inflight import InFlight, forget, started, tables


class Clock:
    """For marks and waits of some milliseconds: it moves when a test says so, and a microsecond by each look at it."""

    def __init__(self):
        self.ns = time.monotonic_ns()

    def monotonic_ns(self):
        self.ns += 1000
        return self.ns

    def advance(self, seconds):
        self.ns += int(seconds * 1e9)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    made = Clock()
    for module in (slots_module, target_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic_ns=made.monotonic_ns))
    return made


HOLDER = """
import sys
from pathlib import Path
from pepperbus.delivery.slots import Slots
slots = Slots(Path(sys.argv[1]), 3)
assert slots.take() is not None and slots.take() is not None
print("held", flush=True)
sys.stdin.read()
"""


def test_places_count_over_processes_and_come_back_from_the_dead(tmp_path):
    path = tmp_path / "pool"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        slots = Slots(path, 3)
        place = slots.take()
        assert place is not None
        assert slots.take() is None
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert {slots.take(), slots.take()} == {0, 1, 2} - {place}
        assert slots.take() is None
    finally:
        holder.kill()
        holder.communicate()


def test_a_wanted_place_is_handed_over_at_once(tmp_path):
    first, second = Slots(tmp_path / "pool", 1), Slots(tmp_path / "pool", 1)
    place = first.take()
    assert second.take() is None
    first.give(place)
    assert second.take() == place


def test_who_gave_a_place_up_does_not_take_it_back_before_the_other_finds_it(tmp_path):
    first, second = Slots(tmp_path / "pool", 2), Slots(tmp_path / "pool", 2)
    places = [first.take(), first.take()]
    assert second.take() is None
    first.give(places[0])
    assert first.take() is None
    assert second.take() == places[0]


def test_places_are_shared_out_between_processes_that_want_all_of_them(tmp_path, clock):
    """Both use what they get for a millisecond at a time: who comes second works too, and no place lies idle for long."""
    both = [Slots(tmp_path / "pool", 4) for _ in range(2)]
    held = [[], []]
    turns = [0, 0]
    for _ in range(300):
        for number, slots in enumerate(both):
            if held[number]:
                slots.give(held[number].pop(0))
                turns[number] += 1
            while (place := slots.take()) is not None:
                held[number].append(place)
        clock.advance(0.001)
    assert min(turns) > 200, turns


def test_a_mark_that_nobody_heard_is_wiped_also_by_who_made_it(tmp_path, clock):
    first, second = Slots(tmp_path / "pool", 2), Slots(tmp_path / "pool", 2)
    place = second.take()
    first.take()
    first._content_at = 0
    assert first.take() is None
    assert first.words[WANTED]
    second.close()  # it is gone without a word
    first.words[WANTED] = first._content_at = clock.ns - 10**9
    first.give(1 - place)
    assert not first.words[WANTED]


def test_an_unwanted_place_stays_warm_until_cooled(tmp_path):
    first, second = Slots(tmp_path / "pool", 1), Slots(tmp_path / "pool", 1)
    first.give(first.take())
    assert second.take() is None
    first.cool()
    assert second.take() == 0


def test_who_waits_in_this_process_is_called_first(tmp_path):
    slots = Slots(tmp_path / "pool", 1)
    place = slots.take()
    called = []
    slots.waiting.append(lambda: called.append(slots.take()))
    slots.give(place)
    assert called == [place]


def test_window_halves_once_per_burst_and_grows_back(tmp_path):
    slots = Slots(tmp_path / "pool", 8)
    assert slots.window == 8
    slots.halve()
    slots.halve()
    assert slots.window == 4
    slots.words[HALVED_AT] = 0
    slots.halve()
    assert slots.window == 2
    for _ in range(100):
        slots.grow()
    assert slots.window == 8
    for _ in range(10):
        slots.words[HALVED_AT] = 0
        slots.halve()
    assert slots.window == 1


def make_target(tmp_path, needs_ping=False):
    return Target(Slots(tmp_path / "pool", 4), Slots(tmp_path / "topic", 4), needs_ping)


def test_down_closes_for_every_process_and_opens_for_every_process(tmp_path):
    one, two = make_target(tmp_path), make_target(tmp_path)
    one.report(TargetEffect.DOWN, "connect: refused")
    assert two.closed() is Closed.DOWN
    assert 0 < two.probe_in() < 0.2
    two.reachable()
    assert one.closed() is Closed.OPEN


def test_busy_opens_by_itself(tmp_path, clock):
    target = make_target(tmp_path)
    target.report(TargetEffect.BUSY)
    assert target.closed() is Closed.BUSY
    assert target.pool.window == 2
    clock.ns = target.pool.words[CLOSED_UNTIL]
    assert target.closed() is Closed.OPEN


def test_stopped_topic_leaves_its_neighbours_alone(tmp_path):
    target = make_target(tmp_path)
    neighbour = Target(target.pool, Slots(tmp_path / "other", 4), False)
    target.report(TargetEffect.STOPPED, "Primary script unknown: /x.php")
    assert target.closed() is Closed.STOPPED
    assert target.why == "Primary script unknown: /x.php"
    assert neighbour.closed() is Closed.OPEN
    target.report(TargetEffect.FINE)
    assert target.closed() is Closed.OPEN


def test_sdk_topic_is_closed_until_its_ping_lists_it(tmp_path):
    target = make_target(tmp_path, needs_ping=True)
    assert target.closed() is Closed.UNREGISTERED
    assert target.probe_in() == 0
    target.pinged(True)
    assert target.closed() is Closed.OPEN
    target.unregister("404")
    assert target.closed() is Closed.UNREGISTERED


def test_probes_of_a_down_target_back_off_to_less_than_two_seconds(tmp_path):
    target = make_target(tmp_path)
    waits = []
    for _ in range(12):
        target.report(TargetEffect.DOWN)
        waits.append(target.probe_in())
    assert waits[0] < 0.13
    assert max(waits) < 2.0


def test_breaker_opens_when_most_exchanges_are_cut(tmp_path):
    target = make_target(tmp_path)
    for _ in range(15):
        target.report(TargetEffect.FINE)
    for _ in range(15):
        target.report(TargetEffect.STRAINED, "cut")
    assert target.closed() is Closed.OPEN
    target.report(TargetEffect.STRAINED, "cut")
    assert target.closed() is Closed.STRAINED


def test_http_topic_takes_one_place_not_two(tmp_path):
    slots = Slots(tmp_path / "topic", 1)
    target = Target(slots, slots, False)
    places = target.take(lambda: None)
    assert places is not None
    target.give(places)
    assert target.take(lambda: None) is not None


def test_table_tells_begun_from_waiting_after_a_kill(tmp_path):
    owner = "node/worker.q.0/b.1"
    pid = os.fork()
    if pid == 0:
        table = InFlight(tmp_path, owner)
        table.begin("q/a", 5)
        ended = table.begin("q/b", 6)
        table.begin("q/b", 7)
        table.end(ended)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert tables(tmp_path) == [owner]
    assert started(tmp_path, owner) == {("q/a", 5), ("q/b", 7)}
    forget(tmp_path, owner)
    assert started(tmp_path, owner) is None
    assert tables(tmp_path) == []


def test_mapped_files_have_their_blocks_so_that_a_full_disk_ends_no_process(tmp_path):
    Slots(tmp_path / "pool", 2)
    InFlight(tmp_path, "node/worker.0/boot")
    writer = Writer(tmp_path / "stats", "worker.0")
    for n in range(40):
        writer.record(f"queue-{n}")
    for path in (tmp_path / "pool", tmp_path / "inflight" / "node~worker.0~boot", writer.path):
        facts = path.stat()
        assert facts.st_blocks * 512 >= facts.st_size


def test_a_full_disk_keeps_no_topic_from_its_first_job(tmp_path):
    """Whoever begins a job must not fail: it would be leased, and its place taken, for as long as the worker lives."""
    code = """
import os, resource, sys
from pathlib import Path
from pepperbus.worker.inflight import InFlight, started
where = Path(sys.argv[1])
table = InFlight(where, "node/worker.0/boot")
size = os.stat(table.path).st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
begun = {(f"orders-of-a-queue/topic-{n}", n) for n in range(1000)}
for topic, job_id in begun:
    table.begin(topic, job_id)
assert started(where, "node/worker.0/boot") == begun
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_damaged_table_blames_everybody_and_stops_nobody(tmp_path):
    table = InFlight(tmp_path, "node/worker.0/boot")
    table.begin("orders/mail", 1 << 63)
    whole = table.path.read_bytes()
    for damaged in (whole[:65536], whole[:65536] + b"\xff\n", whole[:1000]):
        table.path.write_bytes(damaged)
        assert started(tmp_path, "node/worker.0/boot") is None


def test_warm_places_are_handed_over_although_another_place_is_in_use(tmp_path):
    """One long job must not keep the other places of a shared pool from the workers of other groups."""
    first, second = Slots(tmp_path / "pool", 2), Slots(tmp_path / "pool", 2)
    places = [first.take(), first.take()]
    first.give(places[0])
    assert second.take() is None
    first.cool()
    assert second.take() == places[0]
