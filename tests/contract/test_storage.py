"""The storage contract, made executable: every engine must pass every test."""

from __future__ import annotations

import pytest

from pepperbus.errors import StorageRefused
from pepperbus.job import Job, State
from pepperbus.storage.contract import CRASH_LIMIT, LEVELS, Depth, Line, Lines, Outcome, Past, Push, Settle, Storage
from tests.contract.rig import Producer, Rig

A, B = "orders/mail", "orders/stock"
ME, OTHER = "n1/worker.orders.0/1a", "n1/worker.orders.1/1b"


def ids(found) -> list[int]:
    return [one.job_id for one in found]


def line(storage: Storage, topic: str = A, state: State = State.READY) -> list[int]:
    return ids(storage.peek(topic, state, n=1000).jobs)


def only(storage: Storage, job_id: int, topic: str = A):
    (found,) = storage.find(job_id, [topic])
    return found


def done(job_id: int, topic: str = A) -> Settle:
    return Settle(topic, job_id, Outcome.DONE)


def back(job_id: int, topic: str = A, spent: int = True) -> Settle:
    return Settle(topic, job_id, Outcome.BACK, spent=spent)


def retry(job_id: int, due_ms: int, topic: str = A) -> Settle:
    return Settle(topic, job_id, Outcome.RETRY, due_ms)


def dead(job_id: int, reason: str = "no", topic: str = A) -> Settle:
    return Settle(topic, job_id, Outcome.DEAD, reason=reason)


# -- push, order, lease ------------------------------------------------------------------------------------------------


def test_an_unknown_topic_is_empty(storage: Storage) -> None:
    assert storage.depth(A) == Depth()
    assert storage.depths([A, B]) == {A: Depth(), B: Depth()}
    assert storage.lease(A, 10, ME) == []
    assert storage.promote(A, 1 << 50) == (0, 0)
    assert storage.peek(A, State.DEAD).jobs == []
    assert storage.find(1 << 63, [A]) == []
    assert storage.replay(A, [1 << 63]) == 0
    assert storage.remove(A, [1 << 63]) == 0
    assert storage.settle(ME, [done(1 << 63)]) == 0
    assert storage.release(ME, None) == []
    assert storage.topics() == []


def test_durability_is_known_after_open(storage: Storage) -> None:
    assert storage.durability in LEVELS
    health = storage.health()
    assert health.alive
    assert health.durability == storage.durability
    assert health.version


def test_jobs_are_leased_in_push_order(storage: Storage, producer: Producer) -> None:
    batch = producer.several(150, A)
    assert not storage.push(batch[:100])
    assert not storage.push(batch[100:])
    leased = storage.lease(A, 64, ME) + storage.lease(A, 64, ME) + storage.lease(A, 64, ME)
    assert ids(leased) == ids(batch)
    assert [one.body for one in leased] == [one.body for one in batch]
    assert {(one.topic, one.attempt, one.crashes, one.first_due_ms) for one in leased} == {(A, 1, 0, 0)}


def test_no_job_is_leased_twice(storage: Storage, producer: Producer) -> None:
    storage.push(producer.several(10, A))
    mine, others = storage.lease(A, 6, ME), storage.lease(A, 6, OTHER)
    assert len(mine) == 6
    assert len(others) == 4
    assert not set(ids(mine)) & set(ids(others))
    assert storage.lease(A, 6, ME) == []


def test_every_topic_gets_its_own_copy(storage: Storage, producer: Producer) -> None:
    batch = producer.several(3, A, B)
    storage.push(batch)
    assert sorted(storage.topics()) == [A, B]
    first = storage.lease(A, 1, ME)[0]
    storage.settle(ME, [done(first.job_id)])
    assert storage.find(first.job_id, [A]) == []
    assert only(storage, first.job_id, B).state is State.READY
    assert storage.depth(A).ready == 2
    assert storage.depth(B).ready == 3


