"""What nodes leave for each other in a storage they share: bounded, mergeable, and nothing that outlives who wanted it."""

from __future__ import annotations

import random

import pytest

from pepperbus import stats
from pepperbus.clock import ManualClock
from pepperbus.config.model import StorageConfig
from pepperbus.errors import StorageError
from pepperbus.nodes import errands, paces
from pepperbus.nodes.errands import Errand
from pepperbus.nodes.paces import Pace
from pepperbus.operations.paces import merged
from pepperbus.storage.memory import MemoryStorage


@pytest.fixture
def storage() -> MemoryStorage:
    storage = MemoryStorage(StorageConfig("shared", "memory"), ManualClock())
    storage.open()
    for node in ("n1", "n2"):
        storage.heartbeat(node)
    return storage


def histogram(seconds: list[float]) -> stats.Histogram:
    found = stats.Histogram([0] * stats.BUCKETS)
    for one in seconds:
        found.buckets[stats.bucket(one * 1e6)] += 1
    found.count = len(seconds)
    return found


def sparse(found: stats.Histogram) -> dict[int, int]:
    return {bucket: n for bucket, n in enumerate(found.buckets) if n}


def test_percentiles_of_all_nodes_are_those_of_all_jobs(storage: MemoryStorage) -> None:
    """A quick node with many jobs and a slow one with few: the mean of their percentiles would be far off."""
    quick, slow = [0.001 + n / 1e6 for n in range(990)], [2.0] * 10
    paces.leave(storage, "n2", {"orders/mail": Pace(sparse(histogram(slow)), sparse(histogram(slow)))})
    (other,) = paces.others(storage, "n1").values()
    total = merged({"wait": histogram(quick)}, [other["orders/mail"]], "wait")
    exact = histogram(quick + slow)
    assert [total.percentile(q) for q in (0.5, 0.9, 0.99, 0.999)] == [
        exact.percentile(q) for q in (0.5, 0.9, 0.99, 0.999)
    ]
    assert total.count == 1000


def test_a_nodes_word_replaces_its_last_and_ends_with_its_heartbeat(storage: MemoryStorage) -> None:
    left = paces.leave(storage, "n2", {"orders/mail": Pace({5: 1})})
    left = paces.leave(storage, "n2", {"orders/mail": Pace({6: 2})}, left)
    paces.leave(storage, "n2", {"orders/mail": Pace({7: 3})}, "what a ticker before this one left")
    assert paces.others(storage, "n1") == {"n2": {"orders/mail": Pace({7: 3})}}
    assert paces.others(storage, "n2") == {"n1": {}}
    storage.leave("n2")
    assert paces.others(storage, "n1") == {}


def test_the_busiest_topics_are_told_of_when_there_are_too_many() -> None:
    chance = random.Random(7)
    many = {
        f"q{n:04d}/t": Pace({}, {chance.randrange(256): chance.randrange(1, 99) for _ in range(40)})
        for n in range(2000)
    }
    many["orders/mail"] = Pace({}, {3: 10**9})
    text = paces.pack(many)
    told = paces.unpack(text)
    assert len(text) <= paces.MOST_BYTES
    assert told["orders/mail"] == many["orders/mail"]
    assert 100 < len(told) < 2000
    for garbage in ("", "x", text[:-9], "é", paces.pack({}) + "~"):
        assert not set(paces.unpack(garbage)) - {"orders/mail", *many}


def test_an_errand_is_taken_once_answered_and_forgotten(storage: MemoryStorage) -> None:
    word = errands.ask(storage, "n2", Errand("send", "orders/mail", "anna", "n1", b"\xff"))
    assert errands.take(storage, "n2") == {word: Errand("send", "orders/mail", "anna", "n1", b"\xff", taken=True)}
    assert errands.take(storage, "n2") == {}
    errands.answer(storage, "n2", word, "{}")
    assert errands.look(storage, "n2")[word].is_over
    errands.forget(storage, "n2", word)
    errands.answer(storage, "n2", word, "too late")
    assert storage.recall("errand/n2") == ""


def test_a_node_is_asked_only_so_much_at_once(storage: MemoryStorage) -> None:
    for _ in range(8):
        errands.ask(storage, "n2", Errand("ping", "orders/mail", "anna", "n1"))
    with pytest.raises(StorageError, match="n2 has 8 requests"):
        errands.ask(storage, "n2", Errand("ping", "orders/mail", "anna", "n1"))
    errands.forget(storage, "n2")
    assert errands.look(storage, "n2") == {}
