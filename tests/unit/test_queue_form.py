"""The form of a queue, as a browser sends it: free sections, several topics, mistakes where they belong."""

from __future__ import annotations

import html
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pepperbus.config.load import load
from pepperbus.config.spec import schema
from tests.unit.test_web import Place

PAGE = {"Accept": "text/html", "Origin": "http://localhost", "HX-Request": "true"}
QUEUE = """\
# who owns this queue: the shop team
password = the-secret
storage = local
system = shop
[topics]
    [[mail]]
        run = http   # a service of ours
        url = http://127.0.0.1:9/none
        [[[headers]]]
            X-Shop = one
            # the key of that service
            X-Api-Key = hidden-one
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    (tmp_path / "queues.d" / "orders.conf").write_text(QUEUE)
    place.office.take(load(tmp_path / "node.conf", {}))
    yield place
    place.office.close()


def form_of(place: Place, path: str) -> dict[str, str]:
    """The fields of the page's form with what they hold."""
    text = place.text(path)
    fields = dict(re.findall(r'<input class="form-control"[^>]*? name="([^"]+)"[^>]*? value="([^"]*)"', text))
    if was := re.search(r'<input type="hidden" name="was" value="([^"]*)"', text):
        fields["was"] = html.unescape(was[1])
    fields |= dict(re.findall(r'<textarea[^>]* name="([^"]+)"[^>]*>([^<]*)</textarea>', text))
    for select, inside in re.findall(
        r'<select class="form-select"[^>]* name="([^"]+)"[^>]*>(.*?)</select>', text, re.S
    ):
        chosen = re.search(r'value="([^"]*)" selected', inside)
        fields[select] = chosen[1] if chosen else ""
    return fields


def post(place: Place, path: str, form: dict[str, Any]) -> tuple[int, str]:
    answer = place.client.post(path, data={"csrf_token": "", **form}, headers=PAGE)  # a browser sends no empty form
    return answer.status_code, answer.get_data(as_text=True)


def file_of(place: Place, name: str = "orders") -> str:
    return (place.directory / "queues.d" / f"{name}.conf").read_text()


def test_the_form_as_it_comes_changes_nothing(place: Place) -> None:
    form = form_of(place, "/queues/orders/edit")
    assert form["lines:mail/headers"] == "X-Shop = one\nX-Api-Key = ***"
    assert "hidden-one" not in place.text("/queues/orders/edit")
    assert "Nothing is changed yet" in post(place, "/queues/orders/preview", form)[1]


def test_lines_are_set_changed_and_taken_out_and_comments_stay(place: Place) -> None:
    form = form_of(place, "/queues/orders/edit")
    form["lines:mail/headers"] = "X-Api-Key = ***\n\nX-New = a = b"
    assert post(place, "/queues/orders/save", form)[0] in (204, 409)  # 409: there is no bus to take it
    text = file_of(place)
    assert "X-Api-Key = hidden-one" in text
    assert "X-New = a = b" in text
    assert "X-Shop" not in text
    for comment in ("# who owns this queue: the shop team", "# a service of ours", "# the key of that service"):
        assert comment in text


@pytest.mark.parametrize(
    ("field", "text", "place_of_it", "words"),
    [
        ("lines:mail/headers", "X-Shop one", "f-mail--headers-wrong", "no line NAME = value"),
        ("lines:mail/headers", "X-Shop = one\nHost = elsewhere", "f-mail--headers-wrong", "host"),
        ("key:mail/timeout", "5 parsecs", "f-mail--timeout-wrong", "such as"),
        ("key:mail/alarms/backlog", "many", "f-mail--alarms--backlog-wrong", "such as 10000 for 5m"),
    ],
)
def test_a_mistake_stands_at_its_field(place: Place, field: str, text: str, place_of_it: str, words: str) -> None:
    form = form_of(place, "/queues/orders/edit") | {field: text}
    shown = post(place, "/queues/orders/preview", form)[1]
    found = re.search(rf'id="{place_of_it}">([^<]*)<', shown)
    assert found, shown
    assert words in found[1]


def test_a_topic_is_duplicated(place: Place) -> None:
    form = form_of(place, "/queues/orders/edit?like=mail")
    assert form["key:+/url"] == "http://127.0.0.1:9/none"
    assert form["lines:+/headers"] == "X-Shop = one", "a secret is not copied"
    post(place, "/queues/orders/save", form | {"name:+": "copy"})
    assert file_of(place).count("url = http://127.0.0.1:9/none") == 2