def test_repeating_a_push_never_doubles_a_job(storage: Storage, producer: Producer) -> None:
    ready, leased, delayed, buried = batch = producer.several(4, A)
    storage.push(batch)
    for _ in range(4):
        storage.lease(A, 1, ME)
    storage.settle(ME, [retry(delayed.job_id, 2_000_000_000_000), dead(buried.job_id), back(ready.job_id)])
    before = storage.depth(A)
    storage.push(batch + batch)
    assert storage.depth(A) == before
    assert only(storage, leased.job_id).state is State.LEASED
    assert only(storage, delayed.job_id).state is State.DELAYED
    assert only(storage, buried.job_id).state is State.DEAD


def test_a_push_repeated_for_one_more_topic_completes_it(storage: Storage, producer: Producer) -> None:
    push = producer.push(A)
    storage.push([push])
    storage.push([push._replace(topics=(A, B))])
    assert storage.depth(A).ready == storage.depth(B).ready == 1


def test_a_batch_held_as_columns_is_like_any_other(storage: Storage, producer: Producer) -> None:
    both, one = producer.several(3, A, B), producer.several(2, B)
    batch = Lines([Line(some[0].topics, ids(some), [push.body for push in some]) for some in (both, one)])
    assert list(batch) == [*both, *one]
    assert (len(batch), batch[3]) == (5, one[0])
    for _ in range(2):
        assert not storage.push(batch)
        assert line(storage, A) == ids(both)
        assert line(storage, B) == ids([*both, *one])
    assert [job.body for job in storage.lease(B, 9, ME)] == [push.body for push in batch]


def test_front_pushes_go_ahead(storage: Storage, producer: Producer) -> None:
    normal = producer.several(2, A)
    first, second = producer.push(A, front=True), producer.push(A, front=True)
    storage.push(normal)
    storage.push([first])
    storage.push([second])
    late = producer.push(A)
    storage.push([late])
    assert line(storage) == ids([second, first, *normal, late])
    assert ids(storage.lease(A, 9, ME)) == ids([second, first, *normal, late])


def test_a_push_may_bring_in_a_dead_job(storage: Storage, producer: Producer) -> None:
    """What failed elsewhere: nobody runs it until it is replayed, and it takes nobody's room."""
    normal, died = producer.push(A), producer.push(A)._replace(dead="failed elsewhere")
    for _ in range(2):
        assert not storage.push([died, normal], {A: 1})
    assert ids(storage.lease(A, 9, ME)) == ids([normal])
    assert [(job.job_id, job.reason) for job in storage.peek(A, State.DEAD).jobs] == [(died.job_id, "failed elsewhere")]
    assert storage.depth(A).dead == 1
    assert storage.replay(A, [died.job_id]) == 1
    assert ids(storage.lease(A, 9, ME)) == ids([died])


def test_push_order_counts_not_the_id(storage: Storage, producer: Producer) -> None:
    """Two gateways, or a clock that went back: a smaller id may come later."""
    early, late = producer.push(A), producer.push(A)
    storage.push([late])
    storage.push([early])
    assert ids(storage.lease(A, 2, ME)) == ids([late, early])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"a\r\nb\r\n",
        bytes(range(256)),
        b"\xff\xfe\x80",
        "日本".encode(),
        b"x" * (1 << 20),
        b"y" * (8 << 20),
    ],
    ids=["empty", "nul", "crlf", "all", "no-utf8", "utf8", "1MiB", "8MiB"],
)
def test_bytes_come_back_as_they_were(storage: Storage, producer: Producer, content: bytes) -> None:
    push = producer.push(A, content=content)
    storage.push([push])
    assert only(storage, push.job_id).body == push.body
    (leased,) = storage.lease(A, 1, ME)
    assert leased.body == push.body
    assert Job.decode(leased.body).content == content


