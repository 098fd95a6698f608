"""Every endpoint of the API against every kind of person, from the table of routes; and what the audit log says of it."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from flask.testing import FlaskClient

from pepperbus import operations
from pepperbus.accounts.model import HOST_ROLES, Actor, Right, Role
from pepperbus.accounts.sessions import add_token
from pepperbus.config.load import load, queue_file
from pepperbus.errors import Forbidden, NotReachable, PepperbusError
from pepperbus.operations import drafts, pause, push, queues, versions
from pepperbus.operations.office import Office
from pepperbus.web.logins import OPEN_PATHS
from pepperbus.web.routes import ROUTES
from pepperbus.web.table import Needs, Route
from tests.unit.test_web import JSON, QUEUE, Place, log_in

JOB = "9223372036854775809"
#: What each body needs to be one; what is not here is fine empty.
BODIES: dict[str, dict[str, Any]] = {
    "SettingsBody": {"settings": {"system": "shop"}},
    "TextBody": {"text": "system = shop\nopen = loopback\n[topics]\n"},
    "PushBody": {"contents": ["x"]},
    "ScaleBody": {"change": 1},
    "DrainBody": {"to": "elsewhere"},
    "SampleBody": {"content": "{}"},
    "MarkBody": {"text": "deployed", "system": "shop"},
    "UserBody": {"roles": {"shop": "viewer"}},
    "PasswordBody": {"old": "not it", "new": "something longer"},
    "RuleBody": {"text": "5"},
    "TokenBody": {"name": "t", "role": "viewer", "days": 1},
}
#: name -> roles; None: nobody is logged in.
PEOPLE: dict[str, dict[str, str] | None] = {
    "nobody": None,
    "elsewhere": {"bank": "admin"},
    "looker": {"shop": "viewer"},
    "hand": {"shop": "operator"},
    "head": {"shop": "admin"},
    "auditor": {"*": "viewer"},
    "operator": {"*": "operator"},
    "chief": {"*": "admin"},
}
_SHOP = {"looker": 1, "hand": 2, "head": 3, "auditor": 1, "operator": 2, "chief": 3}
ALLOWED: dict[Needs, set[str]] = {
    Needs.LOGIN: set(PEOPLE) - {"nobody"},
    Needs.VIEW: {name for name, right in _SHOP.items() if right >= 1},
    Needs.OPERATE: {name for name, right in _SHOP.items() if right >= 2},
    Needs.ADMIN: {name for name, right in _SHOP.items() if right >= 3},
    Needs.VIEW_NODE: {"auditor", "operator", "chief"},
    Needs.OPERATE_NODE: {"operator", "chief"},
    Needs.ADMIN_NODE: {"chief"},
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.office.close()


def call(client: FlaskClient, route: Route) -> Any:
    names = {
        "queue": "orders",
        "topic": "mail",
        "id": JOB,
        "user": "anna",
        "token": "none",
        "session": "none",
        "process": "web",
        "silence": "7",
        "schedule": "tick",
        "sample": "one",
        "storage": "far",
        "rule": "backlog",
    }
    path = route.path.format(**names)
    body = msgspec.json.encode(BODIES.get(route.body.__name__, {})) if route.method != "GET" else None
    answer = client.open(f"/api/v1{path}", method=route.method, data=body, headers=JSON)
    answer.close()
    return answer


def browser(place: Place, name: str) -> FlaskClient:
    roles = PEOPLE[name]
    client = place.app.test_client()
    return client if roles is None else log_in(client, place.desk, name, **roles)


@pytest.mark.parametrize("name", PEOPLE)
def test_every_endpoint_lets_in_whom_it_declares(place: Place, name: str) -> None:
    for route in ROUTES:
        status = call(browser(place, name), route).status_code
        got_in = status not in (401, 403)
        assert got_in == (name in ALLOWED[route.needs]), f"{name}: {route.method} {route.path} -> {status}"
        assert status != 500, f"{route.method} {route.path}"
        assert name != "nobody" or status == 401


@pytest.mark.parametrize("route", [r for r in ROUTES if r.method != "GET"], ids=lambda r: f"{r.method} {r.path}")
def test_whatever_changes_something_is_written_down(place: Place, route: Route) -> None:
    before = len(place.office.audit.search(limit=1000).entries)
    call(browser(place, "chief"), route)
    entries = place.office.audit.search(limit=1000).entries
    if route.name == "ping_consumer":
        assert len(entries) == before, "a ping changes nothing"
        return
    assert len(entries) == before + 1
    assert (entries[0].who, entries[0].via, entries[0].address) == ("chief", "web", "127.0.0.1")
    assert entries[0].result in ("done", "failed"), entries[0]
    assert place.office.audit.verify().ok


def test_a_refusal_is_written_down(place: Place) -> None:
    browser(place, "looker").post("/api/v1/queues/orders/pause", data="{}", headers=JSON)
    (entry,) = place.office.audit.search().entries
    assert (entry.who, entry.what, entry.about, entry.result) == ("looker", "pause", "orders", "refused")
    assert entry.reason == "looker may not pause orders: that needs the role operator in system shop"
    assert place.office.storage("local").paused() == set()


def test_the_document_says_what_each_endpoint_needs(place: Place) -> None:
    paths = place.get("/api/v1/openapi.json").get_json()["paths"]
    for route in ROUTES:
        assert paths[route.path][route.method.lower()]["x-needs"] == route.needs.name.lower()


def test_nothing_is_served_to_strangers_but_what_is_named_here(place: Place) -> None:
    """Also pages that do not exist yet: a new address is closed unless it is added to OPEN_PATHS."""
    stranger = place.app.test_client()
    checked = 0
    for rule in place.app.url_map.iter_rules():
        path = rule.rule
        if path in (*OPEN_PATHS, "/metrics", "/global/metrics") or path.startswith("/static/"):
            continue
        for name in rule.arguments:
            path = "/".join("x" if part.strip("<>").rpartition(":")[2] == name else part for part in path.split("/"))
        method = "GET" if "GET" in (rule.methods or ()) else sorted(rule.methods or {"POST"})[0]
        headers = {**JSON, "Accept": "text/html", "X-Forwarded-For": "203.0.113.9"}
        answer = stranger.open(path, method=method, headers=headers)
        assert answer.status_code in (303, 401), f"{method} {path} -> {answer.status_code}"
        checked += 1
    assert checked > len(ROUTES)


def test_lists_hold_what_one_may_see(place: Place) -> None:
    (place.directory / "queues.d" / "money.conf").write_text(
        "open = loopback\nsystem = bank\n[topics]\n    [[out]]\n        run = http\n        url = http://127.0.0.1:9/\n"
    )
    place.office.take(load(place.directory / "node.conf", {}))
    place.push(2, "old/gone")
    for name, seen in (("looker", {"orders"}), ("elsewhere", {"money"}), ("auditor", {"orders", "money"})):
        client = browser(place, name)
        assert {queue["name"] for queue in client.get("/api/v1/queues").get_json()["queues"]} == seen
        topics = {topic["name"] for topic in client.get("/api/v1/topics").get_json()["topics"]}
        assert {topic.partition("/")[0] for topic in topics} - {"old"} == seen
        assert ("old/gone" in topics) == (name == "auditor"), "in no queue's file: nobody knows whose it is"
        status = client.get("/api/v1/status").get_json()
        assert {queue["name"] for queue in status["queues"]} == seen
        assert any("old/gone" in line for line in status["problems"]) == (name == "auditor")


def test_a_job_shows_only_the_topics_one_may_see(place: Place) -> None:
    (job,) = place.push(1)
    assert browser(place, "looker").get(f"/api/v1/jobs/{job}").get_json()["topics"][0]["topic"] == "orders/mail"
    assert browser(place, "elsewhere").get(f"/api/v1/jobs/{job}").status_code == 404


def test_an_administrator_of_one_system_cannot_take_or_give_away_queues(place: Place) -> None:
    head = browser(place, "head")
    for method, path, settings in (
        ("PUT", "orders", {"system": "bank"}),
        ("PUT", "orders", {"system": ""}),
        ("POST", "mine", {"open": "loopback"}),
        ("POST", "mine", {"open": "loopback", "system": "bank"}),
    ):
        answer = head.open(f"/api/v1/queues/{path}", method=method, json={"settings": settings})
        assert answer.status_code == 403, settings
    settings = {"open": "loopback", "system": "shop", "x/run": "http", "x/url": "http://127.0.0.1:9/"}
    assert head.post("/api/v1/queues/mine", json={"settings": settings}).status_code == 200


def test_only_an_administrator_of_everything_lets_the_bus_run_a_command(place: Place) -> None:
    head, chief = browser(place, "head"), browser(place, "chief")
    settings = {"system": "shop", "open": "loopback", "x/run": "command", "x/command": "php /a.php"}
    refused = head.post("/api/v1/queues/mine", json={"settings": settings})
    assert refused.status_code == 403
    assert "let mine/x run a command" in refused.text
    assert chief.post("/api/v1/queues/mine", json={"settings": settings}).status_code == 200
    place.office.config = load(place.office.config.file)
    for change, status in (({"x/children": "2"}, 200), ({"x/command": "php /b.php"}, 403), ({"x/user": "root"}, 403)):
        assert head.put("/api/v1/queues/mine", json={"settings": change}).status_code == status, change


def test_only_an_administrator_of_everything_names_a_list_to_take_from(place: Place) -> None:
    head, chief = browser(place, "head"), browser(place, "chief")
    intake = "[intakes]\n[[old]]\nurl = redis://127.0.0.1:6379/0\nkey = sessions\n"
    file = f"password = s3cret\nsystem = shop\n{intake}[topics]\n[[x]]\nrun = pull\n"
    refused = head.put("/api/v1/queues/mine/file", json={"text": file})
    assert refused.status_code == 403, refused.text
    assert "let mine take from sessions" in refused.text
    assert chief.put("/api/v1/queues/mine/file", json={"text": file}).status_code == 200


def test_an_older_version_does_not_move_a_queue_either(place: Place) -> None:
    chief = browser(place, "chief")
    chief.put("/api/v1/queues/orders", json={"settings": {"system": "bank"}})
    place.office.take(load(place.directory / "node.conf", {}))
    bank, shop = (place.office.acting(Actor("x", roles={system: Role.ADMIN})) for system in ("bank", "shop"))
    file = queue_file("orders", place.config)
    with pytest.raises(Forbidden, match="in system bank"):
        versions.versions(shop, "orders", file)
    with pytest.raises(Forbidden, match="in system bank"):
        drafts.draft(shop, "orders", {"system": "shop"})
    (kept, *_) = versions.versions(bank, "orders", file)
    with pytest.raises(Forbidden, match="in system shop"):
        queues.rollback(bank, "orders", kept.at_ms)
    assert "system = bank" in file.read_text()


def test_a_change_is_written_down_with_before_and_after_and_no_secret(place: Place) -> None:
    chief = browser(place, "chief")
    body = {"settings": {"mail/timeout": "30s", "password": "a-new-secret"}}
    assert chief.put("/api/v1/queues/orders", json=body).get_json()["what"] == "changed"
    (entry,) = place.office.audit.search(what="queue.change").entries
    assert (entry.before["mail/timeout"], entry.after["mail/timeout"]) == (3600.0, 30.0)
    assert (entry.before["password"], entry.after["password"]) == ("***", "***")
    written = b"".join(path.read_bytes() for path in place.office.audit.directory.glob("*"))
    assert b"secret" not in written
    assert entry.details == {}


def test_the_command_line_acts_as_the_host(place: Place) -> None:
    office = Office(place.config)
    pause.pause(office, "orders")
    (entry,) = office.audit.search().entries
    assert (entry.via, entry.what, entry.result, entry.after) == ("cli", "pause", "done", {"topics": ["orders/mail"]})
    office.close()


# -- tokens ------------------------------------------------------------------------------------------------------------


def bearer(place: Place, owner: dict[str, str], role: str, *systems: str, days: float = 1) -> dict[str, str]:
    store = place.office.accounts
    if not store.find("owner"):
        store.add("chief", "no password", HOST_ROLES)
        store.add("owner", "no password", {system: Role(word) for system, word in owner.items()})
    _, text = add_token(store, "owner", "t", Role(role), systems, store.clock.now_ms() + int(days * 86_400_000))
    return {"Authorization": f"Bearer {text}", **JSON}


@pytest.mark.parametrize(
    ("owner", "role", "systems", "may_pause"),
    [
        ({"*": "admin"}, "operator", ("*",), True),
        ({"*": "admin"}, "operator", ("shop",), True),
        ({"*": "admin"}, "operator", ("bank",), False),
        ({"*": "admin"}, "viewer", ("*",), False),
        ({"shop": "viewer"}, "admin", ("*",), False),
        ({"shop": "operator"}, "admin", ("shop", "bank"), True),
    ],
)
def test_a_token_may_what_both_its_owner_and_itself_may(
    place: Place, owner: dict[str, str], role: str, systems: tuple[str, ...], may_pause: bool
) -> None:
    headers = bearer(place, owner, role, *systems)
    answer = place.app.test_client().post("/api/v1/queues/orders/pause", data="{}", headers=headers)
    assert answer.status_code == (200 if may_pause else 403)


def test_a_token_ends_with_its_date_its_owner_and_by_hand(place: Place) -> None:
    client = place.app.test_client()

    def status(headers: dict[str, str]) -> int:
        return client.get("/api/v1/status", headers=headers).status_code

    good, over = bearer(place, {"*": "admin"}, "viewer", "*"), bearer(place, {}, "viewer", "*", days=-1)
    wrong = {"Authorization": good["Authorization"][:-1] + "_"}
    assert (status(good), status(over), status(wrong)) == (200, 401, 401)
    store = place.office.accounts
    store.set_disabled("owner", True)
    assert status(good) == 401
    store.set_disabled("owner", False)
    assert status(good) == 200
    token_id = good["Authorization"].removeprefix("Bearer pbt_").partition("_")[0]
    assert browser(place, "chief").delete(f"/api/v1/tokens/{token_id}", headers=JSON).status_code == 200
    assert status(good) == 401


def test_a_token_cannot_make_accounts_or_tokens(place: Place) -> None:
    headers = bearer(place, {"*": "admin"}, "admin", "*")
    client = place.app.test_client()
    for method, path, body in (
        ("POST", "/users/eve", {"roles": {"*": "admin"}}),
        ("POST", "/tokens", {"name": "more", "role": "admin", "days": 9}),
        ("GET", "/users", None),
    ):
        answer = client.open(f"/api/v1{path}", method=method, json=body, headers=headers)
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (403, "forbidden"), path


def test_a_token_is_shown_once_and_kept_as_a_hash(place: Place) -> None:
    chief = browser(place, "chief")
    made = chief.post("/api/v1/tokens", json={"name": "ci", "role": "viewer", "days": 1}).get_json()
    secret = made["secret"].split("_", 2)[2]  # it may hold more of these
    assert secret.encode() not in place.office.accounts.path.read_bytes()
    assert secret not in chief.get("/api/v1/tokens").get_data(as_text=True)
    assert secret.encode() not in b"".join(path.read_bytes() for path in place.office.audit.directory.glob("*"))


# -- pages -------------------------------------------------------------------------------------------------------------


def pages(place: Place, method: str) -> Iterator[tuple[str, bool]]:
    """Every address of a page that answers `method`, with our names filled in, and whether a name was."""
    names = {
        "queue": "orders",
        "topic": "mail",
        "name": "orders",
        "id": JOB,
        "job": JOB,
        "user": "anna",
        "schedule": "tick",
    }
    for rule in place.app.url_map.iter_rules():
        path = rule.rule
        if path.startswith(("/api/", "/static/")) or path in OPEN_PATHS or method not in (rule.methods or ()):
            continue
        for name in rule.arguments:
            path = re.sub(rf"<[^<>]*\b{name}>", names.get(name, "x"), path)
        yield path, "/orders" in path


def test_a_page_shows_nothing_of_other_systems(place: Place) -> None:
    (place.directory / "queues.d" / "zebra.conf").write_text(QUEUE)
    place.office.take(load(place.directory / "node.conf", {}))
    place.push(3, "zebra/mail")
    place.push(1, "zebra/detached")
    assert "zebra" in browser(place, "looker").get("/queues", headers={"Accept": "text/html"}).get_data(as_text=True)
    client = browser(place, "elsewhere")
    for path, is_about_ours in pages(place, "GET"):
        if path in ("/metrics", "/global/metrics"):
            continue  # for this machine; see test_logins
        answer = client.get(path, headers={"Accept": "text/html"})
        assert answer.status_code != 500, path
        if is_about_ours:
            assert answer.status_code in (403, 404), f"{path} -> {answer.status_code}"
        else:
            assert "zebra" not in answer.get_data(as_text=True), path


def test_a_live_page_holds_nobodys_form_token(place: Place) -> None:
    """Its rendering is shared by people of the same roles."""
    place.push(2)
    client = browser(place, "chief")
    token = client.environ_base["HTTP_X_CSRF_TOKEN"]
    streams = 0
    for path, _ in pages(place, "GET"):
        with client.get(path, headers={"Accept": "text/event-stream"}) as answer:
            if answer.mimetype == "text/event-stream":
                assert token.encode() not in next(iter(answer.response), b""), path
                streams += 1
    assert streams >= 5


@pytest.mark.parametrize("name", ["elsewhere", "looker"])
def test_a_form_changes_nothing_for_whom_it_is_not(place: Place, name: str) -> None:
    ids = place.push(2)
    client = browser(place, name)
    before = (place.directory / "queues.d" / "orders.conf").read_text()
    for path, _ in pages(place, "POST"):
        if path == "/logout" or path.startswith(("/me/", "/tokens/")):
            continue  # one's own
        form = {"topic": "orders/mail", "queue": "orders", "name": "orders", "ids": ids, "id": ids[0], "content": "x"}
        answer = client.post(path, data=form, headers={"Origin": "http://localhost", "Accept": "text/html"})
        assert answer.status_code != 500, path
    assert (place.directory / "queues.d" / "orders.conf").read_text() == before
    assert {path.name for path in (place.directory / "queues.d").iterdir()} == {"orders.conf"}
    assert place.office.storage("local").depth("orders/mail").ready == 2
    assert place.office.storage("local").paused() == set()
    assert [entry for entry in place.office.audit.search().entries if entry.result != "refused"] == []


# -- operations --------------------------------------------------------------------------------------------------------

#: Functions of `operations` that take the office and are no operation, and why that is right.
INSIDE = {
    "logins": "before anybody is known; what they do is written down there",
    "rights": "the check itself",
    "users.in_person": "a check",
    "purge.deed": "a journal row",
    "push.through_gateway": "part of running a schedule",
    "elsewhere.ask": "part of ping and send",
    "status.health": "part of the status, and of what a node tells of itself",
    "status.others": "part of the status, and of looking at all nodes",
    "jobs.stored_of": "part of replay and purge",
    "replays.keep": "part of planning, and of failed.recover",
    "replays.take": "the same",
    "queues.require_standing": "a check",
    "queues.set_keys": "part of changing a queue or a schedule",
    "versions.keeping": "part of every change of a queue",
    "versions.kept": "part of showing what was changed",
    "node_file.edit": "part of changing storages and rules",
    "versions.newest": "a date, for those who may see the removed",
    "versions.text_of": "part of taking a change back",
}


def test_every_function_that_takes_the_office_declares_its_right() -> None:
    undeclared = []
    for module in pkgutil.iter_modules(operations.__path__):
        found = importlib.import_module(f"{operations.__name__}.{module.name}")
        for name, function in inspect.getmembers(found, inspect.isfunction):
            if function.__module__ != found.__name__ or name.startswith("_"):
                continue
            names = {module.name, f"{module.name}.{name}"}
            takes_it = "office" in inspect.signature(function).parameters
            if takes_it and not names & INSIDE.keys() and not hasattr(function, "right"):
                undeclared.append(f"{module.name}.{name}")
    assert not undeclared, undeclared


#: Operations that need more than the right to look and are not written down, and why that is right.
UNWRITTEN = {
    "audit.history": "looks",
    "audit.verify": "looks",
    "closing.close": "queues.change writes itself down",
    "closing.finish": "queues.remove writes itself down",
    "closing.reopen": "queues.change writes itself down",
    "consumer.ping": "changes nothing",
    "drafts.draft": "tries a change without making it",
    "alarm_files.draft": "tries a change without making it",
    "alarm_files.history": "looks",
    "drafts.written": "looks",
    "queue_files.export": "looks",
    "queue_files.removed": "looks",
    "queue_files.trial": "tries a change without making it",
    "samples.tried": "one's own list of what consumer.send and push have written down",
    "submit.submit": "a producer's push, which the journal has",
    "users.listing": "looks",
    "users.show": "looks",
    "versions.versions": "looks",
}
#: What an operation calls that changes something; those that only look must not.
_CHANGES = {
    *(
        "push",
        "push_once",
        "swap",
        "lease",
        "settle",
        "settle_and_lease",
        "release",
        "set_paused",
        "promote",
        "claim_shard",
    ),
    *(
        "write_text",
        "write_bytes",
        "unlink",
        "rename",
        "mkdir",
        "touch",
        "open_for_writing",
        "steer",
        "silence",
        "end_silence",
    ),
    *("set_hash", "set_roles", "set_disabled", "add_token", "revoke", "begin", "end", "journal_writer", "wake"),
}


def every_operation() -> Iterator[tuple[str, Any]]:
    for module in pkgutil.iter_modules(operations.__path__):
        found = importlib.import_module(f"{operations.__name__}.{module.name}")
        for name, function in inspect.getmembers(found, lambda one: hasattr(one, "audited")):
            if function.__module__ == found.__name__:
                yield f"{module.name}.{name}", function


def test_every_operation_is_written_down_or_only_looks() -> None:
    found = dict(every_operation())
    assert len(found) > 80
    unwritten = {name for name, one in found.items() if one.right > Right.VIEW and not one.audited}
    assert unwritten == UNWRITTEN.keys()
    for name, one in found.items():
        if not one.audited and "looks" in UNWRITTEN.get(name, "looks"):
            assert not calls_of(one.__wrapped__) & _CHANGES, name


def calls_of(function: Any, seen: frozenset[str] = frozenset()) -> set[str]:
    """The names of the methods it calls, also through functions of its own module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute):
            found.add(node.func.attr)
        elif isinstance(node.func, ast.Name) and node.func.id not in seen:
            inner = function.__globals__.get(node.func.id)
            if inspect.isfunction(inner) and inner.__module__ == function.__module__:
                found |= calls_of(inspect.unwrap(inner), seen | {node.func.id})
    return found