def test_a_new_queue_may_have_two_topics(place: Place) -> None:
    form = form_of(place, "/queues/new") | {"queue": "fresh", "key:main/url": "http://127.0.0.1:9/a"}
    form |= {"name:+": "second", "key:+/run": "http", "key:+/url": "http://127.0.0.1:9/b"}
    _status, text = post(place, "/queues/preview", form)
    assert "would be refused" not in text, text
    _status, text = post(place, "/queues/save", form)
    made = re.search(r'<code id="secret">([0-9a-f]{32})</code>', text)
    assert made, "the password that was made is shown once"
    assert f"password = {made[1]}\n" in file_of(place, "fresh")
    assert made[1] not in place.text("/queues/fresh/edit")
    assert "[[main]]" in file_of(place, "fresh")
    assert "[[second]]" in file_of(place, "fresh")


#: What a queue's file may hold and no form sets, and why that is right.
NO_FIELD = {
    "schedule": "a page of its own: /schedules/new",
    "intakes": "it empties a list of somebody's Redis by that one's login: by `queue set`, for administrators of everything",
}


def test_whatever_a_file_may_say_has_its_field(place: Place) -> None:
    """A topic's keys may stand at the queue's level too, as defaults: there they are written by hand, each topic has them."""
    queue, topic = schema()["queue"], schema()["topic"]
    wanted = {f"key:{key}" for key, option in queue.options.items() if not option.later}
    for where in ("mail", "+"):
        wanted |= {f"key:{where}/{key}" for key, option in topic.options.items() if not option.later}
        for name, section in topic.sections.items():
            wanted |= {f"key:{where}/{name}/{key}" for key in section.options}
            wanted |= {f"lines:{where}/{name}"} if section.any_option else set()
    page = place.text("/queues/orders/edit")
    there = set(re.findall(r'name="((?:key|lines):[^"]+)"', page))
    assert wanted == there
    assert set(queue.sections) - {"topics"} == NO_FIELD.keys()
    keys = schema()["queue"].sections["schedule"].any_section
    assert keys is not None
    fields = set(re.findall(r'name="key:([^"]+)"', place.text("/schedules/new")))
    assert fields == keys.options.keys()


def test_a_command_is_set_by_form(place: Place) -> None:
    form = form_of(place, "/queues/orders/edit") | {"name:+": "work", "key:+/run": "command"}
    form |= {"key:+/command": "php /data/app/worker.php", "key:+/feed": "stdin", "key:+/children": "1..4"}
    form |= {"key:+/max_task": "50", "key:+/max_memory": "256MiB", "lines:+/environment": "APP_ENV = production"}
    _status, shown = post(place, "/queues/orders/preview", form)
    assert "would be refused" not in shown, shown
    post(place, "/queues/orders/save", form)
    place.office.take(load(place.directory / "node.conf", {}))
    made = place.office.config.queues["orders"].topics["work"]
    assert (made.command, made.feed, made.least, made.concurrency) == (("php", "/data/app/worker.php"), "stdin", 1, 4)
    assert (made.max_task, made.max_memory, made.environment) == (50, 256 << 20, (("APP_ENV", "production"),))


# -- files as wholes ---------------------------------------------------------------------------------------------------


def texts(page: str) -> dict[str, str]:
    """What a page of trials would put in force."""
    return {field: html.unescape(text) for field, text in re.findall(r'name="(file:[^"]+)" value="([^"]*)"', page)}


def test_a_file_goes_out_with_stars_and_comes_back_as_it_was(place: Place) -> None:
    out = place.text("/queues/orders/file")
    assert out.count("***") == 2
    assert "secret" not in out
    assert "hidden-one" not in out
    assert "# a service of ours" in out
    page = post(place, "/queues/files/try", {"name": "orders", "text": out})[1]
    assert "same as the one here" in page
    changed = out.replace("X-Shop = one", "X-Shop = two")
    page = post(place, "/queues/files/try", {"name": "orders", "text": changed})[1]
    assert file_of(place) == QUEUE, "nothing is saved by looking"
    post(place, "/queues/files/put", texts(page))
    assert file_of(place) == QUEUE.replace("X-Shop = one", "X-Shop = two")