def test_oldest_is_the_accept_time_of_the_next(rig: Rig, storage: Storage, producer: Producer) -> None:
    born = rig.clock.now_ms()
    storage.push([producer.push(A)])
    rig.clock.advance(60)
    storage.push([producer.push(A)])
    assert storage.depth(A).oldest_ms == born
    storage.lease(A, 1, ME)
    assert storage.depth(A).oldest_ms == born + 60_000
    storage.lease(A, 1, ME)
    assert storage.depth(A).oldest_ms == 0


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_limit_counts_ready_and_delayed(storage: Storage, producer: Producer) -> None:
    storage.push([producer.push(A), producer.push(A, due_ms=2_000_000_000_000)])
    assert list(storage.push(producer.several(4, A), {A: 4})) == [2, 3]
    assert storage.depth(A)[:2] == (3, 1)
    storage.lease(A, 1, ME)
    assert list(storage.push(producer.several(2, A), {A: 4})) == [1]


def test_a_push_over_the_limit_of_one_topic_reaches_none(storage: Storage, producer: Producer) -> None:
    storage.push(producer.several(2, A))
    batch = [producer.push(A, B), producer.push(B)]
    assert list(storage.push(batch, {A: 2})) == [0]
    assert line(storage, B) == ids(batch[1:])
    assert storage.depth(A).ready == 2


def test_a_repeated_push_is_not_over_the_limit(storage: Storage, producer: Producer) -> None:
    batch = producer.several(2, A)
    storage.push(batch)
    assert not storage.push(batch, {A: 2})
    assert storage.depth(A).ready == 2


# -- settle ------------------------------------------------------------------------------------------------------------


def test_done_leaves_nothing_and_counts_once(storage: Storage, producer: Producer) -> None:
    storage.push(producer.several(3, A))
    leased = storage.lease(A, 3, ME)
    assert storage.settle(ME, [done(one.job_id) for one in leased]) == 3
    assert storage.settle(ME, [done(one.job_id) for one in leased]) == 0
    assert storage.depth(A) == Depth()
    assert storage.topics() == []
    assert storage.release(ME, None) == []


def test_retry_waits_and_counts_the_attempt(rig: Rig, storage: Storage, producer: Producer) -> None:
    storage.push([producer.push(A)])
    (job,) = storage.lease(A, 1, ME)
    due = rig.clock.now_ms() + 5000
    assert storage.settle(ME, [retry(job.job_id, due)]) == 1
    found = only(storage, job.job_id)
    assert (found.state, found.attempts, found.due_ms) == (State.DELAYED, 1, due)
    assert storage.lease(A, 1, ME) == []
    assert storage.promote(A, due - 1) == (0, due)
    assert storage.promote(A, due) == (1, 0)
    (again,) = storage.lease(A, 1, ME)
    assert (again.job_id, again.attempt, again.body, again.first_due_ms) == (job.job_id, 2, job.body, 0)


def test_dead_is_kept_with_its_reason(rig: Rig, storage: Storage, producer: Producer) -> None:
    storage.push([producer.push(A)])
    (job,) = storage.lease(A, 1, ME)
    reason = "HTTP 410: “gone” \r\n\0"
    assert storage.settle(ME, [dead(job.job_id, reason)]) == 1
    found = only(storage, job.job_id)
    assert (found.state, found.reason, found.attempts, found.body) == (State.DEAD, reason, 1, job.body)
    assert found.dead_ms == rig.clock.now_ms()
    assert storage.depth(A) == Depth(dead=1)
    assert storage.lease(A, 1, ME) == []


def test_back_goes_ahead_of_everything(storage: Storage, producer: Producer) -> None:
    storage.push(producer.several(4, A))
    first, second = storage.lease(A, 2, ME)
    in_front = producer.push(A, front=True)
    storage.push([in_front])
    storage.settle(ME, [back(first.job_id), back(second.job_id, spent=False)])
    assert line(storage)[:3] == [first.job_id, second.job_id, in_front.job_id]
    again = storage.lease(A, 2, ME)
    assert [one.attempt for one in again] == [2, 1]


def test_one_lease_may_have_been_several_attempts(storage: Storage, producer: Producer) -> None:
    """The reader of a stream that asks for what it has gets it with the next number."""
    storage.push([producer.push(A)])
    (job,) = storage.lease(A, 1, ME)
    storage.settle(ME, [back(job.job_id, spent=3)])
    assert [one.attempt for one in storage.lease(A, 1, ME)] == [4]


