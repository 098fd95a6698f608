"""Replays: planned from a snapshot, carried out at their rate, followed through the journal, exact over any crash."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pepperbus.clock import ManualClock
from pepperbus.config.canary import Canary
from pepperbus.errors import NotFound, StorageUnavailable, UsageError
from pepperbus.job import Job, State
from pepperbus.journal import store as journal_store
from pepperbus.journal.finished import Finished, Keeping, topics_with_history
from pepperbus.log import Log
from pepperbus.operations import life, purge, replays
from pepperbus.operations.jobs import select
from pepperbus.operations.office import Office
from pepperbus.operations.replays import ReplayView
from pepperbus.replay import planning, plans, store
from pepperbus.replay.store import Replays
from pepperbus.storage.contract import Outcome, Settle
from pepperbus.ticker import replay_moves as moves
from pepperbus.ticker import replay_plans
from pepperbus.ticker.replays import Parts, Runner
from tests.fixtures.http import RawServer, raw_server, read_request
from tests.unit.test_operations import MAIL, Shop, directory, office, shop  # noqa: F401

OWNER = "n1/w/b"


class Works:
    """The ticker's part, one turn at a time."""

    def __init__(self, office: Office, shop: Shop) -> None:  # noqa: F811
        self.office, self.shop = office, shop
        self.store = Replays(office.config.bus.data_dir)
        log = Log("ticker", "/dev/null")
        self.parts = Parts(
            lambda: office.config, {"local": shop.storage}, shop.journal, office.clock, log, lambda topic: None
        )
        self.runner: Runner | None = None

    def plan(self, **options: Any) -> ReplayView:
        words = {name: options.pop(name) for name in ("ids", "state", "error", "text") if name in options}
        return replays.plan(self.office, replays.wish(MAIL, **words), go=options.pop("go", True), **options)

    def turn(self, number: int) -> ReplayView:
        """As a ticker does it; the journal's rows are in their database before."""
        self.turn_journal()
        assert isinstance(self.office.clock, ManualClock)
        self.office.clock.advance(0.1)
        self.runner = self.runner or Runner(self.parts, self.store, number)
        self.runner.turn()
        return replays.show(self.office, number)

    def turn_journal(self) -> None:
        data_dir = self.office.config.bus.data_dir
        journal_store.ingest(data_dir / "journal", data_dir / "journal.db")
        Finished(data_dir).ingest()

    def until(self, number: int, good: Callable[[ReplayView], object]) -> ReplayView:
        for _ in range(400):
            if good(seen := self.turn(number)):
                return seen
        raise AssertionError(replays.show(self.office, number))

    def ended(self, number: int) -> ReplayView:
        return self.until(number, lambda seen: seen.state not in ("planning", "gray", "running"))

    def work(self, n: int, outcome: Outcome, due_ms: int = 0) -> list[int]:
        """What workers do with `n` ready jobs."""
        ids = []
        for one in self.shop.storage.lease(MAIL, n, OWNER):
            self.shop.storage.settle(OWNER, [Settle(MAIL, one.job_id, outcome, due_ms, "again")])
            job = Job.decode(one.body)
            facts = {"in_trace": job.trace, "client": job.client, "accepted_ms": job.accepted_ms}
            self.shop.row(one.job_id, outcome=outcome.value, content=job.content, **facts)
            ids.append(one.job_id)
        return ids

    def depth(self) -> tuple[int, ...]:
        return self.shop.storage.depth(MAIL)[:4]


@pytest.fixture
def works(office: Office, shop: Shop) -> Works:  # noqa: F811
    return Works(office, shop)


