"""Schedules made, changed and deleted: by form as a browser sends it, by the API, by `queue set` and `schedule add`."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

import pytest

from pepperbus.config.load import load
from pepperbus.operations import drafts, queues, schedules
from pepperbus.operations.office import Office
from tests.unit.test_queue_form import file_of, post
from tests.unit.test_queue_form import form_of as raw_form_of
from tests.unit.test_web import Place

QUEUE = """\
password = the-secret
[topics]
    [[mail]]
        run = http
        url = http://127.0.0.1:9/none
[schedule]
    # asked for by the shop
    [[tick]]
        expression = @every 90s   # not too often
        payload = "{""a"": 1}"
"""
QUEUE = QUEUE.replace('"{""a"": 1}"', '\'{"a": 1, "b": 2}\'')
NIGHTLY = {"key:expression": "30 3 * * 1,5", "key:zone": "Asia/Shanghai", "key:payload": '{"what": "report", "n": 1}'}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    (tmp_path / "queues.d" / "orders.conf").write_text(QUEUE)
    _take(place)
    yield place
    place.office.close()


def _take(place: Place) -> None:
    place.office.take(load(place.directory / "node.conf", {}))


def form_of(place: Place, path: str) -> dict[str, str]:
    return {field: html.unescape(text) for field, text in raw_form_of(place, path).items()}


def test_the_form_as_it_comes_changes_nothing(place: Place) -> None:
    form = form_of(place, "/schedules/orders/tick/edit")
    assert form["key:expression"] == "@every 90s"
    assert "Nothing is changed yet" in post(place, "/schedules/orders/tick/preview", form)[1]


def test_a_new_one_is_previewed_in_words_with_its_times_and_saved(place: Place) -> None:
    form = form_of(place, "/schedules/new") | NIGHTLY | {"queue": "orders", "name": "nightly"}
    shown = post(place, "/schedules/preview", form)[1]
    assert "would be refused" not in shown, shown
    assert "At 03:30" in shown
    assert shown.count(" 03:30:00") == 5
    assert "+    [[nightly]]" in shown
    assert "nightly" not in file_of(place), "nothing is saved by looking"
    assert post(place, "/schedules/save", form)[0] in (204, 409)  # 409: there is no bus to take it
    _take(place)
    made = place.office.config.queues["orders"].schedule["nightly"]
    assert (made.timing.expression, made.timing.zone) == ("30 3 * * 1,5", "Asia/Shanghai")
    assert made.payload == NIGHTLY["key:payload"]
    assert "# asked for by the shop" in file_of(place)
    assert "exists already" in post(place, "/schedules/save", form)[1]


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"key:expression": "61 * * * *"}, "expression", "the minute is wrong"),
        ({"key:expression": ""}, "expression", "expression is missing"),
        ({"key:zone": "Moon/Base"}, "zone", "no time zone"),
        ({"key:gap": "5s"}, "gap", "it needs times = 2"),
        ({"name": "a b"}, "name", "choose a name"),
        ({"name": "tick"}, "name", "of this name already"),
    ],
)
def test_a_mistake_stands_at_its_field(place: Place, given: dict[str, str], field: str, words: str) -> None:
    form = form_of(place, "/schedules/new") | NIGHTLY | {"queue": "orders", "name": "nightly"} | given
    shown = post(place, "/schedules/preview", form)[1]
    said = shown.partition(f'id="f-{field}-wrong">')[2].partition("<")[0]
    assert words in said, shown


def test_changed_and_deleted(place: Place) -> None:
    form = form_of(place, "/schedules/orders/tick/edit") | {"key:expression": "@hourly", "key:payload": ""}
    post(place, "/schedules/orders/tick/save", form)
    _take(place)
    made = place.office.config.queues["orders"].schedule["tick"]
    assert (made.timing.expression, made.payload) == ("@hourly", "")
    assert "# not too often" in file_of(place)
    post(place, "/schedules/orders/tick/delete", {})
    _take(place)
    assert place.office.config.queues["orders"].schedule == {}
    assert "[schedule]" not in file_of(place)
    assert place.get("/schedules/orders/tick/edit").status_code == 404


@pytest.fixture
def office(place: Place) -> Iterator[Office]:
    """As the command line has one."""
    office = Office(place.office.config)
    yield office
    office.close()


def test_queue_set_speaks_of_schedules_and_of_a_topic_of_that_name(place: Place, office: Office) -> None:
    queues.change(office, "orders", {"schedule/tick/jitter": "30s"})
    office.config = load(place.directory / "node.conf", {})
    assert office.config.queues["orders"].schedule["tick"].jitter == 30.0
    assert drafts.written(office, "orders")["schedule/tick/jitter"] == "30s"
    topic = {"schedule/run": "http", "schedule/url": "http://127.0.0.1:9/s", "schedule/headers/X-Shop": "one"}
    queues.change(office, "orders", topic)
    office.config = load(place.directory / "node.conf", {})
    assert office.config.queues["orders"].topics["schedule"].headers == (("X-Shop", "one"),)


def test_the_operations_say_what_is_wrong(place: Place, office: Office) -> None:
    for call, words in (
        (lambda: schedules.add(office, "orders/tick", {"expression": "@daily"}), "exists already"),
        (lambda: schedules.add(office, "orders/params", {"expression": "@daily"}), "QUEUE/SCHEDULE is wanted"),
        (lambda: schedules.change(office, "orders/none", {"times": "2"}), "no schedule"),
        (lambda: schedules.remove(office, "orders/none"), "no schedule"),
        (lambda: schedules.change(office, "orders/tick", {"times": "many"}), "whole number"),
    ):
        with pytest.raises(Exception, match=words):
            call()
    assert file_of(place) == QUEUE


def test_a_chinese_visitor_reads_mistakes_in_chinese(place: Place) -> None:
    place.client.set_cookie("pepperbus_language", "zh")
    form = form_of(place, "/schedules/orders/tick/edit") | {"key:expression": "61 * * * *"}
    assert "分 不对；允许：0-59" in post(place, "/schedules/orders/tick/preview", form)[1]
    assert "分 不对；允许：0-59" in post(place, "/schedules/orders/tick/save", form)[1]
    assert "没有队列" in post(place, "/queues/nowhere/save", {"key:system": "x"})[1]
    place.client.delete_cookie("pepperbus_language")


def test_what_somebody_else_saved_meanwhile_stays(place: Place) -> None:
    path = "/schedules/orders/tick"
    anna, ben = form_of(place, f"{path}/edit"), form_of(place, f"{path}/edit")
    post(place, f"{path}/save", anna | {"key:times": "3"})
    post(place, f"{path}/save", ben | {"key:jitter": "5s"})
    assert ("times = 3" in file_of(place), "jitter = 5s" in file_of(place)) == (True, True)
    for deed, status in (("save", 409), ("preview", 200)):
        found, text = post(place, f"{path}/{deed}", ben | {"key:times": "4"})
        assert (found, "somebody changed this to 3 since the page was opened" in html.unescape(text)) == (status, True)
    assert "times = 3" in file_of(place)