def test_the_first_verdict_of_a_batch_counts(storage: Storage, producer: Producer) -> None:
    storage.push(producer.several(1, A))
    (job,) = storage.lease(A, 1, ME)
    assert storage.settle(ME, [back(job.job_id), back(job.job_id), dead(job.job_id)]) == 1
    assert storage.depth(A)[:4] == (1, 0, 0, 0)
    assert storage.lease(A, 2, ME)[0].attempt == 2


def test_settle_and_lease_does_both(storage: Storage, producer: Producer) -> None:
    batch = producer.several(5, A, B)
    storage.push(batch)
    jobs = storage.lease(A, 2, ME)
    count, more = storage.settle_and_lease(ME, [Settle(A, one.job_id, Outcome.DONE) for one in jobs], A, 2)
    assert (count, [one.job_id for one in more or ()]) == (2, [one.job_id for one in batch[2:4]])
    back = [Settle(A, batch[2].job_id, Outcome.BACK), Settle(A, batch[3].job_id, Outcome.DONE)]
    count, more = storage.settle_and_lease(ME, back, B, 1)
    assert (count, [(one.topic, one.job_id) for one in more or ()]) == (2, [(B, batch[0].job_id)])
    assert storage.settle_and_lease(ME, [Settle(A, batch[3].job_id, Outcome.DONE)], A, 9)[0] == 0
    assert storage.settle_and_lease(ME, [], A, 9) == (0, [])
    assert storage.depth(A)[:4] == (0, 0, 2, 0)
    assert storage.depth(B)[:4] == (4, 0, 1, 0)


def test_unspent_attempts_are_not_counted(storage: Storage, producer: Producer) -> None:
    storage.push([producer.push(A)])
    for _ in range(3):
        (job,) = storage.lease(A, 1, ME)
        assert job.attempt == 1
        storage.settle(ME, [Settle(A, job.job_id, Outcome.RETRY, 1, spent=False)])
        storage.promote(A, 2)


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.DEAD, Outcome.BACK])
def test_a_late_verdict_changes_nothing(storage: Storage, producer: Producer, outcome: Outcome) -> None:
    storage.push([producer.push(A)])
    (job,) = storage.lease(A, 1, ME)
    verdict = Settle(A, job.job_id, outcome, 5, "late")
    assert storage.settle(OTHER, [verdict]) == 0  # never held it
    storage.release(ME, [(A, job.job_id)])
    assert storage.settle(ME, [verdict]) == 0  # holds it no more
    assert storage.lease(A, 1, OTHER)[0].attempt == 2
    assert storage.settle(ME, [verdict]) == 0  # another has it now
    found = only(storage, job.job_id)
    assert (found.state, found.owner) == (State.LEASED, OTHER)


@pytest.mark.parametrize("where", ["ready", "leased by another", "delayed", "dead"])
def test_a_late_done_still_ends_the_job(storage: Storage, producer: Producer, where: str) -> None:
    storage.push([producer.push(A)])
    (job,) = storage.lease(A, 1, ME)
    storage.release(ME, None)
    if where != "ready":
        storage.lease(A, 1, OTHER)
    if where == "delayed":
        storage.settle(OTHER, [retry(job.job_id, 2_000_000_000_000)])
    if where == "dead":
        storage.settle(OTHER, [dead(job.job_id)])
    assert storage.settle(ME, [done(job.job_id)]) == 1
    assert storage.depth(A) == Depth()
    assert storage.settle(OTHER, [done(job.job_id), back(job.job_id)]) == 0
    assert storage.release(OTHER, None) == []
    assert storage.lease(A, 1, OTHER) == []


# -- release -----------------------------------------------------------------------------------------------------------