def test_what_matches_is_a_snapshot(works: Works, shop: Shop, office: Office) -> None:  # noqa: F811
    timeouts = shop.kill(b"a", b"b", reason="timeout")
    shop.kill(b"c", reason="refused")
    plan = works.plan(error="timeout", dry_run=True)
    assert (plan.id, plan.matched, plan.jobs, plan.dry_run) == (0, 2, 2, True)
    assert replays.listing(office) == []
    made = works.plan(error="timeout")
    shop.kill(b"d", reason="timeout")  # later: not part of it
    seen = works.ended(made.id)
    assert (seen.state, seen.replayed, seen.left, seen.words) == ("done", 2, 0, {"error": "timeout"})
    assert works.depth() == (2, 0, 0, 2)
    events = life.life(office, str(timeouts[0])).topics[0].events
    assert [event.event for event in events] == ["attempt", "replayed"]
    assert f"replay {made.id}, planned by" in events[1].reason
    assert [deed.what for deed in seen.deeds] == ["plan", "go", "done"]
    assert works.plan(error="nothing like it").id == 0


def test_the_content_selects_too(works: Works, shop: Shop) -> None:  # noqa: F811
    shop.kill(b"order 17", b"order 18")
    assert works.plan(text="order 18", dry_run=True).matched == 1


def test_an_unknown_job_is_refused_before_any_moves(works: Works, shop: Shop) -> None:  # noqa: F811
    (job_id,) = shop.kill(b"a")
    waits = shop.push(b"b", due_ms=10**13)[0]
    with pytest.raises(NotFound):
        works.plan(ids=(str(job_id), "10000000000000000001"))
    with pytest.raises(UsageError, match=f"job {waits} is delayed, not dead"):
        works.plan(ids=(str(job_id), str(waits)))
    assert works.ended(works.plan(ids=(str(job_id),)).id).replayed == 1


def test_it_keeps_its_rate(works: Works, shop: Shop) -> None:  # noqa: F811
    shop.kill(*[b"x"] * 30)
    made = works.plan(rate=20.0)
    started = time.monotonic()
    while (seen := works.turn(made.id)).state == "running":
        assert seen.replayed <= 2 + (time.monotonic() - started) * 20
        time.sleep(0.02)
    assert seen.replayed == 30


def test_it_stops_when_too_many_fail_again(works: Works, shop: Shop) -> None:  # noqa: F811
    shop.kill(*[b"x"] * 200)
    made = works.plan(stop_at_errors=0.3)
    works.turn(made.id)
    assert works.depth()[0] == 10, "first a few"
    works.work(6, Outcome.DONE)
    works.work(1, Outcome.RETRY, 10**13)
    works.work(3, Outcome.DEAD)
    seen = works.until(made.id, lambda seen: seen.state == "stopped")
    assert (seen.succeeded, seen.failing, seen.failed) == (6, 1, 3)
    assert seen.why == "4 of 10 failed again (40%; the limit is 30%)"
    assert seen.can == ["resume", "cancel"]
    before = works.depth()[0]
    works.turn(made.id)
    assert works.depth()[0] == before
    works.work(500, Outcome.DONE)
    replays.steer(works.office, made.id, "resume")
    while (seen := works.turn(made.id)).state == "running":  # counted anew, so that it goes on
        works.work(500, Outcome.DONE)
    assert (seen.state, seen.replayed) == ("done", 200)


def test_a_first_share_then_somebody_decides(works: Works, shop: Shop) -> None:  # noqa: F811
    shop.kill(*[b"x"] * 40)
    made = works.plan(gray="25%", go=False)
    assert (made.state, made.gray, made.can) == ("planned", 10, ["go", "cancel"])
    assert works.turn(made.id).replayed == 0
    replays.steer(works.office, made.id, "go")
    seen = works.ended(made.id)
    assert (seen.state, seen.replayed, seen.can) == ("waiting-for-decision", 10, ["go", "cancel"])
    works.work(4, Outcome.DONE)
    assert works.until(made.id, lambda seen: seen.succeeded == 4).unknown == 6
    replays.steer(works.office, made.id, "go")
    assert works.ended(made.id).replayed == 40
    whos = {deed.who for deed in replays.show(works.office, made.id).deeds}
    assert whos == {works.office.actor.name, ""}


