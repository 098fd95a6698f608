"""The Go system's admin addresses: paths, envelopes, fields, who may, what is written down."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest

from pepperbus.accounts.model import HOST_ROLES, Actor, Via
from pepperbus.clock import ManualClock, SystemClock
from pepperbus.journal.contract import Row
from pepperbus.journal.log import LogWriter
from pepperbus.log import Log
from pepperbus.operations import failed, replays
from pepperbus.storage.contract import Outcome, Push, Settle
from pepperbus.ticker.replays import Parts, carry_out
from pepperbus.web.legacy import GUEST
from pepperbus.web.legacy_actions import ACTIONS
from tests.unit.test_rights import ALLOWED, PEOPLE, Needs, bearer, browser
from tests.unit.test_web import IDS, Place

TOPIC = {"queue": "orders", "topic": "mail"}
#: What is asked of each, and whom it lets in.
CASES: dict[str, tuple[dict[str, str], Needs]] = {
    "/QueueConfig": ({}, Needs.LOGIN),
    "/GetQueueLength": (TOPIC, Needs.VIEW),
    "/SendToCgi": ({**TOPIC, "type": "data", "value": "{}"}, Needs.OPERATE),
    "/GetCGIError": (TOPIC, Needs.VIEW),
    "/GetCGITaskDebug": (TOPIC, Needs.VIEW),
    "/Recover": (TOPIC, Needs.OPERATE),
    "/CleanFailedJobs": (TOPIC, Needs.OPERATE),
    "/CleanStatistics": (TOPIC, Needs.OPERATE),
    "/GetMuxStats": ({}, Needs.LOGIN),
    "/GetGatewayStats": ({}, Needs.LOGIN),
    "/GetMachineStats": ({}, Needs.LOGIN),
    "/CGIStatus": ({"configKey": "none"}, Needs.LOGIN),
    "/GetPid": ({"duration": "1ms"}, Needs.LOGIN),
    "/Manage/Service": ({"op": "stop"}, Needs.ADMIN_NODE),
}
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://localhost"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.office.close()


def trust_loopback(place: Place) -> None:
    config = place.office.config
    place.office.take(replace(config, web=replace(config.web, legacy_loopback=True)))


def told(answer: Any) -> dict[str, Any]:
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    envelope = json.loads(answer.get_data())
    assert list(envelope) == ["error_code", "error", "data"]
    assert (envelope["error_code"] == 0) == (envelope["error"] == "")
    return dict(envelope)


def ask(place: Place, path: str, **words: str) -> dict[str, Any]:
    """As the old tools do: from this machine, nobody logged in."""
    trust_loopback(place)
    return told(place.app.test_client().get(path, query_string=words))


def fail(place: Place) -> list[int]:
    """Five jobs: two wait, one was tried, one is dead of failures, one of age."""
    ids = place.push(5)
    storage = place.office.storage("local")
    leased = storage.lease("orders/mail", 3, "test/w/1")
    topic = "orders/mail"
    storage.settle(
        "test/w/1",
        [
            Settle(topic, leased[0].job_id, Outcome.RETRY, due_ms=4_000_000_000_000),
            Settle(topic, leased[1].job_id, Outcome.DEAD, reason="attempt 20 of 20 failed: boom"),
            Settle(topic, leased[2].job_id, Outcome.DEAD, reason="max_age: too old"),
        ],
    )
    return ids


def test_every_action_is_here() -> None:
    assert {path.replace("/", "").lower() for path in CASES} == set(ACTIONS)


@pytest.mark.parametrize("name", PEOPLE)
def test_every_address_lets_in_whom_it_should(place: Place, name: str) -> None:
    for path, (words, needs) in CASES.items():
        client = browser(place, name)
        client.set_cookie("manage", "true")
        envelope = told(client.post(path, data=words, headers=FORM))
        refused = "log in first" in envelope["error"] or "may not" in envelope["error"]
        assert refused == (name not in ALLOWED[needs]), f"{name}: {path} -> {envelope}"
        assert name != "nobody" or envelope["error_code"] == 400


def test_what_changes_something_is_written_down(place: Place) -> None:
    client = browser(place, "hand")
    for path, what in (("/Recover", "failed.recover"), ("/CleanFailedJobs", "failed.clean"),
                       ("/CleanStatistics", "baseline.reset"), ("/SendToCgi", "send")):  # fmt: skip
        client.post(path, data=TOPIC | {"type": "data", "value": "x"}, headers=FORM)
        entry = place.office.audit.search(limit=1).entries[0]
        assert (entry.who, entry.what, entry.about) == ("hand", what, "orders/mail")


def test_without_a_login_only_from_here_and_only_when_it_is_allowed(place: Place) -> None:
    stranger = place.app.test_client()
    path = "/GetQueueLength?queue=orders&topic=mail"
    assert "log in first" in told(stranger.get(path))["error"]
    trust_loopback(place)
    assert told(stranger.get(path))["error_code"] == 0
    for header, value in (
        ("X-Forwarded-For", "203.0.113.9"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Referer", "http://evil.example/"),
    ):
        assert "log in first" in told(stranger.get(path, headers={header: value}))["error"], header
    elsewhere = stranger.get(path, environ_base={"REMOTE_ADDR": "203.0.113.9"})
    assert "log in first" in told(elsewhere)["error"]
    assert stranger.post("/Recover", data=TOPIC, headers={"Origin": "http://evil.example"}).status_code == 403
    assert stranger.get("/queues", headers={"Accept": "text/html"}).status_code == 303, "pages want a login as ever"
    stranger.post("/Recover", data=TOPIC)
    assert place.office.audit.search(limit=1).entries[0].who == GUEST


def test_a_token_opens_them_and_a_link_changes_nothing(place: Place) -> None:
    headers = bearer(place, {"*": "admin"}, "operator", "shop")
    client = place.app.test_client()
    assert told(client.get("/recover", query_string=TOPIC, headers=headers))["data"] == 0
    assert "link" in told(browser(place, "chief").get("/Recover", query_string=TOPIC))["error"]


@pytest.mark.parametrize("path", ["/GetQueueLength", "/getqueuelength", "/get/queue/length", "/Get/queueLength/"])
def test_paths_are_compared_without_case_and_slashes(place: Place, path: str) -> None:
    fail(place)
    assert ask(place, path, **TOPIC)["data"] == {"normal": 2, "retry": 2, "timeout": 1}
    trust_loopback(place)
    posted = place.app.test_client().post(path, data=TOPIC)
    assert told(posted)["data"]["normal"] == 2


def test_failed_jobs_run_again_oldest_first_or_go(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed, "_PATIENCE_S", 30.0)
    ids = fail(place)
    ticker = gevent.spawn(carry_out, works(place))
    assert ask(place, "/Recover", **TOPIC, count="1")["data"] == 1
    assert ask(place, "/GetQueueLength", **TOPIC)["data"] == {"normal": 3, "retry": 1, "timeout": 1}
    (found,) = place.office.storage("local").find(ids[0], ["orders/mail"])
    assert str(found.state) == "ready"
    assert ask(place, "/CleanFailedJobs", **TOPIC)["data"] == 1
    assert ask(place, "/GetQueueLength", **TOPIC)["data"] == {"normal": 3, "retry": 0, "timeout": 1}
    assert ask(place, "/Recover", **TOPIC, count="0")["data"] == 0
    ticker.kill()


def works(place: Place) -> Parts:
    """The ticker's part in replays."""
    place.office.config.bus.data_dir.mkdir(exist_ok=True)
    storages = {"local": place.office.storage("local")}
    journal = LogWriter(place.office.config.bus.data_dir / "journal", "ticker", 1024)
    log = Log("ticker", str(place.directory / "log"))
    return Parts(lambda: place.office.config, storages, journal, SystemClock(), log, lambda topic: None)