def test_release_gives_back_ahead_in_the_old_order(storage: Storage, producer: Producer) -> None:
    batch = producer.several(5, A)
    storage.push(batch)
    storage.lease(A, 3, ME)
    in_front = producer.push(A, front=True)
    storage.push([in_front])
    started = [(A, batch[1].job_id)]
    released = {one.job_id: one for one in storage.release(ME, started)}
    assert line(storage) == ids([*batch[:3], in_front, *batch[3:]])
    assert {i: (r.attempt, r.started, r.dead) for i, r in released.items()} == {
        batch[0].job_id: (1, False, False),
        batch[1].job_id: (1, True, False),
        batch[2].job_id: (1, False, False),
    }
    assert [(one.attempt, one.crashes) for one in storage.lease(A, 4, OTHER)] == [(1, 0), (2, 1), (1, 0), (1, 0)]
    assert storage.release(ME, None) == []


def test_release_of_unknown_start_counts_all(storage: Storage, producer: Producer) -> None:
    storage.push(producer.several(2, A) + producer.several(1, B))
    storage.lease(A, 2, ME)
    storage.lease(B, 1, ME)
    assert {(one.topic, one.started) for one in storage.release(ME, None)} == {(A, True), (B, True)}
    assert {one.crashes for one in storage.lease(A, 2, OTHER)} == {1}


def test_release_leaves_other_owners_alone(storage: Storage, producer: Producer) -> None:
    storage.push(producer.several(2, A))
    storage.lease(A, 1, ME)
    (kept,) = storage.lease(A, 1, OTHER)
    storage.release(ME, None)
    assert only(storage, kept.job_id).owner == OTHER
    assert OTHER in storage.owners()
    assert ME not in storage.owners()


def test_a_job_that_kills_its_workers_dies(storage: Storage, producer: Producer) -> None:
    storage.push([producer.push(A)])
    for crash in range(1, CRASH_LIMIT + 1):
        owner = f"n1/w/{crash}"
        (job,) = storage.lease(A, 1, owner)
        (released,) = storage.release(owner, [(A, job.job_id)])
        assert released.dead is (crash == CRASH_LIMIT)
    found = only(storage, job.job_id)
    assert (found.state, found.attempts, found.crashes) == (State.DEAD, CRASH_LIMIT, CRASH_LIMIT)
    assert found.reason
    assert storage.replay(A, [job.job_id]) == 1
    (fresh,) = storage.lease(A, 1, ME)
    assert (fresh.attempt, fresh.crashes) == (1, 0)


def test_owners_are_those_with_leases(storage: Storage, producer: Producer) -> None:
    assert storage.owners() == []
    storage.push([producer.push(A)])
    storage.lease(A, 1, ME)
    assert storage.owners() == [ME]
    storage.release(ME, ())
    assert storage.owners() == []


# -- delayed -----------------------------------------------------------------------------------------------------------


def test_delayed_jobs_become_ready_when_due(rig: Rig, storage: Storage, producer: Producer) -> None:
    now = rig.clock.now_ms()
    later, soon = producer.push(A, due_ms=now + 2000), producer.push(A, due_ms=now + 1000)
    storage.push([later, soon])
    ready = producer.push(A)
    storage.push([ready])
    assert storage.depth(A)[:2] == (1, 2)
    assert line(storage, state=State.DELAYED) == ids([soon, later])
    assert storage.promote(A, now) == (0, now + 1000)
    assert storage.promote(A, now + 1500) == (1, now + 2000)
    assert storage.promote(A, now + 2000) == (1, 0)
    leased = storage.lease(A, 3, ME)
    assert ids(leased) == ids([ready, soon, later])
    assert [one.first_due_ms for one in leased] == [0, now + 1000, now + 2000]


def test_the_first_due_time_outlives_retries(rig: Rig, storage: Storage, producer: Producer) -> None:
    storage.push([producer.push(A, due_ms=5000)])
    storage.promote(A, 6000)
    (job,) = storage.lease(A, 1, ME)
    storage.settle(ME, [retry(job.job_id, 9000)])
    storage.promote(A, 9000)
    assert storage.lease(A, 1, ME)[0].first_due_ms == 5000


def test_promote_stops_at_n(storage: Storage, producer: Producer) -> None:
    storage.push([producer.push(A, due_ms=100 + i) for i in range(5)])
    assert storage.promote(A, 1000, 2) == (2, 102)
    assert storage.promote(A, 1000, 9) == (3, 0)
    assert storage.depth(A)[:2] == (5, 0)