def test_what_looks_is_told_from_what_changes() -> None:
    assert "set_paused" in calls_of(inspect.unwrap(pause.pause)), "the test above can fail"


def test_what_an_operation_tells_is_a_field_of_its_result() -> None:
    for module in pkgutil.iter_modules(operations.__path__):
        found = importlib.import_module(f"{operations.__name__}.{module.name}")
        for name, function in inspect.getmembers(found, lambda one: hasattr(one, "tells")):
            fields = get_type_hints(function)["return"].__struct_fields__ if function.tells else ()
            assert set(function.tells) <= set(fields), f"{module.name}.{name}"


def test_a_stream_ends_with_its_readers_login(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pepperbus.web.api._LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr("pepperbus.web.api._QUIET_S", 0.05)
    for deed in (
        lambda store: store.set_roles("head", {"shop": Role.VIEWER}),
        lambda store: store.set_disabled("head", True),
    ):
        with browser(place, "head").get("/api/v1/tail") as answer:
            pieces = iter(answer.response)
            assert [next(pieces), next(pieces)] == [b": begin\n\n", b": quiet\n\n"]
            deed(place.office.accounts)
            assert list(pieces) == []


def test_a_local_user_who_may_not_write_pushes_unrecorded_and_does_nothing_else(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = Office(place.config)

    def closed(*words: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pepperbus.accounts.audit.Audit._tail", closed)
    with pytest.raises(NotReachable):
        push.push(office, "orders", [b"x"])  # it came as far as the gateway, which is not there
    with pytest.raises(PepperbusError, match="Permission denied; nothing was done"):
        pause.pause(office, "orders")
    assert office.storage("local").paused() == set()
    office.close()
