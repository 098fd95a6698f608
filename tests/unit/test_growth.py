"""How storages fill, and how they are edited: lines of the ticker, days left, the node's file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pepperbus.config.load import load
from pepperbus.errors import ConfigError, PepperbusError, UsageError
from pepperbus.journal import growth
from pepperbus.operations import storage_files, storages
from pepperbus.operations.status import StatusReader
from tests.unit.test_web import Place

HOUR = 3_600_000
NOW = 1_800_000_000_000


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.office.close()


def fills(*used: int, step: int = HOUR) -> list[growth.Fill]:
    return [growth.Fill(NOW - (len(used) - 1 - i) * step, "local", one, 10_000) for i, one in enumerate(used)]


@pytest.mark.parametrize(
    ("lines", "speed"),
    [
        (fills(), None),
        (fills(5), None),
        (fills(5, 6, step=60_000), None),
        (fills(0, 100, 200, 300), 2400.0),
        (fills(300, 200, 100), -2400.0),
        (fills(7, 7, 7), 0.0),
        (fills(9_000, 0, 100, step=40 * HOUR), 60.0),  # what is older than three days is left out
    ],
)
def test_the_speed_is_the_slope_of_late(lines: list[growth.Fill], speed: float | None) -> None:
    found = growth.per_day(lines, NOW)
    assert found == (None if speed is None else pytest.approx(speed))


def test_days_left(place: Place) -> None:
    data_dir = place.config.bus.data_dir
    data_dir.mkdir(exist_ok=True)
    now = place.office.clock.now_ms()
    growth.add(data_dir, *(growth.Fill(now - (10 - i) * HOUR, "local", i * 1000, 100_000) for i in range(11)))
    (found,) = storages.growth(place.desk.itself)
    assert (found.name, found.known, round(found.per_day)) == ("local", True, 24_000)
    assert found.days_left == pytest.approx(90_000 / 24_000)
    text = place.text("/storage")
    assert "full in 4 days" in text


def test_the_status_counts_operations_and_who_is_there(place: Place) -> None:
    reader = StatusReader(place.desk.itself)
    reader.read()
    place.push(5)
    place.push(5)
    (found,) = reader.read().storages
    assert found.ops_s > 0
    assert found.clients >= 1
    assert found.latency_ms > 0
    assert found.limit > found.used > 0


def test_a_storage_is_added_changed_and_removed_in_the_nodes_file(place: Place) -> None:
    office, file = place.desk.itself, place.directory / "node.conf"
    file.write_text("# ours\n" + file.read_text())
    done = storage_files.add(office, "spare", {"type": "embedded", "store_timeout": "5s"})
    assert (done.what, done.reloaded) == ("created", False)
    config = load(file, {})
    assert config.storages["spare"].store_timeout == 5.0
    assert file.read_text().startswith("# ours\n")
    place.office.take(config)
    office = place.desk.itself
    storage_files.change(office, "spare", {}, ["store_timeout"])
    assert load(file, {}).storages["spare"].store_timeout == 3.0
    before = file.read_text()
    with pytest.raises(PepperbusError, match="exists already"):
        storage_files.add(office, "local", {"type": "embedded"})
    with pytest.raises(UsageError, match="a storage has the keys"):
        storage_files.add(office, "x", {"urll": "y"})
    with pytest.raises(ConfigError, match=r"node.conf:\d+: \[storages\] \[\[x\]\]: type = redis needs a url"):
        storage_files.add(office, "x", {"type": "redis"})
    with pytest.raises(PepperbusError, match="nothing was changed"):
        storage_files.add(office, "x", {"type": "redis", "url": "redis://:hush@127.0.0.1:1/0"})
    with pytest.raises(PepperbusError, match="1 topics lie in local"):
        storage_files.remove(office, "local")
    assert file.read_text() == before
    assert b"hush" not in b"".join(path.read_bytes() for path in office.audit.directory.glob("*"))
    assert storage_files.remove(office, "spare").what == "removed"
    assert "spare" not in load(file, {}).storages
    assert sorted(path.name for path in place.directory.glob(".*")) == []