# -- looking -----------------------------------------------------------------------------------------------------------


def test_find_tells_every_state(rig: Rig, storage: Storage, producer: Producer) -> None:
    batch = producer.several(4, A)
    storage.push(batch)
    storage.lease(A, 3, ME)
    storage.settle(ME, [retry(batch[0].job_id, 777), dead(batch[1].job_id, "why")])
    found = [only(storage, one.job_id) for one in batch]
    assert [one.state for one in found] == [State.DELAYED, State.DEAD, State.LEASED, State.READY]
    assert [one.due_ms for one in found] == [777, 0, 0, 0]
    assert [one.reason for one in found] == ["", "why", "", ""]
    assert [one.owner for one in found] == ["", "", ME, ""]
    assert [one.attempts for one in found] == [1, 1, 0, 0]
    assert [one.body for one in found] == [one.body for one in batch]
    assert [one.topic for one in storage.find(batch[0].job_id, [B, A])] == [A]


@pytest.mark.parametrize("state", list(State))
def test_pages_together_are_the_whole(rig: Rig, storage: Storage, producer: Producer, state: State) -> None:
    batch = producer.several(23, A)
    storage.push(batch)
    if state is not State.READY:
        storage.lease(A, 23, ME)
    for i, one in enumerate(batch):
        rig.clock.advance(0.01)
        if state is State.DELAYED:
            storage.settle(ME, [retry(one.job_id, 5000 + i)])
        if state is State.DEAD:
            storage.settle(ME, [dead(one.job_id)])
    wanted = ids(reversed(batch)) if state is State.DEAD else ids(batch)
    seen: list[int] = []
    cursor, pages = "", 0
    while True:
        page = storage.peek(A, state, cursor, 5)
        assert {one.state for one in page.jobs} <= {state}
        seen += ids(page.jobs)
        cursor, pages = page.cursor, pages + 1
        if not cursor:
            break
    assert seen == wanted
    assert pages == 5


def test_a_listing_stays_sound_under_change(storage: Storage, producer: Producer) -> None:
    batch = producer.several(20, A)
    storage.push(batch)
    page = storage.peek(A, State.READY, "", 10)
    storage.remove(A, ids(batch[15:16]))
    storage.push(producer.several(2, A))
    rest = storage.peek(A, State.READY, page.cursor, 100)
    both = ids(page.jobs) + ids(rest.jobs)
    assert len(both) == len(set(both))
    assert set(both) >= set(ids(batch[:15] + batch[16:]))


@pytest.mark.parametrize("state", [State.DELAYED, State.LEASED, State.DEAD])
def test_jobs_that_leave_hide_none_of_those_behind_them(
    rig: Rig, storage: Storage, producer: Producer, state: State
) -> None:
    """Who must know of all that are between two attempts goes by pages, while some of them end. Many have one due time."""
    batch = producer.several(40, A)
    storage.push(batch)
    storage.lease(A, 40, ME)
    ends = {State.DELAYED: lambda i: retry(i, 5000), State.DEAD: dead}
    if state in ends:
        storage.settle(ME, [ends[state](one.job_id) for one in batch])
    first = storage.peek(A, state, "", 10)
    leaving = ids(first.jobs)[:8]
    if state is State.LEASED:
        storage.settle(ME, [done(job_id) for job_id in leaving])
    else:
        storage.remove(A, leaving)
    rest, cursor = [], first.cursor
    while cursor:
        page = storage.peek(A, state, cursor, 7)
        rest += ids(page.jobs)
        cursor = page.cursor
    assert sorted(ids(first.jobs) + rest) == ids(batch)


# -- what operators do -------------------------------------------------------------------------------------------------