def test_recovered_jobs_are_replays_that_can_be_looked_at(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a ticker they wait, and what is told is how many will run; those that never failed stay where they are."""
    place.office.clock = ManualClock(1_800_000_001_000)  # the jobs are of the second before
    monkeypatch.setattr(failed, "_PATIENCE_S", 0.1)
    fail(place)
    (waits,) = place.push(1)
    storage = place.office.storage("local")
    storage.push([Push(IDS.next(), b"later", ("orders/mail",), 4_000_000_000_000)])
    assert ask(place, "/Recover", **TOPIC)["data"] == 2
    place.office.actor = Actor("ann", Via.CLI, roles=HOST_ROLES)
    seen = replays.listing(place.office)
    assert [(one.source, one.jobs, one.by, one.words) for one in seen] == [
        ("delayed", 1, GUEST, {"tried": "all"}), ("dead", 1, GUEST, {"tried": "all"}),
    ]  # fmt: skip
    assert [deed.what for deed in replays.show(place.office, seen[0].id).deeds] == ["plan", "go"]
    ticker = gevent.spawn(carry_out, works(place))
    end = time.monotonic() + 20
    while any(one.state != "done" for one in replays.listing(place.office)):
        assert time.monotonic() < end
        gevent.sleep(0.05)
    ticker.kill()
    assert storage.depth("orders/mail")[:4] == (5, 1, 0, 1)
    assert storage.find(waits, ["orders/mail"])


def test_what_is_wrong_is_said_in_the_old_words(place: Place) -> None:
    for words, code, error in (
        ({"queue": "none", "topic": "mail"}, 400, "queue not exist none"),
        ({"queue": "orders", "topic": "none"}, 400, "topic not exist none"),
        ({**TOPIC, "count": "many"}, 400, 'schema: error converting value for "count"'),
    ):
        assert ask(place, "/Recover", **words) == {"error_code": code, "error": error, "data": ""}
    assert ask(place, "/Manage/Service", op="stop")["error"] == "http: named cookie not present"
    assert ask(place, "/GetPid", duration="soon")["error"] == "time: invalid duration soon"
    assert "pool not found" in ask(place, "/CGIStatus", configKey="none")["error"]


def test_no_password_leaves(place: Place) -> None:
    config = ask(place, "/QueueConfig")
    mail = config["data"]["orders"]["topic"]["mail"]
    assert (mail["run_type"], mail["script_entry"], mail["num_of_workers"]) == (1, "http://127.0.0.1:9/none", 4)
    assert (config["data"]["orders"]["password"], mail["password"], mail["storage"]["auth"]) == ("", "", "")
    assert "secret" not in json.dumps(config)


def test_failures_and_pushes_come_from_the_journal(place: Place) -> None:
    assert ask(place, "/GetCGIError", **TOPIC)["data"] is None
    writer = LogWriter(place.config.bus.data_dir / "journal", "worker.orders.0", 1024)
    for n, outcome, code in ((1, "retry", 500), (2, "dead", 0), (3, "done", 200)):
        writer.add(
            Row("attempt", (1 << 63) + n, "orders/mail", 1_800_000_000_000 + n * 1000, n, outcome=outcome, code=code,
                error_code="E7", reason="connection refused", out_trace="77", body=b"boom", node="n1",
                accepted_ms=1_799_000_000_000 + n * 1000, content=b'{"order": %d}' % n)
        )  # fmt: skip
    writer.close()
    newest, older = ask(place, "/GetCGIError", **TOPIC)["data"]
    assert older == {
        "Time": "1800000001",
        "Jobs": older["Jobs"],
        "SysCode": "500",
        "SysError": "",
        "UserCode": "E7",
        "UserMsg": "boom ------ [Host] n1",
    }
    assert older["Jobs"].startswith("orders/mail: outTraceId: 77 retrying: true jobs: [{")
    assert (newest["SysCode"], newest["SysError"]) == ("502", "connection refused")
    assert len(ask(place, "/GetCGIError", **TOPIC, count="1")["data"]) == 1
    pushed = ask(place, "/GetCGITaskDebug", queue="orders", count="2")["data"]
    assert pushed == [{"Time": "1799000003", "Jobs": '{"order": 3}'}, {"Time": "1799000002", "Jobs": '{"order": 2}'}]


def test_statistics(place: Place) -> None:
    place.writer.record("orders/mail").add("done", 5)
    place.desk.monitor.sample()
    place.writer.record("orders/mail").add("done", 3)
    place.desk.monitor.sample()
    mail = ask(place, "/GetMuxStats")["data"]["orders"]["mail"]
    assert set(mail) == {"TimePeriod", "SuccessCount", "FailCount", "MaxTime", "MinTime", "TotalTime"}
    assert mail["SuccessCount"] > 0
    assert ask(place, "/GetGatewayStats")["data"]["orders"]["TimePeriod"] == 60_000_000_000
    assert set(ask(place, "/GetMachineStats")["data"]) == {"CPU", "Load", "Memory"}
    assert ask(place, "/CleanStatistics", **TOPIC)["data"] == 3
    place.desk.monitor.forget()
    assert "Since the reset" in place.text("/topics/orders/mail")


def test_a_ping_and_a_job_answer_in_their_shapes(place: Place) -> None:
    reason = ask(place, "/SendToCgi", **TOPIC, type="ping")
    assert (reason["error_code"], "refused" in reason["data"]) == (0, True)
    sent = ask(place, "/SendToCgi", **TOPIC, type="data", value="x")["data"]
    assert list(sent) == ["Code", "ErrorCode", "ConsumeTopics", "Msg"]
    assert sent["Code"] == "502"
    before = len(place.office.audit.search(what="send").entries)
    assert ask(place, "/SendToCgi", **TOPIC)["data"]["Code"] == "500", "no type, no value: a ping, never an empty job"
    assert len(place.office.audit.search(what="send").entries) == before
