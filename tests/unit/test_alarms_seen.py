"""Alarms as people see and handle them: what each may see, silence and change, by API and by page."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from pepperbus.alarms.board import Incident
from pepperbus.alarms.store import Store
from pepperbus.config.load import load
from tests.unit.test_web import JSON, QUEUE, Place, log_in, place  # noqa: F401

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def wrong(place: Place) -> Place:  # noqa: F811
    """Two systems and the node itself, each with something wrong."""
    (place.directory / "queues.d" / "money.conf").write_text(QUEUE.replace("system = shop", "system = bank"))
    place.office.take(load(place.directory / "node.conf", {}))
    incidents = [
        Incident(1, "dead", "orders/mail", "shop", "n", 1_800_000_000_000, 3.0, 3.0, 1.0),
        Incident(2, "backlog", "money/mail", "bank", "n", 1_800_000_000_000, 20_000.0, 20_000.0, 10_000.0),
        Incident(3, "storage_down", "local", "", "n", 1_800_000_000_000, 1.0, 1.0, 1.0),
    ]
    Store(place.config.bus.data_dir).save({}, incidents)
    return place


def alarms(place: Place, name: str, path: str = "", **roles: str) -> Any:  # noqa: F811
    client = log_in(place.app.test_client(), place.desk, name, **roles)
    return client.get(f"/api/v1/alarms{path}").get_json()


def test_people_see_what_concerns_their_systems(wrong: Place) -> None:
    people = {"ann": {"shop": "viewer"}, "bob": {"bank": "viewer"}, "eve": {"*": "viewer"}}
    seen = {name: {one["id"] for one in alarms(wrong, name, **roles)["open"]} for name, roles in people.items()}
    assert seen == {"ann": {1}, "bob": {2}, "eve": {1, 2, 3}}
    past = {name: {one["id"] for one in alarms(wrong, name, "/history")["alarms"]} for name in people}
    assert past == seen


def test_who_reads_waits_for_no_writer(wrong: Place) -> None:
    store = Store(wrong.config.bus.data_dir)
    with closing(apsw.Connection(str(store.path))) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert (store.silences(0), store.waiting(), store.spoken()) == ([], [], {})
        assert len(store.history(0, 10)) == len(store.load()[1]) == 3


def test_an_operator_silences_its_own_system_only(wrong: Place) -> None:
    client = log_in(wrong.app.test_client(), wrong.desk, "ann", shop="operator")
    made = client.post("/api/v1/topics/orders/mail/silence", json={"rule": "dead", "for_s": 60, "why": "w"}).get_json()
    assert (made["subject"], made["rule"], made["who"], made["why"]) == ("orders/mail", "dead", "ann", "w")
    assert [one["silenced"] for one in client.get("/api/v1/alarms").get_json()["open"]] == [True]
    assert client.post("/api/v1/queues/money/silence", json={}).status_code == 403
    assert client.post("/api/v1/alarms/silences", json={}).status_code == 403
    bob = log_in(wrong.app.test_client(), wrong.desk, "bob", bank="operator")
    assert bob.get("/api/v1/alarms").get_json()["silences"] == []
    assert bob.delete(f"/api/v1/alarms/silences/{made['id']}", headers=JSON).status_code == 403
    assert client.delete(f"/api/v1/alarms/silences/{made['id']}", headers=JSON).get_json()["subject"] == "orders/mail"
    assert client.get("/api/v1/alarms").get_json()["silences"] == []
    deeds = [(entry.what, entry.about, entry.result) for entry in wrong.office.audit.search(who="ann").entries]
    assert ("alarm.silence", "orders/mail", "done") in deeds
    assert ("alarm.unsilence", "", "done") in deeds


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/alarms/silences", {"subject": "order"}, 404, "did you mean 'orders'"),
        ("/alarms/silences", {"rule": "backlo"}, 400, "did you mean 'backlog'"),
        ("/alarms/silences", {"for_s": 0}, 400, "90 days"),
        ("/alarms/silences", {"for_s": 1e12}, 400, "90 days"),
        ("/alarms/test", {}, 400, "[[channels]]"),
        ("/alarms/test", {"channel": "x"}, 404, "no channel"),
    ],
)
def test_mistakes_are_told(wrong: Place, path: str, body: dict[str, Any], status: int, said: str) -> None:
    answer = wrong.client.post(f"/api/v1{path}", json=body)
    assert (answer.status_code, said in answer.get_json()["error"]["message"]) == (status, True), answer.get_json()


@pytest.mark.parametrize("query", ["before=-1", "before=99999999999999999999", "limit=0", "rule=x", "language=fr"])
def test_queries_are_bounded(wrong: Place, query: str) -> None:
    assert wrong.client.get(f"/api/v1/alarms/history?{query}").status_code == 400


def test_history_goes_on_where_it_ended(wrong: Place) -> None:
    store = Store(wrong.config.bus.data_dir)
    store.save(
        {}, [Incident(n, "dead", "orders/mail", "shop", "n", n, 1.0, 1.0, 1.0, ended_ms=n + 5) for n in range(4, 34)]
    )
    seen: list[int] = []
    cursor = 0
    while True:
        page = wrong.client.get(f"/api/v1/alarms/history?limit=10&before={cursor}").get_json()
        seen += [one["id"] for one in page["alarms"]]
        cursor = page["cursor"]
        if not cursor:
            break
    assert seen == list(range(33, 0, -1))
    page = wrong.client.get("/api/v1/alarms/history?subject=money").get_json()
    assert [one["id"] for one in page["alarms"]] == [2]


def test_the_page_and_the_count_in_the_navigation(wrong: Place) -> None:
    text = wrong.client.get("/alarms", headers={"Accept-Language": "zh"}).get_data(as_text=True)
    assert "orders/mail：3 个死信" in text
    assert "存储 local 没有应答" in text
    assert '<b class="open-alarms" title="当前告警">3</b>' in text
    ann = log_in(wrong.app.test_client(), wrong.desk, "ann", shop="viewer")
    text = ann.get("/queues").get_data(as_text=True)
    assert 'class="open-alarms" title="Wrong now">1</b>' in text
    text = ann.get("/alarms").get_data(as_text=True)
    assert "money" not in text
    assert "/alarms/test" not in text
    assert "/alarms/silence" not in text, "a viewer is offered nothing"


def test_a_rule_of_its_own_by_the_form(wrong: Place) -> None:
    file = wrong.directory / "queues.d" / "orders.conf"
    form = {"where": "orders/mail", "rule": "backlog", "text": "5 for 1m, end 2", "back": "/alarms"}
    assert wrong.client.post("/alarms/rule", headers=FORM, data=form).status_code == 303
    topic = load(wrong.directory / "node.conf", {}).queues["orders"].topics["mail"]
    assert (dict(topic.alarms)["backlog"].begin, dict(topic.alarms)["backlog"].end) == (5.0, 2.0)
    wrong.office.take(load(wrong.directory / "node.conf", {}))
    rules = wrong.client.get("/api/v1/alarms").get_json()["rules"]
    assert rules[0]["others"] == {"orders/mail": "5 for 1m, end 2"}
    answer = wrong.client.post("/alarms/rule", headers={**FORM, "HX-Request": "true"}, data={**form, "text": "lots"})
    assert answer.status_code == 409
    assert "10000 for 5m" in answer.get_data(as_text=True)
    assert wrong.client.post("/alarms/rule", headers=FORM, data={**form, "text": ""}).status_code == 303
    assert "backlog" not in file.read_text()


def test_rules_everywhere_and_of_a_system_are_edited_with_a_diff_and_a_history(wrong: Place) -> None:
    """The comments and secrets of the node's file stay where they are; secrets are shown to nobody."""
    file = wrong.directory / "node.conf"
    quiet = "[alarms]\n    [[channels]]\n        [[[hook]]]\n            url = http://127.0.0.1:9/SECRET\n"
    file.write_text(
        file.read_text() + quiet + "    # as agreed\n    [[rules]]\n        # since May\n        oldest = 5m\n"
    )
    wrong.office.take(load(file, {}))
    htmx = {**FORM, "HX-Request": "true"}

    def rules() -> dict[str, str]:
        wrong.office.take(load(file, {}))
        return {one["name"]: one["text"] for one in wrong.client.get("/api/v1/alarms").get_json()["rules"]}

    form = {"where": "", "rule": "backlog", "text": "77 for 1m, end 7"}
    before = file.read_text()
    preview = wrong.client.post("/alarms/rule/preview", headers=htmx, data=form).get_data(as_text=True)
    assert "+    backlog = 77 for 1m, end 7" in preview
    assert file.read_text() == before, "a preview changes nothing"
    refused = wrong.client.post("/alarms/rule/preview", headers=htmx, data={**form, "text": "lots"}).get_data(
        as_text=True
    )
    assert "This would be refused" in refused
    assert wrong.client.post("/alarms/rule", headers=htmx, data=form).status_code == 204
    assert rules()["backlog"] == "77 for 1m, end 7"
    assert (
        wrong.client.post("/alarms/rule", headers=htmx, data={**form, "where": "shop", "text": "5"}).status_code == 204
    )
    assert rules()["backlog"] == "77 for 1m, end 7"
    assert dict(dict(wrong.office.config.alarms.systems)["shop"])["backlog"].begin == 5
    for where, rule in (("shop", "node_down"), ("shpo", "backlog")):
        answer = wrong.client.post("/alarms/rule", headers=htmx, data={"where": where, "rule": rule, "text": "5m"})
        assert answer.status_code in (400, 404)
    text = file.read_text()
    assert "# as agreed" in text
    assert "# since May" in text

    page = wrong.client.get("/alarms").get_data(as_text=True).partition('id="rule-changes"')[2]
    assert "+    backlog = 5" in page
    assert "SECRET" not in page + preview
    first = page.rpartition('name="at_ms" value="')[2].partition('"')[0]
    assert wrong.client.post("/alarms/rules/rollback", headers=htmx, data={"at_ms": first}).status_code == 204
    assert rules()["backlog"] == "10000 for 5m, end 8000"
    assert not wrong.office.config.alarms.systems
    assert "# since May" in file.read_text()

    head = log_in(wrong.app.test_client(), wrong.desk, "head", shop="admin")
    assert head.post("/alarms/rule", headers=htmx, data={**form, "where": "shop"}).status_code == 204
    assert head.post("/alarms/rule", headers=htmx, data=form).status_code == 403, "everywhere is not theirs"
    assert head.post("/alarms/rules/rollback", headers=htmx, data={"at_ms": first}).status_code == 403
    assert "rule-changes" not in head.get("/alarms").get_data(as_text=True)
    (deed, *_rest) = wrong.client.get("/api/v1/audit?what=alarm_file.set_rule&who=head&result=done").get_json()[
        "entries"
    ]
    assert (deed["after"]["backlog"], deed["details"]["system"]) == ("77 for 1m, end 7", "shop")