def test_replay_takes_the_dead_and_the_delayed(rig: Rig, storage: Storage, producer: Producer) -> None:
    buried, delayed, leased, ready = batch = producer.several(4, A)
    storage.push(batch)
    storage.lease(A, 3, ME)
    storage.settle(ME, [dead(buried.job_id), retry(delayed.job_id, 2_000_000_000_000)])
    assert storage.replay(A, ids(batch)) == 2
    assert line(storage) == ids([ready, buried, delayed])
    assert storage.depth(A)[:4] == (3, 0, 1, 0)
    assert only(storage, leased.job_id).state is State.LEASED
    assert [one.attempt for one in storage.lease(A, 9, OTHER)] == [1, 1, 1]
    assert storage.replay(A, ids(batch)) == 0


def test_remove_takes_all_but_the_leased(storage: Storage, producer: Producer) -> None:
    buried, delayed, leased, _ready = batch = producer.several(4, A)
    storage.push(batch)
    storage.lease(A, 3, ME)
    storage.settle(ME, [dead(buried.job_id), retry(delayed.job_id, 2_000_000_000_000)])
    assert storage.remove(A, ids(batch)) == 3
    assert storage.depth(A)[:4] == (0, 0, 1, 0)
    assert storage.settle(ME, [done(leased.job_id)]) == 1
    assert storage.remove(A, ids(batch)) == 0
    assert storage.topics() == []
    assert not storage.push(batch)
    assert storage.depth(A).ready == 4


def test_a_pause_is_kept(rig: Rig, storage: Storage) -> None:
    storage.set_paused(A, True)
    storage.set_paused(B, True)
    storage.set_paused(B, False)
    assert storage.paused() == {A}
    storage.set_paused(A, True)
    if rig.keeps:
        storage.close()
        storage.open()
    assert storage.paused() == {A}


def test_a_shard_has_one_node(storage: Storage) -> None:
    storage.claim_shard(2, "n1")
    storage.claim_shard(2, "n1")
    storage.claim_shard(3, "n2")
    with pytest.raises(StorageRefused, match="n1"):
        storage.claim_shard(2, "n2")


def test_silent_nodes_with_leases_are_lost(rig: Rig, storage: Storage, producer: Producer) -> None:
    storage.heartbeat("n1")
    storage.heartbeat("n2")
    storage.push([producer.push(A)])
    storage.lease(A, 1, ME)
    assert storage.lost_nodes(15_000) == []
    if rig.hands_on_the_clock:
        rig.clock.advance(20)
        assert storage.lost_nodes(15_000) == ["n1"]
        storage.heartbeat("n1")
        assert storage.lost_nodes(15_000) == []


def test_nodes_are_those_that_have_not_said_goodbye(rig: Rig, storage: Storage) -> None:
    for shard, node in ((2, "n1"), (3, "n2")):
        storage.claim_shard(shard, node)
        storage.heartbeat(node)
    storage.leave("n2")
    found = storage.nodes()
    if not found:
        pytest.skip("only one node can reach this engine, by its contract")
    assert found.keys() == {"n1"}
    assert 0 <= found["n1"] < 10_000
    storage.heartbeat("n2")
    assert storage.nodes().keys() == {"n1", "n2"}
    if rig.hands_on_the_clock:
        rig.clock.advance(20)
        storage.heartbeat("n2")
        assert storage.nodes() == {"n1": 20_000, "n2": 0}


def test_who_leaves_keeps_its_leases(storage: Storage, producer: Producer) -> None:
    storage.heartbeat("n1")
    storage.push([producer.push(A)])
    storage.lease(A, 1, ME)
    storage.leave("n1")
    assert storage.lost_nodes(15_000) == []
    assert storage.owners() == [ME]


# -- keeping -----------------------------------------------------------------------------------------------------------


def test_everything_is_there_after_reopening(rig: Rig, producer: Producer) -> None:
    if not rig.keeps:
        pytest.skip("this engine keeps nothing, by its contract")
    storage = rig.make()
    storage.open()
    batch = producer.several(6, A, B)
    storage.push(batch)
    storage.lease(A, 3, ME)
    storage.settle(ME, [retry(batch[0].job_id, 999), dead(batch[1].job_id, "why")])
    listings = [storage.peek(A, state) for state in State] + [storage.depth(A), storage.depth(B), storage.owners()]
    storage.close()
    storage.close()
    again = rig.make()
    again.open()
    again.open()
    assert listings == [again.peek(A, state) for state in State] + [again.depth(A), again.depth(B), again.owners()]
    assert ids(again.release(ME, ())) == [batch[2].job_id]
    again.close()


