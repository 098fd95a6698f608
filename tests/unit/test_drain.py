"""A topic from one storage to another: what moves, a crash at every step, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pepperbus.clock import ManualClock
from pepperbus.config.joboptions import Unique
from pepperbus.config.load import load
from pepperbus.config.sameness import Rule, rules
from pepperbus.errors import NotFound, PepperbusError, StorageUnavailable, StorageUnknown, UsageError
from pepperbus.job import Job, State
from pepperbus.log import Log
from pepperbus.operations import drain, queues
from pepperbus.storage import drains as store
from pepperbus.storage.contract import Once, Outcome, Past, Push, Settle
from pepperbus.storage.memory import MemoryStorage
from pepperbus.ticker.drains import Drains
from tests.unit.test_web import IDS, Place

TOPIC = "orders/mail"
OWNER = "test/ticker/2"


class Move:
    """Two storages, a drain on its record, and the ticker's part."""

    def __init__(self, directory: Path) -> None:
        self.place = Place(directory)
        node = directory / "node.conf"
        node.write_text(node.read_text() + "    [[other]]\n        type = embedded\n")
        self.place.office.take(load(node, {}))
        self.clock = ManualClock()
        config = self.place.office.config
        self.old = MemoryStorage(replace(config.storages["local"], name="local"), self.clock)
        self.new = MemoryStorage(replace(config.storages["other"], name="other"), self.clock)
        self.data_dir = config.bus.data_dir
        self.data_dir.mkdir(exist_ok=True)
        self.woken: list[str] = []
        self.storages: dict[str, Any] = {"local": self.old, "other": self.new}

    def begin(self) -> None:
        config = self.place.office.config
        queue = config.queues["orders"]
        moved = replace(queue, topics={"mail": replace(queue.topics["mail"], storage="other")})
        self.place.office.take(replace(config, queues={"orders": moved}))
        record = store.Drain(TOPIC, "local", "other", self.clock.now_ms(), "ann")
        store.update(self.data_dir, lambda known: known.update({TOPIC: record}))

    def ticker(self, owner: str = OWNER) -> Drains:
        log = Log("ticker", str(self.place.directory / "log"))
        return Drains(lambda: self.place.office.config, self.storages, self.clock, log, owner, self.woken.append)

    def record(self) -> store.Drain:
        return store.read(self.data_dir)[TOPIC]

    def fill(self) -> dict[State, list[int]]:
        """Some of everything in the old storage, with a past."""
        ids = [IDS.next() for _ in range(12)]
        now = self.clock.now_ms()
        self.old.push([Push(i, Job(i, "t", b"%d" % i, now).encode(), (TOPIC,)) for i in ids[:6]])
        self.old.push([Push(i, b"later", (TOPIC,), now + 60_000, past=Past(3, 1, now - 5)) for i in ids[6:8]])
        self.old.push([Push(i, b"gone", (TOPIC,), dead="boom", past=Past(20, 0, now - 9)) for i in ids[8:11]])
        leased = self.old.lease(TOPIC, 1, "test/worker.orders.0/1")
        return {
            State.READY: ids[1:6], State.DELAYED: ids[6:8], State.DEAD: ids[8:11], State.LEASED: [leased[0].job_id],
        }  # fmt: skip

    def lies(self, storage: MemoryStorage, state: State) -> list[int]:
        return sorted(one.job_id for one in storage.peek(TOPIC, state, "", 1000).jobs)


@pytest.fixture
def move(tmp_path: Path) -> Iterator[Move]:
    made = Move(tmp_path)
    yield made
    made.place.office.close()


def finish(ticker: Drains) -> None:
    for _ in range(50):
        if not ticker.round():
            return
    raise AssertionError("it never ends")


