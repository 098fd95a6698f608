"""The dashboard's pages without a browser: who sees what, what a plain form gets, what is wrong said as a page."""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path

import gevent
import pytest

from pepperbus.accounts.model import Actor, Role
from pepperbus.clock import ManualClock
from pepperbus.config.load import load
from pepperbus.config.model import StorageConfig
from pepperbus.errors import NotReachable
from pepperbus.nodes import errands
from pepperbus.operations import elsewhere, replays
from pepperbus.operations.results import IntakeStatus, Status
from pepperbus.operations.status import StatusReader
from pepperbus.storage.memory import MemoryStorage
from pepperbus.web import frame
from pepperbus.web.told import Round
from tests.unit.test_web import Place, log_in, place  # noqa: F401

HTMX = {"HX-Request": "true", "Accept": "text/html", "Origin": "http://localhost"}

PATHS = (
    *(
        "/",
        "/queues",
        "/queues.csv",
        "/topics/orders/mail",
        "/topics/orders/mail/jobs",
        "/search",
        "/errors",
        "/alarms",
        "/replays",
        "/console",
    ),
    *("/schedules", "/schedules/orders/tick"),
    *("/storage", "/consumers", "/nodes", "/topics/orders/mail/points/rates?back=300"),
)


@pytest.mark.parametrize("path", PATHS)
def test_a_viewer_sees_every_page_and_no_button_of_others(place: Place, path: str) -> None:  # noqa: F811
    place.push(3)
    client = log_in(place.app.test_client(), place.desk, "viola", shop="viewer")
    answer = client.get(path, headers={"Accept": "text/html"})
    text = answer.get_data(as_text=True)
    assert answer.status_code == 200, text
    for button in ("/pause", "/ask/purge", "/edit", "/concurrency", "/reload"):
        assert f'{button}"' not in text


def test_a_system_is_no_formula_in_a_table(place: Place) -> None:  # noqa: F811
    path = place.directory / "queues.d" / "orders.conf"
    path.write_text(path.read_text().replace("system = shop", "system = '=1+1'"))
    place.office.take(load(place.directory / "node.conf", {}))
    (row,) = csv.DictReader(io.StringIO(place.text("/queues.csv")))
    assert (row["system"], row["name"]) == ("'=1+1", "orders/mail")


def test_what_a_viewer_may_not_do_is_refused_all_the_same(place: Place) -> None:  # noqa: F811
    client = log_in(place.app.test_client(), place.desk, "viola", shop="viewer")
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    for path in ("/topics/orders/mail/pause", "/topics/orders/mail/purge", "/queues/orders/save", "/delete/orders"):
        assert client.post(path, headers=form, data="state=dead").status_code in (403, 409), path
    answer = client.get("/queues/orders/edit", headers={"Accept": "text/html"})
    assert answer.status_code == 403
    assert "viola may not" in answer.get_data(as_text=True)


def test_another_system_is_not_there(place: Place) -> None:  # noqa: F811
    client = log_in(place.app.test_client(), place.desk, "otto", other="viewer")
    assert "/topics/orders/mail" not in client.get("/queues").get_data(as_text=True)
    assert client.get("/topics/orders/mail", headers={"Accept": "text/html"}).status_code in (403, 404)


def test_a_plain_form_comes_back_and_only_to_us(place: Place) -> None:  # noqa: F811
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    for back, goes in (("/queues?q=mail", "/queues?q=mail"), ("https://evil.example/", "/"), ("//evil.example", "/")):
        answer = place.client.post("/topics/orders/mail/pause", headers=form, data={"back": back})
        assert (answer.status_code, answer.location) == (303, goes)
        answer = place.client.get(f"/look?language=zh&back={back}")
        assert (answer.status_code, answer.location) == (303, goes)
    assert place.office.storage("local").paused() == {"orders/mail"}


def test_a_consumer_is_closed_opened_and_limited_where_it_is_seen(place: Place) -> None:  # noqa: F811
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    for now, offered in (("resume", "pause"), ("pause", "resume")):
        place.client.post(f"/topics/orders/mail/{now}", headers=form)
        text = place.text("/consumers")
        assert f'hx-post="/topics/orders/mail/{offered}"' in text
        assert f'hx-post="/topics/orders/mail/{now}"' not in text
    assert 'href="/topics/orders/mail#concurrency"' in text
    assert 'id="concurrency"' in place.text("/topics/orders/mail")


def test_htmx_gets_a_toast(place: Place) -> None:  # noqa: F811
    headers = {
        "HX-Request": "true",
        "Content-Type": "application/x-www-form-urlencoded",
        "Sec-Fetch-Site": "same-origin",
    }
    answer = place.client.post("/topics/orders/mail/resume", headers={**headers, "Cookie": ""})
    assert answer.status_code == 204
    assert "orders/mail" in answer.headers["HX-Trigger"]