def test_settings_show_the_rule_as_it_is_written(wrong: Place) -> None:
    file = wrong.directory / "queues.d" / "orders.conf"
    secret = "sign = the-other-secret\n"
    file.write_text(file.read_text().replace(secret, f"{secret}        [[[alarms]]]\n            oldest = 1h\n"))
    wrong.office.take(load(wrong.directory / "node.conf", {}))
    (topic,) = wrong.client.get("/api/v1/queues/orders").get_json()["topics"]
    assert topic["settings"]["alarms"] == ["oldest = 1h, end 48m"]


def test_a_channel_shows_no_secret(wrong: Place) -> None:
    node = wrong.directory / "node.conf"
    secrets = "token-1234"
    node.write_text(
        node.read_text() + "[alarms]\n    [[channels]]\n        [[[a]]]\n            type = apprise\n"
        f"            url = dingtalk://{secrets}\n        [[[b]]]\n            url = https://x.example.com/{secrets}\n"
        f"            sign = {secrets}\n"
    )
    wrong.office.take(load(node, {}))
    answer = wrong.client.get("/api/v1/alarms").get_data(as_text=True)
    assert [one["where"] for one in json.loads(answer)["channels"]] == ["dingtalk://…", "https://x.example.com/…"]
    assert secrets not in answer
    assert secrets not in wrong.client.get("/alarms").get_data(as_text=True)


def test_without_a_file_nothing_is_wrong(place: Place, tmp_path: Path) -> None:  # noqa: F811
    assert alarms(place, "anna")["open"] == []
    assert "Nothing is wrong" in place.client.get("/alarms").get_data(as_text=True)
