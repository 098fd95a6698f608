"""Logging in as a browser does: the first page, cookies, forms, back-off, headers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from pepperbus.accounts import passwords
from pepperbus.accounts.model import HOST_ROLES, Role
from pepperbus.accounts.patience import Patience
from pepperbus.clock import ManualClock
from pepperbus.log import Log
from pepperbus.web.app import create_app
from pepperbus.web.logins import local_path
from tests.unit.test_web import JSON, Place, log_in

PASSWORD = "correct horse battery"
OURS = {"Origin": "http://localhost"}
FORWARDED = {"X-Forwarded-For": "203.0.113.9"}
HTML = {"Accept": "text/html"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.office.close()


@pytest.fixture
def fresh(place: Place) -> FlaskClient:
    """A browser before anybody has an account."""
    place.office.accounts.path.unlink()
    (place.directory / "log").unlink(missing_ok=True)
    place.app = create_app(place.desk, Log("web", str(place.directory / "log")))
    return place.app.test_client()


@pytest.fixture
def browser(place: Place) -> FlaskClient:
    """A browser; there is an account `bob`."""
    place.office.accounts.add("bob", passwords.hashed(PASSWORD), {"shop": Role.OPERATOR})
    return place.app.test_client()


def login(client: FlaskClient, password: str = PASSWORD, name: str = "bob", **more: str) -> Any:
    return client.post("/login", data={"name": name, "password": password, **more}, headers=OURS)


def cookie(answer: Any) -> str:
    return str(answer.headers.get("Set-Cookie", ""))


# -- the first administrator -------------------------------------------------------------------------------------------


def test_the_first_page_makes_the_administrator(place: Place, fresh: FlaskClient) -> None:
    assert fresh.get("/", headers=HTML).headers["Location"] == "/setup"
    assert fresh.get("/login").headers["Location"] == "/setup"
    assert fresh.get("/api/v1/status").status_code == 401
    assert b'name="code"' not in fresh.get("/setup").data
    form = {"name": "anna", "password": PASSWORD, "again": PASSWORD}
    answer = fresh.post("/setup", data=form, headers=OURS)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert fresh.get("/api/v1/session").get_json()["roles"] == {"*": "admin"}
    entries = place.office.audit.search().entries
    assert [(entry.who, entry.what) for entry in entries] == [("anna", "login"), ("anna", "setup")]
    assert place.app.test_client().get("/setup").headers["Location"] == "/login"
    again = place.app.test_client().post("/setup", data={**form, "name": "eve"}, headers=OURS)
    assert again.headers["Location"] == "/login"
    assert [account.name for account in place.office.accounts.accounts()] == ["anna"]


def test_through_a_proxy_the_first_page_wants_the_code_from_the_log(place: Place, fresh: FlaskClient) -> None:
    assert b'name="code"' in fresh.get("/setup", headers=FORWARDED).data
    form = {"name": "anna", "password": PASSWORD, "again": PASSWORD}
    for code in ("", "guess"):
        answer = fresh.post("/setup", data={**form, "code": code}, headers=OURS | FORWARDED)
        assert answer.status_code == 403
    assert place.office.accounts.is_empty()
    found = re.search(r"action=web_setup code=(\S+)", (place.directory / "log").read_text())
    assert found
    assert "no account yet: open http://127.0.0.1:19840/setup on this machine" in (place.directory / "log").read_text()
    answer = fresh.post("/setup", data={**form, "code": found[1]}, headers=OURS | FORWARDED)
    assert answer.status_code == 303


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"password": "short", "again": "short"}, "10 to 1024 characters"),
        ({"again": "something else"}, "differ"),
        ({"name": "a b"}, "cannot name an account"),
    ],
)
def test_what_the_first_page_refuses(place: Place, fresh: FlaskClient, change: dict[str, str], text: str) -> None:
    form = {"name": "anna", "password": PASSWORD, "again": PASSWORD, **change}
    answer = fresh.post("/setup", data=form, headers=OURS)
    assert answer.status_code == 400
    assert text in answer.get_data(as_text=True)
    assert PASSWORD not in answer.get_data(as_text=True)
    assert place.office.accounts.is_empty()


# -- login and logout --------------------------------------------------------------------------------------------------


def test_a_login_opens_the_page_one_came_for_and_a_logout_ends_it(place: Place, browser: FlaskClient) -> None:
    answer = browser.get("/queues?system=shop", headers=HTML)
    assert answer.headers["Location"] == "/login?next=/queues%3Fsystem%3Dshop"
    answer = login(browser, next="/queues?system=shop")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/queues?system=shop")
    assert "HttpOnly" in cookie(answer)
    assert "SameSite=Lax" in cookie(answer)
    person = browser.get("/api/v1/session").get_json()
    assert (person["name"], person["via"], person["roles"]) == ("bob", "web", {"shop": "operator"})
    answer = browser.post("/logout", data={"csrf_token": person["csrf"]}, headers=OURS)
    assert answer.headers["Location"] == "/login"
    assert browser.get("/api/v1/session").status_code == 401
    assert [entry.what for entry in place.office.audit.search(who="bob").entries] == ["logout", "login"]


def test_a_stolen_cookie_is_worth_nothing_after_the_logout(place: Place, browser: FlaskClient) -> None:
    secret = cookie(login(browser)).partition("=")[2].partition(";")[0]
    thief = place.app.test_client()
    thief.set_cookie("pepperbus", secret)
    person = thief.get("/api/v1/session").get_json()
    browser.post("/logout", data={"csrf_token": person["csrf"]}, headers=OURS)
    assert thief.get("/api/v1/session").status_code == 401


def test_nobody_learns_which_part_was_wrong(place: Place, browser: FlaskClient) -> None:
    place.office.accounts.add("carl", passwords.hashed(PASSWORD), {"shop": Role.VIEWER})
    place.office.accounts.set_disabled("carl", True)
    texts = set()
    for name, password in (("bob", "wrong password"), ("nobody", PASSWORD), ("carl", PASSWORD)):
        answer = login(browser, password, name)
        assert answer.status_code == 401
        assert "Set-Cookie" not in answer.headers
        texts.add(answer.get_data(as_text=True).replace(name, "NAME"))
    assert len(texts) == 1
    reasons = [entry.reason for entry in place.office.audit.search(what="login").entries]
    assert reasons == ["disabled", "no such account", "wrong password"]
    assert "action=web_login_failed" in (place.directory / "log").read_text()


def test_too_many_failures_are_told_to_wait(place: Place, browser: FlaskClient) -> None:
    place.desk.base.patience = Patience(ManualClock())  # no time passes
    for _ in range(5):
        assert login(browser, "wrong password").status_code == 401
    answer = login(browser)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("/queues?a=b", "/queues?a=b"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("\\\\evil.example", "/"),
        ("queues", "/"),
        ("", "/"),
    ],
)
def test_a_login_never_leads_elsewhere(wanted: str, given: str) -> None:
    assert local_path(wanted) == given


def test_a_new_password_ends_every_session(place: Place, browser: FlaskClient) -> None:
    place.desk.base.patience = Patience(ManualClock())
    login(browser)
    other = place.app.test_client()
    login(other)
    headers = {"X-CSRF-Token": browser.get("/api/v1/session").get_json()["csrf"]}
    wrong = browser.post("/api/v1/password", json={"old": "wrong", "new": "a new password"}, headers=headers)
    assert wrong.status_code == 409
    for _ in range(4):
        browser.post("/api/v1/password", json={"old": "wrong", "new": "a new password"}, headers=headers)
    guess = browser.post("/api/v1/password", json={"old": PASSWORD, "new": "a new password"}, headers=headers)
    assert guess.status_code == 429, "who took a session over guesses no password"
    assert login(other).status_code == 303, "its owner logs in all the same"
    place.desk.base.patience = Patience(ManualClock())
    answer = browser.post("/api/v1/password", json={"old": PASSWORD, "new": "a new password"}, headers=headers)
    assert answer.status_code == 200
    assert browser.get("/api/v1/session").status_code == other.get("/api/v1/session").status_code == 401
    assert login(browser, PASSWORD).status_code == 401
    assert login(browser, "a new password").status_code == 303


def test_nobody_uploads_anything(place: Place) -> None:
    browser = place.app.test_client()
    files = {"name": "bob", "password": PASSWORD, "file": (io.BytesIO(b"x" * (1 << 20)), "x")}
    for path in ("/login", "/setup"):
        answer = browser.post(path, data=files, headers=OURS)
        assert answer.status_code == (413 if path == "/login" else 303)
        files["file"] = (io.BytesIO(b"x" * (1 << 20)), "x")


# -- forms of others ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "x" * 43, "é"])
def test_a_session_alone_changes_nothing(place: Place, token: str | None) -> None:
    client = log_in(place.app.test_client(), place.desk)
    del client.environ_base["HTTP_X_CSRF_TOKEN"]
    data = {} if token is None else {"csrf_token": token}
    for path in ("/logout", "/api/v1/queues/orders/pause"):
        assert client.post(path, data=data, headers=OURS).status_code == 403, path
    assert client.get("/api/v1/session").status_code == 200
    assert place.office.storage("local").paused() == set()


def test_one_sessions_token_is_not_anothers(place: Place) -> None:
    anna, bob = place.app.test_client(), place.app.test_client()
    log_in(anna, place.desk)
    log_in(bob, place.desk, "bob", shop="admin")
    bob.environ_base["HTTP_X_CSRF_TOKEN"] = anna.environ_base["HTTP_X_CSRF_TOKEN"]
    assert bob.post("/api/v1/queues/orders/pause", json={}).status_code == 403


@pytest.mark.parametrize("path", ["/login", "/setup", "/logout"])
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {}],
)
def test_forms_of_other_sites_are_refused(browser: FlaskClient, path: str, headers: dict[str, str]) -> None:
    answer = browser.post(path, data={"name": "bob", "password": PASSWORD}, headers=headers)
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


# -- proxies, TLS, headers ---------------------------------------------------------------------------------------------


def with_proxy(place: Place) -> None:
    from pepperbus.config.load import load

    path = place.directory / "node.conf"
    text = path.read_text().replace("[storages]", "    hosts = bus.example.com\n    proxies = 127.0.0.1\n[storages]")
    path.write_text(text)
    place.office.take(load(path, {}))


def test_behind_a_proxy_of_ours_the_cookie_is_bound_to_host_and_tls(place: Place, browser: FlaskClient) -> None:
    with_proxy(place)
    told = {
        "Host": "bus.example.com",
        "Origin": "https://bus.example.com",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "198.51.100.7, 203.0.113.9",
    }
    answer = browser.post("/login", data={"name": "bob", "password": PASSWORD}, headers=told)
    assert cookie(answer).startswith("__Host-pepperbus=")
    assert "; Secure" in cookie(answer)
    assert "Domain" not in cookie(answer)
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    (entry,) = place.office.audit.search(what="login").entries
    assert entry.address == "203.0.113.9", "the last one is what our proxy saw; those before anybody can invent"


def test_others_are_not_believed_what_they_forward(place: Place, browser: FlaskClient) -> None:
    answer = browser.post(
        "/login", data={"name": "bob", "password": PASSWORD}, headers=OURS | FORWARDED | {"X-Forwarded-Proto": "https"}
    )
    assert cookie(answer).startswith("pepperbus=")
    assert place.office.audit.search(what="login").entries[0].address == "127.0.0.1"


def test_metrics_are_for_this_machine_or_for_those_who_log_in(place: Place) -> None:
    stranger = place.app.test_client()
    assert stranger.get("/metrics").status_code == 200
    assert stranger.get("/metrics", headers=FORWARDED).status_code == 401
    assert stranger.get("/readyz", headers=FORWARDED).get_data(as_text=True) == "not ready\n"
    assert place.client.get("/metrics", headers=FORWARDED).status_code == 200
    bob = log_in(place.app.test_client(), place.desk, "bob", shop="admin")
    assert bob.get("/metrics", headers=FORWARDED).status_code == 403


def test_the_headers_of_every_answer(browser: FlaskClient) -> None:
    for path in ("/login", "/healthz", "/api/v1/status", "/nothing"):
        headers = browser.get(path).headers
        policy = headers["Content-Security-Policy"]
        for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert part in policy, path
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
        assert "Strict-Transport-Security" not in headers


def test_a_header_of_the_wrong_kind_is_nobody(browser: FlaskClient) -> None:
    for value in ("Bearer ", "Bearer pbt_", "Bearer pbt_x_y", "Basic Ym9iOng=", "Bearer \xff"):
        assert browser.get("/api/v1/status", headers={"Authorization": value, **JSON}).status_code == 401, value


def test_an_account_without_roles_sees_nothing(place: Place) -> None:
    client = log_in(place.app.test_client(), place.desk)
    place.office.accounts.add("second", "no password", HOST_ROLES)
    place.office.accounts.set_roles("anna", {})
    assert client.get("/api/v1/session").status_code == 200
    assert client.get("/api/v1/queues").status_code == 403
