"""Single sign-on by OpenID Connect: the way to the provider and back. The protocol is Authlib's and joserfc's.

Floor 5. Code flow with PKCE, state and nonce; the ID token is checked against the provider's published keys. What the
provider says decides who somebody is; what they may follows from the configuration's groups (`operations.logins`).
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from flask import Response, g, redirect, request

from pepperbus.config.signon_settings import Oidc
from pepperbus.errors import Forbidden, PepperbusError
from pepperbus.log import Log
from pepperbus.operations import logins
from pepperbus.web.desk import Desk

START, BACK = "/login/oidc", "/login/oidc/back"
_COOKIE = "pepperbus_oidc"
_TIMEOUT_S = 10.0
_PENDING_S = 600.0
_MOST_PENDING = 1000
_LEEWAY_S = 60
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


@dataclass(frozen=True, slots=True)
class _Pending:
    """A person sent to the provider and not yet back."""

    nonce: str
    verifier: str
    back: str
    at: float


class SignOn:
    """The two addresses, and who is under way. Knows no cookie of a session: `done` makes it."""

    def __init__(self, desk: Desk, log: Log, done: Any, failed: Any) -> None:
        self._desk = desk
        self._log = log
        self._done = done
        self._failed = failed
        self._pending: OrderedDict[str, _Pending] = OrderedDict()

    def start(self, back: str) -> Any:
        """Send the browser to the provider; `back` is where it wants to be in the end."""
        oidc = self._desk.base.config.oidc
        if not oidc.issuer:
            return self._failed(404, "there is no single sign-on here")
        pending = _Pending(secrets.token_urlsafe(32), secrets.token_urlsafe(48), back, time.monotonic())
        state = secrets.token_urlsafe(32)
        try:
            with _client(oidc) as client:
                url, _ = client.create_authorization_url(
                    _facts(client, oidc)["authorization_endpoint"],
                    state=state,
                    nonce=pending.nonce,
                    code_verifier=pending.verifier,
                )
        except Exception as error:  # whatever the network and the provider may do
            return self._away(error)
        self._remember(state, pending)
        response = redirect(url, 303)
        response.set_cookie(_COOKIE, state, max_age=int(_PENDING_S), httponly=True, secure=g.secure, samesite="Lax")
        return response

    def back(self) -> Any:
        """The browser comes back with a code. It must be the browser that was sent."""
        state = request.args.get("state", "")
        pending = self._pending.pop(state, None)
        mine = hmac.compare_digest(request.cookies.get(_COOKIE, "").encode(), state.encode())
        if pending is None or not mine or time.monotonic() - pending.at > _PENDING_S:
            return self._failed(400, "this login was begun elsewhere or too long ago; try again")
        if "code" not in request.args:
            return self._failed(403, f"the provider refused: {request.args.get('error', 'no reason')[:200]}")
        oidc = self._desk.base.config.oidc
        try:
            claims = _claims(oidc, request.args["code"], pending)
        except Exception as error:
            return self._away(error)
        try:
            secret = logins.signed_on(
                self._desk.base,
                "oidc",
                f"{oidc.issuer}|{claims['sub']}",
                str(claims.get(oidc.name_claim) or ""),
                _groups(claims.get(oidc.groups_claim)),
                g.address,
            )
        except Forbidden as error:
            return self._failed(403, str(error))
        except PepperbusError as error:
            return self._failed(400, str(error))
        response: Response = self._done(redirect(pending.back, 303), secret)
        response.delete_cookie(_COOKIE)
        return response

    def _remember(self, state: str, pending: _Pending) -> None:
        self._pending[state] = pending
        while len(self._pending) > _MOST_PENDING:
            self._pending.popitem(last=False)

    def _away(self, error: Exception) -> Any:
        self._log.warning("web_oidc", f"{type(error).__name__}: {error}", issuer=self._desk.base.config.oidc.issuer)
        return self._failed(502, "single sign-on failed; the log says why (action=web_oidc)")


def _client(oidc: Oidc) -> Any:
    from authlib.integrations.requests_client import OAuth2Session

    client = OAuth2Session(
        oidc.client_id,
        oidc.client_secret.reveal(),
        scope=" ".join(oidc.scopes),
        redirect_uri=f"{'https' if g.secure else 'http'}://{request.host}{BACK}",
        code_challenge_method="S256",
    )
    client.trust_env = False
    if oidc.ca:
        client.verify = str(oidc.ca)
    return client


def _facts(client: Any, oidc: Oidc) -> dict[str, Any]:
    """The provider's own description. Raises ValueError when it describes somebody else."""
    facts = _json(client, oidc.issuer.rstrip("/") + "/.well-known/openid-configuration")
    if facts.get("issuer") != oidc.issuer:
        raise ValueError(f"the provider calls itself {facts.get('issuer')!r}")
    return facts


def _json(client: Any, url: str) -> dict[str, Any]:
    answer = client.get(url, timeout=_TIMEOUT_S, withhold_token=True, allow_redirects=False)
    if answer.status_code != 200:
        raise ValueError(f"{url} answered {answer.status_code}")
    return dict(answer.json())


def _claims(oidc: Oidc, code: str, pending: _Pending) -> dict[str, Any]:
    """What the provider vouches for. Raises whatever is wrong with it."""
    from joserfc import jwt
    from joserfc.jwk import KeySet

    with _client(oidc) as client:
        facts = _facts(client, oidc)
        answer = client.fetch_token(
            facts["token_endpoint"],
            code=code,
            code_verifier=pending.verifier,
            timeout=_TIMEOUT_S,
            allow_redirects=False,
        )
        keys = KeySet.import_key_set(_json(client, facts["jwks_uri"]))  # type: ignore[arg-type]
    token = jwt.decode(answer["id_token"], keys, algorithms=_ALGORITHMS)
    wanted = jwt.JWTClaimsRegistry(
        leeway=_LEEWAY_S,
        iss={"essential": True, "value": oidc.issuer},
        aud={"essential": True, "value": oidc.client_id},
        sub={"essential": True},
        exp={"essential": True},
        nonce={"essential": True, "value": pending.nonce},
    )
    wanted.validate(token.claims)
    if token.claims.get("azp", oidc.client_id) != oidc.client_id:
        raise ValueError("the token was made for another client")
    return dict(token.claims)


def _groups(told: Any) -> list[str]:
    if isinstance(told, str):
        return [told]
    return [one for one in told if isinstance(one, str)] if isinstance(told, list) else []
