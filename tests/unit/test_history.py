"""History: what the ticker samples is what operations read, through a restart and over a minute's border."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pepperbus import stats
from pepperbus.errors import PepperbusError
from pepperbus.journal import samples
from pepperbus.operations.history import STEPS, Course, Parcel, Part, _part, drawn, merged, packed, unpacked
from pepperbus.storage.contract import Depth
from pepperbus.ticker.history import History

AT = 1_800_000_000  # a full minute


class Place:
    """A ticker's view of one topic, without the ticker."""

    def __init__(self, directory: Path) -> None:
        self.writer = stats.Writer(directory / "run" / "stats", "worker.x.0")
        self.record = self.writer.record("q/t")
        self.depth = Depth()
        topic = SimpleNamespace(full_name="q/t", storage="local")
        bus = SimpleNamespace(data_dir=directory / "data", run_dir=directory / "run")
        self.config: Any = SimpleNamespace(bus=bus, queues={"q": SimpleNamespace(topics={"t": topic})})
        self.storages: Any = {"local": SimpleNamespace(depths=lambda names: dict.fromkeys(names, self.depth))}
        self.database = directory / "data" / "history.db"
        self.begin()

    def begin(self) -> None:
        """A ticker starts."""
        self.history = History(lambda: self.config, self.storages, lambda work, *args: work(*args), lambda rows: None)


def course(place: Place, back_s: int, now_s: int) -> Course:
    return drawn(_part(place.database, "q/t", back_s, now_s))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_second_is_a_second_and_a_block_has_its_percentiles(place: Place) -> None:
    place.record.add("done", 7)  # before anybody looked: nobody can say when
    place.history.look(AT)
    place.record.add("done", 30)
    for _ in range(30):
        place.record.observe("run", 0.020)
    place.depth = Depth(ready=5, oldest_ms=1)
    place.history.look(AT + 3)
    place.history.look(AT + 10)
    found = course(place, 300, AT + 20)
    at = found.at.index(AT + 3)
    assert found.counts["done"][at - 1 : at + 2] == [0.0, 30.0, 0.0]
    assert found.run["p99"][at] == pytest.approx(0.020, rel=0.05)
    assert found.gauges["ready"][at] == 5
    assert found.counts["done"][found.at.index(AT - 5)] is None, "nobody looked then"


def test_a_minute_is_the_sum_of_its_blocks_through_a_restart(place: Place) -> None:
    place.history.look(AT)
    for second in (5, 15):
        place.record.add("done", 60)
        place.record.observe("wait", 0.001, 60)
        place.history.look(AT + second)
    place.history.look(AT + 20)
    place.begin()
    place.history.look(AT + 25)
    place.record.add("done", 120)
    place.record.observe("wait", 1.0, 120)
    place.history.look(AT + 31)
    place.history.look(AT + 40)
    found = course(place, 6 * 3600, AT + 120)
    at = found.at.index(AT)
    assert found.counts["done"][at] == pytest.approx(240 / 60)
    assert found.wait["p50"][at] == pytest.approx(0.001, rel=0.05)
    assert found.wait["p99"][at] == pytest.approx(1.0, rel=0.05)


def test_an_idle_topic_costs_no_row_and_stays_as_it_stood(place: Place) -> None:
    place.depth = Depth(ready=3)
    place.history.look(AT)
    for second in range(10, 100, 10):
        place.history.look(AT + second)
    rows, looked = samples.read(place.database, "q/t", samples.BLOCK_S, AT)
    assert len(rows) == 1
    assert len(looked) == 9
    found = course(place, 300, AT + 90)
    assert found.gauges["ready"][found.at.index(AT + 80)] == 3


def test_what_is_too_old_goes(place: Place) -> None:
    for width, age in ((samples.BLOCK_S, 2 * 3600), (samples.MINUTE_S, 32 * 86400)):
        samples.write(place.database, width, AT - age, [("q/t", samples.Sample([1] * 8, [0] * 7))])
        samples.write(place.database, width, AT, [("q/t", samples.Sample([1] * 8, [0] * 7))])
    samples.retain(place.database, AT, 1 << 30)
    for width in (samples.BLOCK_S, samples.MINUTE_S):
        assert [at for at, _ in samples.read(place.database, "q/t", width, 0)[0]] == [AT]


def test_the_parts_of_two_nodes_are_one_course(tmp_path: Path) -> None:
    """A quick node and a slow one, which ends earlier and did not look all the time."""
    quick, slow = Place(tmp_path / "quick"), Place(tmp_path / "slow")
    for place, seconds, runs, n in ((quick, 40, 0.001, 99), (slow, 20, 2.0, 1)):
        place.depth = Depth(ready=5)
        place.record.set("window", 4)
        place.history.look(AT)
        place.record.add("done", n)
        for _ in range(n):
            place.record.observe("run", runs)
        for second in range(1, seconds + 1):
            place.history.look(AT + second)
    parts = [_part(place.database, "q/t", 300, AT + end) for place, end in ((quick, 40), (slow, 20))]
    both = drawn(merged(parts[0], parts[1:]))
    assert both.at[-1] == AT + 19, "as far as both have told"
    at = both.at.index(AT + 1)
    assert both.counts["done"][at] == 100.0
    assert both.gauges["ready"][at] == 5, "the same jobs in the storage they share"
    assert both.gauges["window"][at] == 8
    assert both.run["p50"][at] == pytest.approx(0.001, rel=0.05)
    assert both.run["p99"][at] == pytest.approx(0.001, rel=0.05)
    assert drawn(parts[1]).run["p50"][parts[1].at.index(AT + 1)] == pytest.approx(2.0, rel=0.05)
    assert both.counts["done"][both.at.index(AT - 1)] is None, "neither looked then"
    assert drawn(merged(parts[0], [])) == drawn(parts[0])
    assert drawn(merged(parts[0], [Part(1, 10, [], [[]] * 8, [[]] * 7)])).at == []


def test_a_part_that_travels_is_the_same(place: Place) -> None:
    place.history.look(AT)
    place.record.add("done", 3)
    place.record.observe("wait", 0.020)
    place.history.look(AT + 5)
    place.history.look(AT + 10)
    for back_s in STEPS:
        made = _part(place.database, "q/t", back_s, AT + 3600)
        assert unpacked(packed(made)) == made
    for other in (Parcel("no part"), packed(Part(1, 10, [1], [[None]] * 8, [[None]] * 6)), packed(Part(1, 10, [1]))):
        with pytest.raises(PepperbusError):
            unpacked(other)