def test_everything_moves_with_its_past_and_what_runs_is_settled_where_it_lies(move: Move) -> None:
    ids = move.fill()
    move.begin()
    fresh = IDS.next()
    move.new.push([Push(fresh, b"new", (TOPIC,))])
    finish(move.ticker())
    assert move.lies(move.new, State.READY) == [*ids[State.READY], fresh]
    assert [one.job_id for one in move.new.peek(TOPIC, State.READY, "", 99).jobs][1:] == ids[State.READY], (
        "in their order"
    )
    assert move.lies(move.new, State.DELAYED) == ids[State.DELAYED]
    assert move.lies(move.new, State.DEAD) == ids[State.DEAD]
    (later,) = move.new.find(ids[State.DELAYED][0], [TOPIC])
    assert (later.attempts, later.crashes, later.due_ms) == (3, 1, move.clock.now_ms() + 60_000)
    (gone,) = move.new.find(ids[State.DEAD][0], [TOPIC])
    assert (gone.attempts, gone.reason) == (20, "boom")
    assert move.old.depth(TOPIC)[:4] == (0, 0, 1, 0), "what a worker has stays until it is settled"
    assert (move.record().state, move.record().left) == ("moving", 1)
    move.old.settle(
        "test/worker.orders.0/1", [Settle(TOPIC, ids[State.LEASED][0], Outcome.RETRY, move.clock.now_ms() + 90_000)]
    )
    ticker = move.ticker()
    finish(ticker)
    move.clock.advance(11)
    finish(ticker)
    record = move.record()
    assert (record.state, record.left, record.moved) == ("done", 0, 11)
    (again,) = move.new.find(ids[State.LEASED][0], [TOPIC])
    assert (str(again.state), again.attempts) == ("delayed", 1)
    assert move.woken


@pytest.mark.parametrize("kind", [StorageUnavailable, StorageUnknown])
@pytest.mark.parametrize("step", ["swap before", "swap after", "remove", "settle", "killed"])
def test_a_fault_at_any_step_loses_and_doubles_nothing(
    move: Move, monkeypatch: pytest.MonkeyPatch, step: str, kind: type[Exception]
) -> None:
    ids = move.fill()
    move.begin()
    ticker = move.ticker("test/ticker/1")
    verb = step.partition(" ")[0] if step != "killed" else "remove"
    where = move.new if verb == "swap" else move.old
    right = getattr(where, verb)
    left = 4

    def faulty(*words: Any) -> Any:
        nonlocal left
        left -= 1
        if left in (0, 2):
            if step == "swap after":
                right(*words)
            raise kind("a fault")
        return right(*words)

    monkeypatch.setattr(where, verb, faulty)
    monkeypatch.setattr("pepperbus.ticker.drains._STEP", 2)
    for _ in range(8):
        ticker.round()
        if step == "killed":  # and another takes its place; nobody gives back what the dead one held
            ticker = move.ticker(f"test/ticker/{left + 100}")
        done = [one.job_id for one in move.new.lease(TOPIC, 10, "test/worker.orders.0/2")]
        move.new.settle("test/worker.orders.0/2", [Settle(TOPIC, job_id, Outcome.DONE) for job_id in done])
        ids.setdefault(State("ready"), [])
        assert all(job_id in ids[State.READY] for job_id in done), "one that was done comes again"
        ids[State.READY] = [job_id for job_id in ids[State.READY] if job_id not in done]
    monkeypatch.undo()
    for _ in range(20):
        ticker.round()
    assert move.lies(move.new, State.READY) == ids[State.READY]
    assert move.lies(move.new, State.DELAYED) == ids[State.DELAYED]
    assert move.lies(move.new, State.DEAD) == ids[State.DEAD]
    assert move.old.depth(TOPIC)[:4] == (0, 0, 1, 0)
    assert {one.crashes for one in move.new.peek(TOPIC, State.READY, "", 99).jobs} <= {0}, "a move is no crash"


