"""Pushes under a name that one job holds, and texts that change together with a push: what schedules and `unique` rest on."""

from __future__ import annotations

import time

import gevent

from pepperbus.job import State
from pepperbus.storage.contract import Claim, Once, Outcome, Push, Settle, Storage
from tests.contract.rig import Producer, Rig

A, B = "orders/mail", "orders/stock"
ME = "n1/worker.orders.0/1a"
DAY = 86_400_000


def ids(storage: Storage, topic: str = A) -> list[int]:
    return [one.job_id for one in storage.peek(topic, State.READY, n=100).jobs]


def test_a_name_is_held_by_the_first_push(storage: Storage, producer: Producer) -> None:
    first, second, other = producer.several(3, A, B)
    assert storage.push_once([Once(first, "n/x", DAY)]) == [first.job_id]
    assert storage.push_once([Once(second, "n/x", DAY), Once(other, "n/y", DAY)]) == [first.job_id, other.job_id]
    assert ids(storage, A) == ids(storage, B) == [first.job_id, other.job_id]


def test_of_two_in_one_batch_the_first_is_stored(storage: Storage, producer: Producer) -> None:
    first, second = producer.several(2, A)
    assert storage.push_once([Once(first, "n/x", DAY, True), Once(second, "n/x", DAY, True)]) == [first.job_id] * 2
    assert ids(storage) == [first.job_id]


def test_a_push_once_repeated_holds_its_name_and_doubles_nothing(storage: Storage, producer: Producer) -> None:
    push = producer.push(A)
    for alive in (False, True):
        assert storage.push_once([Once(push, "n/x", DAY, alive)]) == [push.job_id]
    assert ids(storage) == [push.job_id]
    storage.lease(A, 1, ME)
    storage.settle(ME, [Settle(A, push.job_id, Outcome.DONE)])
    assert storage.push_once([Once(push, "n/x", DAY, True)]) == [push.job_id]
    assert ids(storage) == []


def test_a_name_is_free_after_its_time(rig: Rig, storage: Storage, producer: Producer) -> None:
    first, second = producer.several(2, A)
    storage.push_once([Once(first, "n/x", 20)])
    deadline = time.monotonic() + 20
    while (found := storage.push_once([Once(second, "n/x", DAY)])) == [first.job_id] and time.monotonic() < deadline:
        rig.clock.advance(0.005)
        gevent.sleep(0.005)  # a server has a clock of its own
    assert found == [second.job_id]
    storage.upkeep()
    assert storage.push_once([Once(producer.push(A), "n/x", DAY)]) == [second.job_id]


def test_a_living_holder_waits_runs_or_comes_back(storage: Storage, producer: Producer) -> None:
    first = producer.push(A, B)

    def holder() -> int:
        push = producer.push(A, B)
        (found,) = storage.push_once([Once(push, "n/x", DAY, True)])
        return found

    storage.push_once([Once(first, "n/x", DAY, True)])
    assert holder() == first.job_id  # it waits
    storage.lease(A, 1, ME)
    storage.lease(B, 1, ME)
    assert holder() == first.job_id  # it runs
    storage.settle(ME, [Settle(A, first.job_id, Outcome.DONE), Settle(B, first.job_id, Outcome.RETRY, 1 << 44)])
    assert holder() == first.job_id  # done in one topic, to be tried again in the other
    storage.replay(B, [first.job_id])
    storage.lease(B, 1, ME)
    storage.settle(ME, [Settle(B, first.job_id, Outcome.DEAD, reason="no")])
    second = holder()
    assert second != first.job_id  # dead, it holds nothing
    storage.replay(B, [first.job_id])
    assert holder() == second


def test_a_full_topic_refuses_and_the_name_stays_free(storage: Storage, producer: Producer) -> None:
    storage.push([producer.push(A)])
    full, fits = producer.push(A), producer.push(B)
    assert storage.push_once([Once(full, "n/x", DAY), Once(fits, "n/y", DAY)], {A: 1}) == [0, fits.job_id]
    assert storage.push_once([Once(full, "n/x", DAY)], {A: 2}) == [full.job_id]


def test_a_text_changes_together_with_a_push(storage: Storage, producer: Producer) -> None:
    one, two, three = producer.several(3, A)
    assert storage.recall("n/t") == ""
    assert storage.swap("n/t", "", "1 ü", [one]) == "1 ü"
    assert storage.swap("n/t", "", "2", [two]) == "1 ü"  # another was quicker: nothing is stored
    assert storage.swap("n/t", "", "1 ü", [one]) == "1 ü"  # its answer was lost: nothing is done again
    assert ids(storage) == [one.job_id]
    assert storage.swap("n/t", "1 ü", "2", [three]) == storage.recall("n/t") == "2"
    assert storage.swap("n/t", "2", "") == storage.recall("n/t") == ""
    assert ids(storage) == [one.job_id, three.job_id]


def test_names_come_along_with_jobs_from_another_storage(storage: Storage, producer: Producer) -> None:
    one, two, like_one, like_two, late = producer.several(5, A)
    storage.push_once([Once(late, "n/y", DAY)])
    claims = [Claim("n/x", one.job_id, DAY), Claim("n/y", two.job_id, DAY), Claim("n/z", late.job_id, DAY)]
    assert storage.swap("n/t", "no", "1", [one], claims) == "", "another was quicker: no name is taken either"
    assert storage.push_once([Once(like_two, "n/y", DAY)]) == [late.job_id]
    assert storage.swap("n/t", "", "1", [one, two], claims) == "1"
    found = storage.push_once([Once(like_one, "n/x", DAY, True), Once(like_two, "n/y", DAY, True)])
    assert found == [one.job_id, two.job_id], "whoever had the name before"
    assert sorted(ids(storage)) == sorted([late.job_id, one.job_id, two.job_id])
    leased = storage.lease(A, 3, ME)
    storage.settle(ME, [Settle(A, job.job_id, Outcome.DONE) for job in leased])
    again = producer.push(A)
    assert storage.push_once([Once(again, "n/x", DAY, True)]) == [again.job_id], "done, it holds nothing"
    assert storage.push_once([Once(producer.push(A), "n/y", DAY)]) == [two.job_id], "a time of its own is over later"


def test_of_many_at_once_one_wins(rig: Rig, storage: Storage, producer: Producer) -> None:
    others = [] if rig.hands_on_the_clock else [rig.make() for _ in range(3)]  # LMDB: one in a process
    for other in others:
        other.open()
    every = [storage, *others]
    pushes = producer.several(24, A)
    swaps: list[Push] = producer.several(24, B)

    def both(i: int) -> tuple[int, str]:
        (held,) = every[i % len(every)].push_once([Once(pushes[i], "n/x", DAY, True)])
        return held, every[i % len(every)].swap("n/t", "", str(i), [swaps[i]])

    found = gevent.joinall([gevent.spawn(both, i) for i in range(24)], timeout=30)
    results = {one.get(block=False) for one in found}
    assert len(results) == 1
    ((held, text),) = results
    assert ids(storage, A) == [held]
    assert ids(storage, B) == [swaps[int(text)].job_id]
    for other in others:
        other.close()