def test_paused_and_cancelled(works: Works, shop: Shop) -> None:  # noqa: F811
    shop.kill(*[b"x"] * 1100)
    made = works.plan()
    works.turn(made.id)
    replays.steer(works.office, made.id, "pause")
    moved = works.turn(made.id).replayed
    assert moved == 1000
    with pytest.raises(UsageError, match="is paused: go means nothing now; one can resume, cancel"):
        replays.steer(works.office, made.id, "go")
    purge.purge(works.office, select(MAIL, state="dead"))
    replays.steer(works.office, made.id, "resume")
    seen = works.ended(made.id)
    assert (seen.state, seen.replayed, seen.gone) == ("done", 1000, 100)
    with pytest.raises(UsageError, match="is done"):
        replays.steer(works.office, made.id, "cancel")
    with pytest.raises(NotFound):
        replays.steer(works.office, 99, "cancel")


def test_what_the_journal_does_not_tell_is_asked_of_the_storage(
    works: Works,
    shop: Shop,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pepperbus.ticker.replays._ASK_EVERY_S", 0.0)
    shop.kill(*[b"x"] * 3)
    made = works.plan()
    works.ended(made.id)
    for one, outcome in zip(shop.storage.lease(MAIL, 2, OWNER), (Outcome.DONE, Outcome.DEAD), strict=True):
        shop.storage.settle(OWNER, [Settle(MAIL, one.job_id, outcome)])  # on another node: no row here
    assert isinstance(works.office.clock, ManualClock)
    works.office.clock.advance(11)
    seen = works.until(made.id, lambda seen: seen.succeeded)
    assert (seen.succeeded, seen.failed, seen.unknown) == (1, 1, 1)


@pytest.mark.parametrize("state", ["dead", "delayed"])
@pytest.mark.parametrize("where", ["intended", "moved", "told", "settled"])
def test_a_crash_anywhere_repeats_and_loses_nothing(
    works: Works,
    shop: Shop,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    state: str,
) -> None:
    """What ran and failed again before the successor looks must not run a third time."""
    ids = shop.kill(*[b"x"] * 20) if state == "dead" else shop.push(*[b"x"] * 20, due_ms=10**13)
    made = works.plan(state=state)

    def dies(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            real(*args, **more)
            raise SystemExit

        return call

    owner, name = {
        "intended": (Replays, "intend"),
        "moved": (moves, "move"),
        "told": (Runner, "_tell"),
        "settled": (Replays, "settle"),
    }[where]
    with monkeypatch.context() as crashing:
        crashing.setattr(owner, name, dies(getattr(owner, name)))
        with pytest.raises(SystemExit):
            works.turn(made.id)
    works.runner = None
    assert isinstance(works.office.clock, ManualClock)
    works.office.clock.advance(1)
    again = works.work(5, Outcome.DEAD) if where != "intended" else []
    works.office.clock.advance(1)
    seen = works.ended(made.id)
    works.office.clock.advance(1)
    done = works.work(100, Outcome.DONE)
    seen = works.until(made.id, lambda seen: not seen.unknown)
    assert (seen.replayed, seen.succeeded, seen.failed) == (20, 20 - len(again), len(again))
    assert sorted(done + again) == sorted(ids)
    for job_id in ids:
        rows = [event.event for event in life.life(works.office, str(job_id)).topics[0].events]
        assert rows.count("replayed") == 1, rows


def test_a_storage_that_is_away_keeps_it_waiting(works: Works, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    shop.kill(*[b"x"] * 5)
    made = works.plan()

    def away(*args: Any) -> int:
        raise StorageUnavailable("away")

    with monkeypatch.context() as gone:
        gone.setattr(shop.storage, "replay", away)
        with pytest.raises(StorageUnavailable):
            works.turn(made.id)
    works.runner = None
    assert works.ended(made.id).replayed == 5


@pytest.mark.parametrize(
    "options",
    [
        {"state": "ready"},
        {"state": "leased"},
        {"sample": 0.0},
        {"stop_at_errors": 2.0},
        {"gray": "all"},
        {"gray": "0%"},
        {"gray": "-1"},
        {"rate": -1.0},
        {"rate": float("nan")},
        {"canary": True},
    ],
)
def test_what_makes_no_sense_is_refused(works: Works, shop: Shop, options: dict[str, Any]) -> None:  # noqa: F811
    shop.kill(b"x")
    with pytest.raises(UsageError):
        works.plan(**options)


def test_a_sample_is_a_share_by_chance(works: Works, shop: Shop) -> None:  # noqa: F811
    ids = shop.kill(*[b"x"] * 50)
    made = works.plan(sample=0.2)
    assert (made.matched, made.jobs) == (50, 10)
    works.ended(made.id)
    chosen = sorted(one.job_id for one in shop.storage.peek(MAIL, "ready").jobs)  # type: ignore[arg-type]
    assert len(chosen) == 10
    assert chosen != sorted(ids)[:10], "one time in ten thousand million it is"


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight jobs are many already."""
    monkeypatch.setattr(replays, "AT_ONCE", 4)
    monkeypatch.setattr(planning, "PORTION", 2)
    monkeypatch.setattr(replay_plans, "_PORTIONS", 2)
    monkeypatch.setattr(plans, "_NUMBERED", 7)


@pytest.mark.usefixtures("many")
def test_many_jobs_are_planned_by_the_bus(works: Works, shop: Shop) -> None:  # noqa: F811
    ids = shop.kill(*[b"x"] * 40)
    told = works.plan(dry_run=True, gray="10%")
    assert (told.matched, told.jobs, told.gray, told.more) == (40, 40, 4, False), "no filter: their number is known"
    told = works.plan(dry_run=True, error="no")
    assert (told.matched, told.more) == (4, True), "at least"
    made = works.plan(sample=0.5, gray="25%", go=False)
    assert (made.state, made.matched, made.more, made.can) == ("planning", 4, True, ["go", "cancel"])
    later = shop.kill(b"died later")
    seen = works.turn(made.id)
    assert (seen.state, seen.matched) == ("planning", 8)
    works.runner = None  # the ticker was killed
    seen = works.until(made.id, lambda seen: seen.state == "planned")
    assert (seen.matched, seen.jobs, seen.gray, seen.more) == (40, 20, 5, False)
    replays.steer(works.office, made.id, "go")
    assert works.ended(made.id).replayed == 5
    first = [one.job_id for one in shop.storage.peek(MAIL, State.READY).jobs]
    assert first == sorted(first)
    replays.steer(works.office, made.id, "go")
    assert works.ended(made.id).state == "done"
    assert works.depth() == (20, 0, 0, 21)
    ran = {one.job_id for one in shop.storage.peek(MAIL, State.READY).jobs}
    assert ran < set(ids)
    assert not ran & set(later)
    assert [deed.what for deed in replays.show(works.office, made.id).deeds][:3] == ["plan", "planned", "go"]


@pytest.mark.usefixtures("many")
def test_many_finished_jobs_are_planned_by_the_bus(
    works: Works, shop: Shop, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    with_history(works, shop, monkeypatch)
    for n in range(9):
        shop.push(b"order %d" % n)
    works.work(9, Outcome.DONE)
    works.turn_journal()
    made = works.plan(state="done", text="order")
    assert (made.state, made.can) == ("planning", ["cancel"]), "it goes by itself"
    assert works.ended(made.id).replayed == 9
    shop.storage.promote(MAIL, works.office.clock.now_ms())
    assert works.depth()[0] == 9


@pytest.mark.usefixtures("many")
def test_planning_ends_when_it_is_cancelled_or_too_much(
    works: Works, shop: Shop, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    shop.kill(*[b"x"] * 20)
    made = works.plan(go=False)
    assert replays.steer(works.office, made.id, "go").can == ["cancel"]
    replays.steer(works.office, made.id, "cancel")
    assert works.turn(made.id).state == "cancelled"
    works.runner = None
    monkeypatch.setattr(plans, "MOST", 10)
    made = works.plan()
    seen = works.until(made.id, lambda seen: seen.state != "planning")
    assert (seen.state, seen.why) == ("cancelled", "more than 10 jobs match: narrow it down")
    works.runner = None
    made = works.plan(error="none like it")
    seen = works.until(made.id, lambda seen: seen.state != "planning")
    assert (seen.state, seen.why, seen.jobs) == ("done", "nothing matches", 0)
    assert works.depth() == (0, 0, 0, 20)


def test_plans_are_bounded(works: Works, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    shop.kill(b"a", b"b", b"c")
    monkeypatch.setattr(store, "MOST_OPEN", 2)
    for _ in range(2):
        works.plan(go=False)
    with pytest.raises(UsageError, match="has 2 replays that have not ended: cancel those nobody needs"):
        works.plan(go=False)
    replays.steer(works.office, 1, "cancel")
    works.plan(go=False)
    monkeypatch.setattr(store, "MOST_OPEN", 9)
    monkeypatch.setattr(store, "MOST_JOBS", 7)
    with pytest.raises(UsageError, match="hold 6 jobs, 7 are the most"):
        works.plan(go=False)
    with pytest.raises(UsageError, match="10001 job ids at once"):
        replays.wish(MAIL, ("1" + "0" * 19,) * 10_001)


def test_old_replays_are_forgotten(works: Works, shop: Shop, tmp_path: Path) -> None:  # noqa: F811
    shop.kill(b"x")
    made = works.plan()
    works.ended(made.id)
    assert works.store.retain(works.office.clock.now_ms()) == 0
    assert works.store.retain(works.office.clock.now_ms() + 91 * 86_400_000) == 1
    with pytest.raises(NotFound):
        works.store.get(made.id)


def test_the_first_share_at_the_second_consumer(works: Works, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """What it does is done; what it does not stays where it lies, and the rest of the replay takes it."""

    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        while (seen := read_request(conn)) is not None:
            code = b"500" if b"bad" in seen.body else b"200"
            conn.sendall(b"HTTP/1.1 200 OK\r\nCode: " + code + b"\r\nContent-Length: 2\r\n\r\nno")

    with raw_server(talk) as server:
        topics = works.office.config.queues["orders"].topics
        monkeypatch.setitem(topics, "mail", replace(topics["mail"], canary=Canary("", 0.0, url=server.url)))
        ids = shop.kill(*[b"bad", b"good"] * 10)
        made = works.plan(gray="10", canary=True)
        seen = works.ended(made.id)
        assert (seen.state, seen.replayed, seen.unknown) == ("waiting-for-decision", 10, 0)
        assert seen.succeeded + seen.failed == 10
        assert works.depth() == (0, 0, 0, 20 - seen.succeeded)
        replays.steer(works.office, made.id, "go")
        works.ended(made.id)
        done = works.work(100, Outcome.DONE)
        seen = works.until(made.id, lambda seen: not seen.unknown)
        assert (seen.state, seen.replayed, seen.succeeded, seen.failed) == ("done", 20, 20, 0)
        events = {i: [e.event for e in life.life(works.office, str(i)).topics[0].events] for i in ids}
        assert set(done) == {i for i in ids if "replayed" in events[i]}
        assert sum(events[i][1:] == ["attempt"] for i in ids) == 20 - len(done), "done there"
        assert sum("canary" in events[i] for i in ids) + 20 - len(done) == 10


def with_history(works: Works, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """As a bus whose queue keeps finished jobs."""
    queues = works.office.config.queues
    monkeypatch.setitem(queues, "orders", replace(queues["orders"], history=3600.0))
    shop.journal = Keeping(shop.journal, works.office.config, "worker.orders.0")  # type: ignore[assignment]


@pytest.mark.parametrize("crash", ["", "before", "after"])
def test_finished_jobs_run_again_from_history(
    works: Works,
    shop: Shop,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    crash: str,
) -> None:
    ids = shop.push(b"a" * 5000, b"order 17 \xff", b"order 18")
    with pytest.raises(UsageError, match="keeps no finished jobs"):
        works.plan(state="done")
    with_history(works, shop, monkeypatch)
    works.work(3, Outcome.DONE)
    Finished(works.office.config.bus.data_dir).ingest()
    with pytest.raises(NotFound):
        works.plan(state="done", ids=("10000000000000000001",))
    made = works.plan(state="done", text="order 1")
    assert made.jobs == 2
    orders = works.office.config.queues["orders"]
    mail = orders.topics["mail"]
    monkeypatch.setitem(orders.topics, "mail", replace(mail, closed="yes"))
    with pytest.raises(UsageError, match="orders/mail is closed: finished jobs would be new ones there"):
        works.plan(state="done", text="order 1")
    assert (works.turn(made.id).why, works.depth()) == ("orders/mail takes no new jobs", (0, 0, 0, 0))
    monkeypatch.setitem(orders.topics, "mail", mail)
    replays.steer(works.office, made.id, "resume")

    def dies(*args: Any) -> None:
        if crash == "after":
            moves_move(*args)
        raise SystemExit

    moves_move = moves.move
    if crash:
        with monkeypatch.context() as crashing, pytest.raises(SystemExit):
            crashing.setattr(moves, "move", dies)
            works.turn(made.id)
        works.runner = None
        if crash == "after":  # it has run by the time a successor looks
            shop.storage.promote(MAIL, works.office.clock.now_ms())
            assert len(works.work(9, Outcome.DONE)) == 2
    seen = works.ended(made.id)
    shop.storage.promote(MAIL, works.office.clock.now_ms())
    found = {one.job_id: Job.decode(one.body) for one in shop.storage.lease(MAIL, 9, OWNER)}
    if crash == "after":
        assert found == {}
    else:
        assert {job_id: job.content for job_id, job in found.items()} == {ids[1]: b"order 17 \xff", ids[2]: b"order 18"}
        assert found[ids[2]][1:] == ("trace-1", b"order 18", found[ids[2]].accepted_ms, "10.0.0.9:4")
        assert found[ids[2]].accepted_ms
    assert (seen.state, seen.replayed) == ("done", 2)


def test_what_is_kept_goes_in_its_time(works: Works, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    with_history(works, shop, monkeypatch)
    kept = Finished(works.office.config.bus.data_dir)
    shop.push(b"x" * 2000, b"y")
    works.work(2, Outcome.DONE)
    kept.ingest()
    assert [at for _, at in kept.portion(MAIL, None, 0, 1 << 62, "", 100)[0]] == [works.office.clock.now_ms()] * 2
    hour = {topic: int(seconds * 1000) for topic, seconds in topics_with_history(works.office.config).items()}
    assert hour == {MAIL: 3_600_000, "orders/audit": 3_600_000}
    now_ms = works.office.clock.now_ms()
    kept.retain({MAIL: now_ms}, 1 << 30)
    assert len(kept.portion(MAIL, None, 0, 1 << 62, "", 100)[0]) == 2
    kept.retain({MAIL: now_ms + 1}, 1 << 30)
    assert kept.portion(MAIL, None, 0, 1 << 62, "", 100)[0] == []
    shop.push(b"x" * 2000)
    works.work(1, Outcome.DONE)
    kept.ingest()
    kept.retain({}, 1 << 30)
    assert kept.portion(MAIL, None, 0, 1 << 62, "", 100)[0] == [], "a queue that keeps none any more"
