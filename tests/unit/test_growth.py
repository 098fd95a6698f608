"""How storages fill: lines of the ticker, days left, what the page and the status say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pepperbus.journal import growth
from pepperbus.operations import storages
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