def test_what_a_dead_ticker_copied_is_never_back_in_line(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of a node that has not read the new file looks for jobs while the next ticker cleans up."""
    move.fill()
    move.begin()

    def dies(*words: Any) -> Any:
        raise StorageUnavailable("killed between copying and removing")

    monkeypatch.setattr(move.old, "remove", dies)
    move.ticker("test/ticker/1").round()
    monkeypatch.undo()
    copied = move.lies(move.new, State.READY)
    assert copied
    released = move.old.release

    def looked_at(*words: Any) -> Any:
        found = released(*words)
        assert not set(copied) & {one.job_id for one in move.old.lease(TOPIC, 100, "late/worker.orders.0/1")}
        return found

    monkeypatch.setattr(move.old, "release", looked_at)
    finish(move.ticker("test/ticker/2"))
    assert move.lies(move.new, State.READY) == copied


@pytest.mark.parametrize("due_s", [1, 10])
def test_a_delayed_job_that_becomes_due_while_it_is_copied_runs_once(
    move: Move, monkeypatch: pytest.MonkeyPatch, due_s: int
) -> None:
    """A worker that has not been reloaded yet looks for due jobs of the old storage in the middle of every step."""
    now_ms, slow_s, late = move.clock.now_ms(), 12, "late/worker.orders.0/1"
    soon, far = [IDS.next() for _ in range(120)], [IDS.next() for _ in range(3)]
    move.old.push([Push(i, b"soon", (TOPIC,), now_ms + due_s * 1000) for i in soon])
    move.old.push([Push(i, b"far", (TOPIC,), now_ms + 3_600_000) for i in far])
    move.begin()
    ran: list[int] = []
    swap = move.new.swap

    def slowly(*words: Any) -> str:
        said = swap(*words)
        move.clock.advance(slow_s)
        move.old.promote(TOPIC, move.clock.now_ms())
        ran.extend(one.job_id for one in move.old.lease(TOPIC, 10, late))
        return said

    monkeypatch.setattr(move.new, "swap", slowly)
    ticker = move.ticker()
    finish(ticker)
    move.old.settle(late, [Settle(TOPIC, job_id, Outcome.DONE) for job_id in ran])
    move.clock.advance(due_s)
    finish(ticker)
    copied = move.lies(move.new, State.READY) + move.lies(move.new, State.DELAYED)
    assert ran, "else this shows nothing"
    assert sorted(copied + ran) == sorted(soon + far), "each once, here or there"
    assert move.lies(move.new, State.DELAYED) == far
    assert move.record().state == "done"


def test_what_makes_a_job_the_only_one_of_its_kind_comes_with_it(move: Move) -> None:
    config = move.place.office.config
    mail = config.queues["orders"].topics["mail"]

    def unique(rule: Unique, *storages: str) -> Rule:
        """The rule of orders/mail, beside other topics of the queue with the same one."""
        topics = {
            name: replace(mail, name=name, storage=storage, unique=rule)
            for name, storage in zip(("mail", "audit"), storages, strict=False)
        }
        queue = replace(config.queues["orders"], topics=topics)
        move.place.office.take(replace(config, queues={"orders": queue}))
        return rules(queue, [TOPIC])[0]

    def push(storage: MemoryStorage, rule: Rule, content: bytes) -> tuple[int, int]:
        job = Job(IDS.next(), "t", content, move.clock.now_ms())
        pushed = Push(job.id, job.encode(), rule.topics)
        if not (name := rule.name(content)):
            return job.id, len(storage.push([pushed]))
        return job.id, storage.push_once([Once(pushed, name, rule.ttl_ms, rule.alive)])[0]

    held, timed = Unique("order", "order", 0.0), Unique("order 1m", "order", 60.0)
    for known in (held, timed):
        before = unique(known, "local", "local")
        first = [push(move.old, before, b'{"order": %d}' % n)[0] for n in range(3)]
        free, _ = push(move.old, before, b'{"other": 1}')
        (leased,) = move.old.lease(TOPIC, 1, "test/worker.orders.0/1")
        move.old.settle("test/worker.orders.0/1", [Settle(TOPIC, leased.job_id, Outcome.DEAD, reason="boom")])
        after = unique(known, "other", "local")
        record = store.Drain(TOPIC, "local", "other", move.clock.now_ms(), "ann")
        store.update(move.data_dir, lambda all, record=record: all.update({TOPIC: record}))
        finish(move.ticker())
        assert {*first, free} <= {one.job_id for state in State for one in move.new.peek(TOPIC, state, "", 99).jobs}
        for n in (1, 2):
            assert push(move.new, after, b'{"order": %d}' % n)[1] == first[n]
        mine, holder = push(move.new, after, b'{"order": 0}')
        assert mine == holder, "the dead hold nothing"
        stays = unique(known, "other", "local")
        assert stays.before == after.before
        move.clock.advance(3_600.0)


def test_a_topic_that_goes_leaves_the_others_their_names(move: Move) -> None:
    """One of two topics moves away: what the other has waiting is still known."""
    config = move.place.office.config
    mail = replace(config.queues["orders"].topics["mail"], unique=Unique("order 60s", "order", 60.0))
    both = {"mail": mail, "audit": replace(mail, name="audit", unique=Unique("order 1m", "order", 60.0))}
    moved = {**both, "mail": replace(mail, storage="other")}
    queues_ = [replace(config.queues["orders"], topics=topics) for topics in (both, moved)]
    (before,), (after,) = (rules(queue, ["orders/audit"]) for queue in queues_)
    assert before.name(b'{"order": 1}') == after.name(b'{"order": 1}')
    (elsewhere,) = rules(queues_[1], [TOPIC])
    assert elsewhere.before != after.before, "two storages may be one server"


def test_a_record_that_cannot_be_written_does_not_end_the_drains(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = move.fill()
    move.begin()
    ticker = move.ticker()

    def full(*words: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "update", full)
    assert ticker.round() == 0
    monkeypatch.undo()
    finish(ticker)
    assert move.lies(move.new, State.READY) == ids[State.READY]


def test_a_drain_that_cannot_go_on_says_why_and_goes_on(move: Move) -> None:
    move.fill()
    move.begin()
    other = move.storages.pop("other")
    ticker = move.ticker()
    assert ticker.round() == 0
    assert move.record().trouble == "storage other is not open"
    move.storages["other"] = other
    finish(ticker)
    assert move.record().trouble == ""
    config = move.place.office.config
    queue = config.queues["orders"]
    back = replace(queue, topics={"mail": replace(queue.topics["mail"], storage="local")})
    move.place.office.take(replace(config, queues={"orders": back}))
    assert move.ticker().round() == 0
    assert "but its file names local" in move.record().trouble


def test_the_operation_changes_the_file_and_refuses_what_would_strand_jobs(move: Move) -> None:
    office = move.place.desk.itself
    move.place.push(3)
    file = move.place.directory / "queues.d" / "orders.conf"
    with pytest.raises(PepperbusError, match=r"3 jobs of orders/mail lie in local .* storage drain orders/mail other"):
        queues.change(office, "orders", {"storage": "other"})
    with pytest.raises(NotFound, match="no storage 'none'"):
        drain.drain(office, "orders", "none")
    with pytest.raises(UsageError, match="lies in local already"):
        drain.drain(office, "orders", "local")
    assert drain.drains(office) == []
    office.storage("local").set_paused(TOPIC, True)
    done = drain.drain(office, "orders", "other")
    assert (done.what, done.reloaded) == ("changed", False)
    assert "storage = other" in file.read_text()
    assert office.storage("other").paused() == {TOPIC}
    (record,) = drain.drains(office)
    assert (record.topic, record.source, record.target, record.state) == (TOPIC, "local", "other", "moving")
    move.place.office.take(load(move.place.directory / "node.conf", {}))
    with pytest.raises(PepperbusError, match="still on its way from local to other"):
        drain.drain(move.place.desk.itself, TOPIC, "local")
    assert "orders/mail" in move.place.text("/storage")
