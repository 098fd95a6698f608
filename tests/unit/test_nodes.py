"""What nodes leave for each other in a storage they share: bounded, mergeable, and nothing that outlives who wanted it."""

from __future__ import annotations

import random
from collections.abc import Callable

import gevent
import pytest

from pepperbus import stats
from pepperbus.clock import ManualClock
from pepperbus.config.model import StorageConfig
from pepperbus.errors import StorageError
from pepperbus.log import Log
from pepperbus.nodes import errands, paces
from pepperbus.nodes.errands import Errand
from pepperbus.nodes.paces import Pace
from pepperbus.operations import elsewhere
from pepperbus.operations.history import Parcel
from pepperbus.operations.paces import merged
from pepperbus.storage.memory import MemoryStorage
from pepperbus.web.errands import _Errander
from tests.unit.test_pages import share
from tests.unit.test_web import Place, place  # noqa: F401


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
    errands.forget(storage, "n2", *errands.look(storage, "n2"))
    assert errands.look(storage, "n2") == {}


def test_what_was_asked_before_a_node_looked_is_taken_once_it_is_said_again(storage: MemoryStorage) -> None:
    begun = errands.ask(storage, "n2", Errand("send", "orders/mail", "anna", "n1"))
    errands.take(storage, "n2")
    gone, waits = (errands.ask(storage, "n2", Errand("send", "orders/mail", who, "n1")) for who in ("bert", "cleo"))
    errands.say_again(storage, "n2", gone, 5)
    doubted = errands.begin(storage, "n2")
    assert doubted == {gone: 5, waits: 0}, "what was begun is not begun again"
    later = errands.ask(storage, "n2", Errand("ping", "orders/mail", "dora", "n1"))
    assert errands.take(storage, "n2", doubted).keys() == {later}
    errands.say_again(storage, "n2", waits, 5)
    errands.say_again(storage, "n2", begun, 5)
    assert errands.take(storage, "n2", doubted).keys() == {waits}
    errands.say_again(storage, "n2", waits, 9)
    assert errands.take(storage, "n2", doubted) == {}, "none is taken twice"


def test_a_sidecar_that_starts_answers_who_still_waits_and_nobody_else(
    place: Place,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asked before its first look: one by somebody who lives, one by somebody who died long ago."""
    shared, _ = share(place, "test", "n2")
    dead = errands.ask(shared, "test", Errand("send", "orders/mail", "bert", "n2", b"never"))
    errand = Errand("course", "orders/mail", "anna", "n2", b"300")
    asking = gevent.spawn(elsewhere.through, shared, "test", errand, Parcel, 20.0)
    wait(lambda: len(errands.look(shared, "test")) == 2)
    sidecar = _Errander(place.desk, Log("web", str(place.directory / "log")))
    wait(lambda: sidecar.look("local") or asking.dead)
    assert isinstance(asking.get(), Parcel)
    assert {word: one.taken for word, one in errands.look(shared, "test").items()} == {dead: False}
    monkeypatch.setattr("pepperbus.web.errands.monotonic", lambda: float("inf"))
    sidecar.look("local")
    assert errands.look(shared, "test") == {}


def wait(condition: Callable[[], bool]) -> None:
    with gevent.Timeout(30):
        while not condition():
            gevent.sleep(0.05)
