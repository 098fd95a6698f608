"""Repeating a call whose answer was lost is safe on every engine; the fault wrapper itself does what it says."""

from __future__ import annotations

import pytest

from pepperbus.errors import StorageUnavailable, StorageUnknown
from pepperbus.storage.contract import Outcome, Settle, Storage
from tests.contract.flaky import FlakyStorage, delay, lose_answer, lose_question
from tests.contract.rig import Producer

A, ME = "orders/mail", "n1/w/1"


@pytest.mark.parametrize("fault", [lose_answer, lose_question])
def test_a_push_without_answer_is_repeated_safely(storage: Storage, producer: Producer, fault) -> None:
    flaky = FlakyStorage(storage)
    flaky.fail("push", 1, fault)
    batch = producer.several(3, A)
    with pytest.raises(StorageUnknown):
        flaky.push(batch)
    flaky.push(batch)
    assert storage.depth(A).ready == 3


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("fault", [lose_answer, lose_question])
def test_a_verdict_without_answer_is_repeated_safely(
    storage: Storage, producer: Producer, fault, outcome: Outcome
) -> None:
    storage.push(producer.several(1, A))
    (job,) = storage.lease(A, 1, ME)
    flaky = FlakyStorage(storage)
    flaky.fail("settle", 1, fault)
    verdict = [Settle(A, job.job_id, outcome, 5, "no")]
    with pytest.raises(StorageUnknown):
        flaky.settle(ME, verdict)
    flaky.settle(ME, verdict)
    assert storage.depth(A).leased == 0
    assert {one.attempts for one in storage.find(job.job_id, [A])} <= {1}


def test_a_release_without_answer_is_repeated_safely(storage: Storage, producer: Producer) -> None:
    storage.push(producer.several(2, A))
    storage.lease(A, 2, ME)
    flaky = FlakyStorage(storage)
    flaky.fail("release", 1, lose_answer)
    with pytest.raises(StorageUnknown):
        flaky.release(ME, None)
    assert flaky.release(ME, None) == []
    assert {one.crashes for one in storage.lease(A, 2, "n1/w/2")} == {1}


def test_the_nth_call_fails_and_no_other(storage: Storage, producer: Producer) -> None:
    flaky = FlakyStorage(storage)
    flaky.fail("push", 2)
    waited: list[int] = []
    flaky.fail("depth", 1, delay(lambda: waited.append(1)))
    flaky.push(producer.several(1, A))
    with pytest.raises(StorageUnavailable):
        flaky.push(producer.several(1, A))
    flaky.push(producer.several(1, A))
    assert flaky.depth(A).ready == 2
    assert waited == [1]
    assert flaky.calls["push"] == 3
    assert flaky.name == storage.name
    flaky.fail_all("topics")
    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            flaky.topics()
    flaky.fail_all("topics", None)
    assert flaky.topics() == [A]