def test_what_is_not_there_is_a_page_for_people(place: Place) -> None:  # noqa: F811
    for path in ("/none", "/topics/orders/none", "/jobs/13617172140100419594"):
        answer = place.client.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 404
        assert "<h2>" in answer.get_data(as_text=True)
    assert place.client.get("/api/v1/none").is_json


def test_a_stream_holds_no_token(place: Place) -> None:  # noqa: F811
    """What is shared among people must not hold what is one person's."""
    place.push(1)
    answer = place.client.get("/queues", headers={"Accept": "text/event-stream"})
    first = next(iter(answer.response)).decode()  # type: ignore[union-attr]
    answer.close()
    assert "orders/mail" in first
    assert 'name="csrf_token" value=""' in first
    assert place.client.environ_base["HTTP_X_CSRF_TOKEN"] not in first


def test_without_the_front_end_files_the_pages_are_whole(
    place: Place,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare = tmp_path / "static"
    shutil.copytree(frame.STATIC, bare, ignore=shutil.ignore_patterns("vendor"))
    monkeypatch.setattr(frame, "STATIC", bare)
    monkeypatch.setattr(frame, "_assets", {})
    text = place.text("/queues")
    assert "/topics/orders/mail" in text
    assert "vendor" not in text
    assert 'src=""' not in text
    assert 'href=""' not in text


def test_a_schedule_in_words_paused_and_resumed(place: Place) -> None:  # noqa: F811
    client = log_in(place.app.test_client(), place.desk, "otto", shop="operator")
    html = {"Accept": "text/html"}
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    client.get("/look?language=zh&back=/")
    for path in ("/schedules", "/schedules/orders/tick"):
        text = client.get(path, headers=html).get_data(as_text=True)
        assert "1 月 1 日 00:00" in text
        assert "下一次" in text or "接下来几次" in text
    for deed, paused in (("pause", True), ("resume", False)):
        answer = client.post(f"/schedules/orders/tick/{deed}", headers=form)
        assert answer.status_code == 303, answer.get_data(as_text=True)
        found = client.get("/api/v1/schedules/orders/tick").get_json()
        assert (found["paused"], found["paused_by"]) == (paused, "otto" if paused else "")
    assert [entry.what for entry in place.office.audit.search().entries] == ["schedule.resume", "schedule.pause"]
    assert client.post("/schedules/orders/tick/burn", headers=form).status_code == 404


def test_how_a_list_is_taken_over_is_on_the_topics_page(
    place: Place,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [
        IntakeStatus("legacy", "old:orders", moved=123, rate=5.0, waiting=77, refused=2, error="cannot connect <now>"),
        IntakeStatus("other", "more", holder="node-2 host:/data orders/other"),
    ]

    def master(reader: StatusReader, status: Status) -> dict[str, str]:  # there is none here
        reader._intakes = {"orders": found}
        return {}

    monkeypatch.setattr(StatusReader, "_ask_master", master)
    text = place.text("/topics/orders/mail")
    for word in ("old:orders", "123", "77", "cannot connect &lt;now&gt;", "taken by node-2", "Set aside, no jobs: 2"):
        assert word in text
    place.client.get("/look?language=zh&back=/")
    assert "正由 node-2" in place.text("/topics/orders/mail")


def share(place: Place, *nodes: str) -> tuple[MemoryStorage, ManualClock]:  # noqa: F811
    """Puts a storage in which these nodes have just said that they live under the place."""
    clock = ManualClock()
    shared = MemoryStorage(StorageConfig("local", "memory"), clock)
    shared.open()
    for node in nodes:
        shared.heartbeat(node)
    place.office._storages["local"] = shared
    return shared, clock


def test_other_nodes_are_seen_and_missed(place: Place) -> None:  # noqa: F811
    assert "nodes alive" not in place.text("/")
    shared, clock = share(place, "test", "n2", "n3")
    clock.advance(60)
    for node in ("test", "n2"):
        shared.heartbeat(node)
    place.desk.monitor.forget()
    overview, nodes = place.text("/"), place.text("/nodes")
    assert '<b>2<span class="soft"> / 3</span></b>' in overview
    assert "Node n3 has said nothing for 60 s" in overview
    assert "Node n2 has said" not in overview
    assert re.findall(r"<h2>(n\d)</h2>.*?state-(\w+)", nodes) == [("n2", "answers"), ("n3", "down")]
    assert "asked, no answer yet" in nodes.partition("<h2>n2")[2].partition("<h2>n3")[0]
    assert "last sign of life 60 s ago" in nodes.partition("<h2>n3")[2]
    told = place.get("/api/v1/status").json["nodes"]
    assert [(one["name"], one["alive"], one["storages"]) for one in told] == [
        ("n2", True, ["local"]),
        ("n3", False, ["local"]),
    ]
    shared.leave("n3")
    place.desk.monitor.forget()
    assert "n3" not in place.text("/nodes")


def test_a_node_that_does_not_answer_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Asked once, while somebody looks; what it does not tell is said, in its card, its line and its row of the API."""
    monkeypatch.setattr(elsewhere, "_TAKEN_WITHIN_S", 0.1)
    shared, _clock = share(place, "test", "n2", "n3")
    shared.heartbeat("n2")
    place.desk.monitor.forget()
    why = "node n2 did not take it in 0 s: does its sidecar run ([web] listen)?"
    place.text("/")
    assert errands.look(shared, "n2") == {}, "nobody opened a line: nobody is asked"
    reports = {one["node"]: one for one in place.get("/api/v1/nodes").json}
    assert (reports["n2"]["told"], reports["n2"]["error"]) == (None, why)
    assert reports["test"]["told"]["processes"] == []
    assert why in place.text("/nodes")
    lines = {line["node"]: line for line in place.get("/api/v1/systems").json}
    assert lines["n2"]["error"] == why
    assert lines["test"]["figures"]["queues"] == 1
    assert "" not in lines, "one node alone is no sum"
    place.get("/look?language=zh&back=/")
    assert "节点 n2 在 0 秒内没有接收" in place.text("/?open=shop")
    assert "节点 n2" not in place.text("/?open=bank")


def test_what_others_told_is_dated_and_kept_when_they_fall_silent() -> None:
    asked: list[str] = []

    def answer(key: str) -> str:
        asked.append(key)
        if len(asked) == 2:
            raise NotReachable("gone")
        return f"{key} {len(asked)}"

    fresh = [60.0]
    told: Round[str, str] = Round(answer, lambda _key: fresh[0], 60.0)
    assert told.look("a").value is None
    assert told.all(["a"], 20.0)["a"].value == "a 1"
    assert told.look("a").age_s < 60
    assert asked == ["a"], "what is young is not asked for again"
    fresh[0] = 0.0
    told.look("a")
    gevent.sleep(0)
    fell = told.look("a")
    assert (fell.value, fell.error, asked) == ("a 1", "gone", ["a", "a"]), "and not again at once"


def test_a_chart_says_which_node_it_is_without(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A node that shares the storage and does not answer: what is known is shown, and said to be not all."""
    monkeypatch.setattr(elsewhere, "_TAKEN_WITHIN_S", 0.1)
    shared, _clock = share(place, "test", "n2")
    page = place.text("/topics/orders/mail")
    assert 'href="/topics/orders/mail?node=n2"' in page
    both, mine, theirs = (
        place.get(f"/topics/orders/mail/points/rates?back=300{node}").json for node in ("", "&node=test", "&node=n2")
    )
    assert both["note"] == theirs["note"] == "No answer from n2: what it did is missing here."
    assert mine["note"] == ""
    assert set(theirs["data"][1]) == {None}, "a gap"
    assert place.get("/topics/orders/mail/points/rates?node=n3").status_code == 404
    shared.leave("n2")


def test_a_rate_that_is_none_replays_nothing(place: Place) -> None:  # noqa: F811
    """It was taken for "no limit", which is the opposite of what who types `5 per s` wants."""
    place.push(3)
    place.kill(3, "mail server said no")
    office = place.office.acting(Actor("anna", roles={"*": Role.ADMIN}))
    headers = {"Accept": "text/html", "Origin": "http://localhost"}
    for rate in ("fast", "5 per s", "nan", "-1"):
        answer = place.client.post("/topics/orders/mail/replay", headers=headers, data={"state": "dead", "rate": rate})
        assert (answer.status_code, "a rate is a" in answer.get_data(as_text=True)) == (400, True), rate
        assert replays.listing(office) == []
    answer = place.client.post("/topics/orders/mail/replay", headers=headers, data={"state": "dead", "rate": "50/s"})
    assert answer.status_code == 303, answer.get_data(as_text=True)
    assert replays.listing(office)[0].rate == 50.0


def test_how_many_run_and_how_many_start_is_changed_on_the_topics_page(place: Place) -> None:  # noqa: F811
    def change(**form: str) -> tuple[int, str]:
        answer = place.client.post("/topics/orders/mail/concurrency", data=form, headers=HTMX)
        place.office.take(load(place.directory / "node.conf", {}))
        return answer.status_code, (place.directory / "queues.d" / "orders.conf").read_text()

    assert 'name="rate" value=""' in place.text("/topics/orders/mail")
    status, text = change(concurrency="3", rate=" 50/s ")
    assert status < 300
    assert "concurrency = 3" in text
    assert "rate = 50/s" in text
    assert 'name="rate" value="50/s"' in place.text("/topics/orders/mail")
    assert "rate = 50/s" in change(concurrency="4")[1], "a form without it leaves it"
    status, text = change(concurrency="5", rate="fast")
    assert status == 409
    assert "rate = 50/s" in text
    status, text = change(concurrency="5", rate="")
    assert "concurrency = 5" in text
    assert "rate" not in text
    assert change(concurrency="5", rate="")[0] < 300