def test_all_files_go_out_and_come_in_at_once(place: Place) -> None:
    archive = place.get("/queues/files.zip").data
    assert zipfile.ZipFile(io.BytesIO(archive)).namelist() == ["orders.conf"]
    (place.directory / "queues.d" / "orders.conf").unlink()
    fresh = (
        b"system = shop\npassword = ***\n[topics]\n    [[a]]\n        run = http\n        url = http://127.0.0.1:9/\n"
    )
    form = {"files": [(io.BytesIO(archive), "queues.zip"), (io.BytesIO(fresh), "fresh.conf")]}
    page = post(place, "/queues/files/try", form)[1]
    assert "there is no such secret here yet" in page, "the secrets of a file that is gone are gone"
    assert list(texts(page)) == ["file:fresh"]
    post(place, "/queues/files/put", texts(page))
    assert re.search(r"password = [0-9a-f]{32}\n", file_of(place, "fresh"))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("orders", "password = x\nbroken [", "orders.conf:2"),
        ("orders", QUEUE.replace("hidden-one", "file:/etc/shadow"), "written into the queue&#39;s file by hand"),
        ("orders", QUEUE.replace("http   #", "smoke   #"), "smoke"),
        ("../evil", QUEUE, "cannot name a queue"),
    ],
)
def test_a_file_that_is_wrong_is_not_offered(place: Place, name: str, text: str, words: str) -> None:
    status, page = post(place, "/queues/files/try", {"name": name, "text": text})
    assert words in page
    assert texts(page) == {}
    status, page = post(place, "/queues/files/put", {f"file:{name}": text})
    assert (status, words in page) == (409, True)
    assert file_of(place) == QUEUE


def test_a_removed_queue_is_brought_back(place: Place) -> None:
    post(place, "/delete/orders", {})
    place.office.take(load(place.directory / "node.conf", {}))
    at_ms = re.search(r'name="at_ms" value="(\d+)"', place.text("/queues/files"))
    assert at_ms
    post(place, "/queues/orders/rollback", {"at_ms": at_ms[1]})
    assert file_of(place) == QUEUE


# -- two at once -------------------------------------------------------------------------------------------------------


def saved(place: Place, form: dict[str, str]) -> tuple[int, str]:
    """The file is changed though no bus takes it."""
    return post(place, "/queues/orders/save", form)


def test_what_somebody_else_saved_meanwhile_stays(place: Place) -> None:
    anna, ben = form_of(place, "/queues/orders/edit"), form_of(place, "/queues/orders/edit")
    saved(place, anna | {"key:mail/concurrency": "8", "key:system": "depot"})
    saved(place, ben | {"key:mail/timeout": "30s"})
    text = file_of(place)
    assert ("concurrency = 8" in text, "timeout = 30s" in text, "system = depot" in text) == (True, True, True)


def test_the_same_field_changed_by_two_is_said_and_not_overwritten(place: Place) -> None:
    anna, ben = form_of(place, "/queues/orders/edit"), form_of(place, "/queues/orders/edit")
    saved(place, anna | {"key:mail/concurrency": "8"})
    told = "mail/concurrency: somebody changed this to 8 since the page was opened"
    status, text = saved(place, ben | {"key:mail/concurrency": "9"})
    assert (status, told in html.unescape(text)) == (409, True)
    _status, text = post(place, "/queues/orders/preview", ben | {"key:mail/concurrency": "9"})
    assert "somebody changed this to 8 since the page was opened" in html.unescape(text)
    assert "concurrency = 8" in file_of(place)
    saved(place, ben | {"key:mail/concurrency": "8", "key:mail/attempts": "3"})
    assert "attempts = 3" in file_of(place)


def test_a_topic_that_somebody_deleted_does_not_come_back_by_saving(place: Place) -> None:
    form = form_of(place, "/queues/orders/edit")
    text = file_of(place).replace("system = shop", "system = shop\nrun = http\nurl = http://127.0.0.1:9/x")
    (place.directory / "queues.d" / "orders.conf").write_text(text[: text.index("    [[mail]]")] + "    [[other]]\n")
    status, answer = saved(place, form | {"key:mail/concurrency": "8"})
    assert (status, "somebody removed it meanwhile" in html.unescape(answer)) == (409, True)
    assert "[[mail]]" not in file_of(place)


def test_a_form_whose_memory_was_tampered_with_is_refused(place: Place) -> None:
    form = form_of(place, "/queues/orders/edit")
    for was in ("{", "[]", '{"a": 1}'):
        assert saved(place, form | {"was": was, "key:mail/concurrency": "8"})[0] == 409
    assert "concurrency = 8" not in file_of(place)
