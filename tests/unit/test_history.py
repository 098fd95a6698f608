"""History: what the ticker samples is what operations read, through a restart and over a minute's border."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pepperbus import stats
from pepperbus.journal import samples
from pepperbus.operations.history import _course
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
        self.storages: Any = {"local": SimpleNamespace(depth=lambda name: self.depth)}
        self.database = directory / "data" / "history.db"
        self.begin()

    def begin(self) -> None:
        """A ticker starts."""
        self.history = History(lambda: self.config, self.storages, lambda work, *args: work(*args), lambda rows: None)


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
    found = _course(place.database, "q/t", 300, AT + 20)
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
    found = _course(place.database, "q/t", 6 * 3600, AT + 120)
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
    found = _course(place.database, "q/t", 300, AT + 90)
    assert found.gauges["ready"][found.at.index(AT + 80)] == 3


def test_what_is_too_old_goes(place: Place) -> None:
    for width, age in ((samples.BLOCK_S, 2 * 3600), (samples.MINUTE_S, 32 * 86400)):
        samples.write(place.database, width, AT - age, [("q/t", samples.Sample([1] * 8, [0] * 7))])
        samples.write(place.database, width, AT, [("q/t", samples.Sample([1] * 8, [0] * 7))])
    samples.retain(place.database, AT, 1 << 30)
    for width in (samples.BLOCK_S, samples.MINUTE_S):
        assert [at for at, _ in samples.read(place.database, "q/t", width, 0)[0]] == [AT]
