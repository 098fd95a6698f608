"""Single sign-on against a small provider of our own on loopback, honest and otherwise."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import RSAKey

from pepperbus.accounts.model import HOST_ROLES, Role
from pepperbus.config.load import load
from tests.unit.test_web import Place

KEY, OTHER_KEY = RSAKey.generate_key(2048, {"kid": "k1"}), RSAKey.generate_key(2048, {"kid": "k1"})
SECTION = """\
[oidc]
    issuer = @ISSUER@
    client_id = pepperbus
    client_secret = the-client-secret
    label = Our company
    [[roles]]
        bus-admins = admin
        shop-team = shop=operator, bank=viewer
        leads = shop=admin
[storages]
"""


class Provider:
    """Answers as an OpenID provider does. `claims` and `key` may be spoilt by a test."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {"sub": "u-17", "preferred_username": "lin", "groups": ["shop-team"]}
        self.key = KEY
        self.asked: dict[str, dict[str, str]] = {}
        self.token_requests: list[dict[str, str]] = []
        self.described_as = ""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.get(self)

            def do_POST(self) -> None:
                provider.post(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def get(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        if parts.path == "/.well-known/openid-configuration":
            self._json(
                request,
                {
                    "issuer": self.described_as or self.url,
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                    "jwks_uri": f"{self.url}/keys",
                },
            )
        else:
            self._json(request, {"keys": [KEY.as_dict(private=False)]})

    def authorize(self, location: str) -> str:
        """What the provider's login page does: the address it sends the browser back to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        assert (asked["response_type"], asked["client_id"]) == ("code", "pepperbus")
        code = f"code-{len(self.asked)}"
        self.asked[code] = asked
        return f"{urlsplit(asked['redirect_uri']).path}?{urlencode({'code': code, 'state': asked['state']})}"

    def post(self, request: BaseHTTPRequestHandler) -> None:
        body = parse_qs(request.rfile.read(int(request.headers["Content-Length"])).decode())
        form = {name: values[0] for name, values in body.items()}
        self.token_requests.append(form)
        asked = self.asked.pop(form["code"])
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        login = base64.b64decode(request.headers["Authorization"].partition(" ")[2]).decode()
        if challenge.decode() != asked["code_challenge"] or login != "pepperbus:the-client-secret":
            self._json(request, {"error": "invalid_grant"}, 400)
            return
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": "pepperbus",
            "exp": now + 300,
            "iat": now,
            "nonce": asked["nonce"],
            **self.claims,
        }
        text = jwt.encode({"alg": "RS256", "kid": "k1"}, claims, self.key)
        self._json(request, {"access_token": "a", "token_type": "Bearer", "id_token": text})

    def _json(self, request: BaseHTTPRequestHandler, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture
def place(tmp_path: Path, provider: Provider) -> Iterator[Place]:
    place = Place(tmp_path)
    path = tmp_path / "node.conf"
    path.write_text(path.read_text().replace("[storages]\n", SECTION.replace("@ISSUER@", provider.url)))
    place.office.take(load(path, {}))
    yield place
    place.office.close()


@pytest.fixture
def browser(place: Place) -> FlaskClient:
    return place.app.test_client()


def sign_on(browser: FlaskClient, provider: Provider, next: str = "/") -> Any:
    away = browser.get(f"/login/oidc?next={next}")
    assert away.status_code == 303
    return browser.get(provider.authorize(away.headers["Location"]))


def test_somebody_of_a_group_comes_in_with_its_roles(place: Place, browser: FlaskClient, provider: Provider) -> None:
    assert "Our company" in browser.get("/login").get_data(as_text=True)
    answer = sign_on(browser, provider, "/queues")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/queues")
    person = browser.get("/api/v1/session").get_json()
    assert (person["name"], person["roles"]) == ("lin", {"shop": "operator", "bank": "viewer"})
    (entry,) = place.office.audit.search(what="login").entries
    assert (entry.who, entry.result, entry.reason) == ("lin", "done", "oidc")
    assert place.office.accounts.account("lin").source == "oidc"


def test_roles_follow_the_groups_at_every_login(place: Place, browser: FlaskClient, provider: Provider) -> None:
    sign_on(browser, provider)
    provider.claims |= {"groups": ["shop-team", "leads"], "preferred_username": "lin.renamed"}
    sign_on(browser, provider)
    assert place.office.accounts.account("lin").roles == {"shop": Role.ADMIN, "bank": Role.VIEWER}
    assert len([one for one in place.office.accounts.accounts() if one.source == "oidc"]) == 1
    provider.claims["groups"] = "bus-admins"
    sign_on(browser, provider)
    assert place.office.accounts.account("lin").roles == HOST_ROLES


@pytest.mark.parametrize("groups", [[], ["others"], None, [17], "*"])
def test_whoever_is_in_no_group_stays_outside(
    place: Place, browser: FlaskClient, provider: Provider, groups: Any
) -> None:
    provider.claims["groups"] = groups
    answer = sign_on(browser, provider)
    assert answer.status_code == 403
    assert browser.get("/api/v1/session").status_code == 401
    assert place.office.accounts.find("lin") is None
    assert place.office.audit.search(what="login").entries[0].result == "refused"


def test_a_disabled_account_stays_outside(place: Place, browser: FlaskClient, provider: Provider) -> None:
    sign_on(browser, provider)
    place.office.accounts.set_disabled("lin", True)
    assert sign_on(browser, provider).status_code == 403


@pytest.mark.parametrize("name", ["anna", "a b", ""])
def test_a_name_of_somebody_else_or_of_nobody_is_refused(
    place: Place, browser: FlaskClient, provider: Provider, name: str
) -> None:
    provider.claims["preferred_username"] = name
    assert sign_on(browser, provider).status_code == 400
    assert place.office.accounts.account("anna").source == "local"


@pytest.mark.parametrize(
    "lie",
    [
        {"nonce": "another"},
        {"aud": "another"},
        {"aud": ["pepperbus", "x"], "azp": "x"},
        {"iss": "http://127.0.0.1:1"},
        {"exp": 1},
        {"sub": None},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_us_lets_nobody_in(
    place: Place, browser: FlaskClient, provider: Provider, lie: dict[str, Any]
) -> None:
    provider.claims |= lie
    assert sign_on(browser, provider).status_code == 502
    assert browser.get("/api/v1/session").status_code == 401
    assert "action=web_oidc" in (place.directory / "log").read_text()


def test_a_token_of_another_key_lets_nobody_in(browser: FlaskClient, provider: Provider) -> None:
    provider.key = OTHER_KEY
    assert sign_on(browser, provider).status_code == 502
    assert browser.get("/api/v1/session").status_code == 401


def test_a_provider_that_describes_somebody_else_is_not_asked(browser: FlaskClient, provider: Provider) -> None:
    provider.described_as = "https://evil.example"
    assert browser.get("/login/oidc").status_code == 502
    assert provider.token_requests == []


def test_the_way_back_is_for_the_browser_that_was_sent_and_only_once(
    place: Place, browser: FlaskClient, provider: Provider
) -> None:
    back = provider.authorize(browser.get("/login/oidc").headers["Location"])
    assert place.app.test_client().get(back).status_code == 400, "a victim lured to somebody else's login"
    assert browser.get(back).status_code == 400, "used up"
    assert browser.get("/login/oidc/back?code=x&state=").status_code == 400
    assert provider.token_requests == []


def test_without_the_provider_local_accounts_still_log_in(
    place: Place, browser: FlaskClient, provider: Provider
) -> None:
    provider.close()
    assert browser.get("/login/oidc").status_code == 502
    assert browser.get("/login").status_code == 200
