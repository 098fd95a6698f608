"""The pages of accounts, of one's own account and of the audit log, as a browser without scripts uses them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from pepperbus.accounts import passwords
from pepperbus.accounts.model import Role
from tests.unit.test_web import Place, log_in

PAGE = {"Accept": "text/html", "Origin": "http://localhost"}
LONG = "correct horse 9"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("people"))
    yield place
    place.office.close()


def post(client: FlaskClient, path: str, **form: Any) -> tuple[int, str]:
    answer = client.post(path, data={"csrf_token": "", **form}, headers=PAGE)  # a browser sends no empty form
    return answer.status_code, answer.get_data(as_text=True)


def secret(text: str) -> str:
    """What is shown once."""
    found = re.search(r'<code id="secret">([^<]+)</code>', text)
    assert found, text
    return found[1]


def test_an_account_is_made_given_roles_shut_out_and_removed(place: Place) -> None:
    store = place.office.accounts
    status, text = post(place.client, "/users", name="bert", **{"role:shop": "operator"})
    assert status == 200
    assert passwords.matches(secret(text), store.hash_of("bert"))
    assert "secret" not in place.text("/users/bert"), "a password is shown once"

    for path in ("/users/bert", "/me", "/queues/files"):
        assert "function" not in place.text(path).partition("<main")[2], "no news is none"

    post(place.client, "/users/bert/roles", other="bank", **{"role:shop": "", "role:*": "", "other-role": "viewer"})
    assert store.account("bert").roles == {"bank": Role.VIEWER}
    post(place.client, "/users/bert/disable")
    assert store.account("bert").disabled
    post(place.client, "/users/bert/enable")
    assert not store.account("bert").disabled
    status, text = post(place.client, "/users/bert/reset")
    assert passwords.matches(secret(text), store.hash_of("bert"))
    assert post(place.client, "/users/bert/remove")[0] == 303
    assert store.find("bert") is None


@pytest.mark.parametrize(
    ("path", "form", "status", "words"),
    [
        ("/users", {"name": "carl"}, 400, "role in at least one system"),
        ("/users", {"name": "ca rl", "role:*": "admin"}, 400, "cannot name an account"),
        ("/users", {"name": "carl", "role:*": "admin", "password": "short"}, 400, "10"),
        ("/users/anna/roles", {}, 409, "last account with the role admin"),
        ("/users/anna/tokens", {"name": "x", "role": "admin", "days": "soon"}, 400, "how many days"),
        ("/me/password", {"old": "x", "new": LONG, "again": "other"}, 400, "differ"),
        ("/me/password", {"old": "x", "new": LONG, "again": LONG}, 409, "old password is wrong"),
    ],
)
def test_what_is_wrong_is_said_on_the_page(place: Place, path: str, form: Any, status: int, words: str) -> None:
    got, text = post(place.client, path, **form)
    assert (got, words in text) == (status, True), text
    assert "<nav" in text


def test_a_new_password_ends_the_other_sessions_and_not_this_one(place: Place) -> None:
    place.office.accounts.add("dora", passwords.hashed(LONG), {"shop": Role.VIEWER})
    here, elsewhere = (log_in(place.app.test_client(), place.desk, "dora") for _ in range(2))
    text = here.get("/me", headers=PAGE).get_data(as_text=True)
    ends = re.findall(r"/me/sessions/[0-9a-f]{12}/end", text)
    assert len(set(ends)) == 1, "this session cannot end itself there"
    answer = here.post("/me/password", data={"old": LONG, "new": LONG + "!", "again": LONG + "!"}, headers=PAGE)
    assert (answer.status_code, answer.location) == (303, "/me?said=password")
    assert here.get("/me?said=password", headers=PAGE).status_code == 200
    assert elsewhere.get("/me", headers=PAGE).status_code == 303, "to the login"


def test_one_ends_ones_own_sessions_and_nobody_elses(place: Place) -> None:
    egon, other, fritz = (
        log_in(place.app.test_client(), place.desk, name, shop="viewer") for name in ("egon", "egon", "fritz")
    )
    mine = re.search(r"/me/sessions/[0-9a-f]{12}/end", egon.get("/me", headers=PAGE).get_data(as_text=True))
    assert mine
    assert post(fritz, mine[0])[0] == 404
    assert other.get("/me", headers=PAGE).status_code == 200
    assert post(egon, mine[0])[0] == 303
    assert other.get("/me", headers=PAGE).status_code == 303


def test_a_token_is_shown_once_works_and_is_revoked(place: Place) -> None:
    client = log_in(place.app.test_client(), place.desk, "gerd", shop="operator")
    status, text = post(client, "/me/tokens", name="<b>ci</b>", role="viewer", days="7", system="shop")
    assert (status, "<b>ci</b>" in text) == (200, False)
    bearer = {"Authorization": f"Bearer {secret(text)}"}
    stranger = place.app.test_client()
    assert stranger.get("/api/v1/session", headers=bearer).get_json()["roles"] == {"shop": "viewer"}
    assert stranger.get("/me", headers={**bearer, **PAGE}).status_code == 403, "people only"
    text = client.get("/me", headers=PAGE).get_data(as_text=True)
    assert "secret" not in text
    revoke = re.search(r"/tokens/[0-9a-f]+/revoke", text)
    assert revoke
    assert post(client, revoke[0], back="/me")[0] == 303
    assert stranger.get("/api/v1/session", headers=bearer).status_code == 401


def test_the_audit_log_is_filtered_paged_and_taken_along(place: Place) -> None:
    for name in ("orders/x", "orders/y"):
        place.office.audit.add(place.office.acting(place.office.actor).actor, "purge", name, "failed", "=1+1")
    pauser = log_in(place.app.test_client(), place.desk, "hans", shop="operator")
    for deed in ("pause", "resume") * 30:
        assert pauser.post(f"/api/v1/queues/orders/{deed}", json={}).status_code == 200
    first = place.text("/audit?who=hans")
    assert first.count('<th scope="row">') == 50
    older = re.search(r'href="(/audit\?[^"]*before=[^"]*)"', first)
    assert older
    assert place.text(older[1].replace("&amp;", "&")).count('<th scope="row">') == 10
    assert "orders/x" in place.text("/audit?result=failed&about=orders/")
    rows = list(csv.DictReader(io.StringIO(place.text("/audit.csv?what=purge"))))
    assert [(row["about"], row["reason"]) for row in rows] == [("orders/y", "'=1+1"), ("orders/x", "'=1+1")]
    assert [one["about"] for one in place.get("/audit.json?what=purge").get_json()] == ["orders/y", "orders/x"]
    chain = place.get("/audit/chain", **{"HX-Request": "true"}).get_data(as_text=True)
    assert "The chain is intact" in chain


def test_a_log_that_was_changed_is_said_to_be(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for _ in range(3):
        place.client.post("/api/v1/queues/orders/pause", json={})
    (file,) = place.office.audit.directory.glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"anna"', b'"otto"', 1))
    text = place.text("/audit/chain")
    assert "The chain is broken" in text
    assert "<nav" in text, "without scripts it is the whole page"
    place.office.close()