def test_the_depths_of_many_are_those_of_each(rig: Rig, storage: Storage, producer: Producer) -> None:
    """More of them than go in one trip, each with other jobs: ready, delayed, with two owners, dead."""
    many = [f"many/t{n:03d}" for n in range(600)]
    storage.push([producer.push(*many[n::3]) for n in range(3) for _ in range(n)])
    storage.push([producer.push(*many[::7], due_ms=rig.clock.now_ms() + 60_000)])
    (job,) = storage.lease(many[1], 1, ME)
    storage.lease(many[2], 1, ME)
    storage.lease(many[2], 1, "n1/w/2")
    storage.lease(many[599], 1, ME)
    storage.settle(ME, [Settle(many[1], job.job_id, Outcome.DEAD, reason="because")])
    found = storage.depths([*many, "never/was"])
    assert list(found) == [*many, "never/was"], "in the order asked"
    assert found == {name: storage.depth(name) for name in found}
    assert [found[many[n]][:4] for n in (0, 1, 2, 599)] == [(0, 1, 0, 0), (0, 0, 0, 1), (0, 0, 2, 0), (1, 0, 1, 0)]
    assert storage.depths([]) == {}


def test_an_empty_batch_is_nothing(storage: Storage) -> None:
    assert not storage.push([])
    assert storage.settle(ME, []) == 0
    assert storage.lease(A, 0, ME) == []


def test_a_job_for_no_topic_of_the_limits_passes(storage: Storage, producer: Producer) -> None:
    batch: list[Push] = producer.several(3, A)
    assert not storage.push(batch, {B: 1})
    assert storage.depth(A).ready == 3


# -- from another storage ----------------------------------------------------------------------------------------------


def test_a_job_that_was_tried_elsewhere_goes_on_from_there(storage: Storage, producer: Producer, rig: Rig) -> None:
    now = rig.clock.now_ms()
    waits, later, gone, fresh = producer.several(4, A)
    batch = [
        waits._replace(past=Past(2, 1, now - 5000)),
        later._replace(due_ms=now + 60_000, past=Past(3, 0, now - 9000)),
        gone._replace(dead="boom", past=Past(20, 2, now - 7000)),
        fresh,
    ]
    for _ in range(2):  # repeating it changes nothing
        assert list(storage.push(batch)) == []
    assert storage.depth(A)[:4] == (2, 1, 0, 1)
    assert line(storage) == [waits.job_id, fresh.job_id]
    told = {one.job_id: one for push in batch for one in storage.find(push.job_id, [A])}
    for push in batch[:3]:
        one = told[push.job_id]
        assert (one.attempts, one.crashes, one.first_due_ms) == push.past
        assert one.body == push.body
    assert told[later.job_id].due_ms == now + 60_000
    assert told[gone.job_id].reason == "boom"
    assert (told[fresh.job_id].attempts, told[fresh.job_id].first_due_ms) == (0, 0)
    leased = {one.job_id: one for one in storage.lease(A, 10, ME)}
    assert (leased[waits.job_id].attempt, leased[waits.job_id].crashes) == (3, 1)
    assert leased[waits.job_id].first_due_ms == now - 5000
    assert leased[fresh.job_id].attempt == 1
    storage.settle(ME, [done(waits.job_id), done(fresh.job_id)])
    assert storage.promote(A, now + 60_000)[0] == 1
    (one,) = storage.lease(A, 10, ME)
    assert (one.attempt, one.crashes, one.first_due_ms) == (4, 0, now - 9000)
    storage.settle(ME, [done(one.job_id)])
    assert storage.replay(A, [gone.job_id]) == 1
    assert storage.lease(A, 10, ME)[0].attempt == 1, "a replay starts a fresh budget"
