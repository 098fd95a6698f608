"""Who is asking: the session cookie or the bearer token of a request, and the forms that make and end a session.

Floor 5. Whether they may is not decided here: `desk.office` has that person in it, and its operations check.
Until there is an account everything leads to the page that makes the first one.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import quote, urlsplit

from flask import Flask, Request, Response, abort, g, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from pepperbus.accounts.model import EVERYWHERE, Account, Actor, Right, Session
from pepperbus.accounts.patience import Patience
from pepperbus.config.model import Web
from pepperbus.errors import Forbidden, PepperbusError, TooManyTries
from pepperbus.log import Log
from pepperbus.operations import logins
from pepperbus.web import failures, oidc
from pepperbus.web.desk import Desk

OPEN_PATHS = ("/healthz", "/readyz", "/login", oidc.START, oidc.BACK, "/setup", "/look", "/api/v1/openapi.json")
_SAFE = ("GET", "HEAD", "OPTIONS")
_FORWARDED = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "X-Forwarded-Host")
_MOST_WAITING = 8
_MOST_BODY = 64 << 10  # of a request from nobody: a form, not an upload
WRONG = logins.WRONG
NO_DIRECTORY = "the directory does not answer; see the log"
WRONG_CODE = "the code is wrong; it stands in the log (action=web_setup)"
DIFFER = "the two passwords differ"


def install(app: Flask, desk: Desk, log: Log) -> None:
    """Identify every request before anything else looks at it, and serve the forms."""
    door = _Door(desk, log)
    app.before_request(door.identify)
    app.jinja_env.globals.update(csrf_token=csrf_token, may=may, current_account=current_account)
    app.context_processor(lambda: {"person": g.actor.name if current_actor() else None})
    app.add_url_rule("/login", "login", door.login, methods=["GET", "POST"])
    app.add_url_rule("/logout", "logout", door.logout, methods=["POST"])
    app.add_url_rule(oidc.START, "oidc", door.oidc)
    app.add_url_rule(oidc.BACK, "oidc_back", door.sign_on.back)
    app.jinja_env.globals["single_sign_on"] = lambda: desk.base.config.oidc
    app.add_url_rule("/setup", "setup", door.setup, methods=["GET", "POST"])


# -- what pages and API ask ----------------------------------------------------------------------------------------


def current_actor() -> Actor | None:
    """Who sent this request; None before a login."""
    return g.get("actor")


def current_account() -> Account | None:
    """The account behind this request's session; None for tokens and before a login."""
    session: Session | None = g.get("session")
    return session.account if session else None


def may(right: Right | str, system: str = EVERYWHERE) -> bool:
    """For pages: whether to offer something (`may("operate", "shop")`). The operation itself checks again."""
    actor = current_actor()
    wanted = right if isinstance(right, Right) else Right[right.upper()]
    return actor is not None and actor.may(wanted, system or EVERYWHERE)


def csrf_token() -> str:
    """What this session's forms send as field `csrf_token` and its scripts as header X-CSRF-Token; "" before a login."""
    session: Session | None = g.get("session")
    return session.csrf if session else ""


def witness(desk: Desk) -> Callable[[], bool]:
    """For streams, which outlive their request: whether its person may still do what they might when it began."""
    actor, address = g.actor, g.address
    bearer, secret = _bearer(), request.cookies.get(_cookie(), "")

    def unchanged() -> bool:
        if bearer:
            return logins.behind_token(desk.base, bearer, address) == actor
        found = logins.behind_session(desk.base, secret, address)
        return found is not None and found[0] == actor

    return unchanged


def _bearer() -> str:
    """The token that came with this request."""
    kind, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if kind == "Bearer" else ""


def address_of(req: Request, proxies: tuple[str, ...]) -> str:
    """Where the request comes from: the peer, or what a proxy of ours says. A unix socket's peer is `local`."""
    peer = req.remote_addr or "local"
    told = req.headers.get("X-Forwarded-For", "")
    if peer not in proxies or not told:
        return peer
    last = told.rpartition(",")[2].strip()
    try:
        return str(ipaddress.ip_address(last))
    except ValueError:
        return peer


def is_secure(req: Request, proxies: tuple[str, ...]) -> bool:
    """Whether the browser speaks TLS, with us or with a proxy of ours."""
    return req.scheme == "https" or (
        (req.remote_addr or "local") in proxies and req.headers.get("X-Forwarded-Proto") == "https"
    )


def is_direct(req: Request) -> bool:
    """Whether somebody on this very machine asks, without a proxy in between that others could come through."""
    try:
        local = ipaddress.ip_address(req.remote_addr or "").is_loopback
    except ValueError:
        local = False
    return local and not any(header in req.headers for header in _FORWARDED)


def local_path(wanted: str) -> str:
    """Where to go after the login: a path of ours, whatever the link said."""
    parts = urlsplit(wanted.replace("\\", "/"))
    return (
        wanted if wanted.startswith("/") and not wanted.startswith("//") and not (parts.scheme or parts.netloc) else "/"
    )


def _own_address(web: Web) -> str:
    """What a browser on this machine opens; "" when the sidecar listens on unix sockets only."""
    hosts = [address for address in web.listen if not address.startswith("unix:")]
    return f"{'https' if web.cert else 'http'}://{hosts[0]}" if hosts else ""


# -- the forms -----------------------------------------------------------------------------------------------------


class _Door:
    """The forms and what they remember between requests."""

    def __init__(self, desk: Desk, log: Log) -> None:
        self._desk = desk
        self._log = log
        self._patience = Patience(desk.base.clock)
        self._waiting = 0
        self._code = ""
        self.sign_on = oidc.SignOn(desk, log, with_session, lambda status, why: _form("login.html", status, error=why))
        if desk.base.accounts.is_empty():
            self._code = secrets.token_urlsafe(9)
            log.warning(
                "web_setup",
                f"no account yet: open {_own_address(desk.base.config.web)}/setup on this machine, "
                "or /setup from elsewhere with the code",
                code=self._code,
            )

    def identify(self) -> AnyResponse | None:
        """Before every request: who is it; what only people with a login may ask leads to the login."""
        web = self._desk.base.config.web
        g.address = address_of(request, web.proxies)
        g.secure = is_secure(request, web.proxies)
        if request.path.startswith("/static/"):
            return None  # the same for everybody; a page asks for ten of them
        if request.path in OPEN_PATHS:
            request.max_content_length = _MOST_BODY
        if bearer := _bearer():
            g.actor = logins.behind_token(self._desk.base, bearer, g.address)
        elif request.path == "/login" and request.method == "POST":
            return None  # whoever logs in is nobody yet, whatever an older tab has left in the browser
        elif secret := request.cookies.get(_cookie()):
            self._take_session(secret)
        if current_actor() or request.path in OPEN_PATHS:
            return None
        if request.path in ("/metrics", "/global/metrics") and is_direct(request):
            return None
        if g.get("own_refusal"):
            return None
        return self._stranger()

    def _take_session(self, secret: str) -> None:
        found = logins.behind_session(self._desk.base, secret, g.address)
        if found is None:
            return
        g.actor, g.session = found
        if request.method not in _SAFE:
            sent = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token", "")
            if not hmac.compare_digest(sent.encode(), g.session.csrf.encode()):
                g.actor = g.session = None
                abort(403, "the form is too old or not ours (csrf); load the page again")

    def _stranger(self) -> AnyResponse:
        if self._desk.base.accounts.is_empty():
            if "text/html" in request.headers.get("Accept", "") and request.method == "GET":
                return redirect("/setup", 303)
            abort(401, "there is no account yet: make the first one at /setup or with `pepperbus user add NAME`")
        if "text/html" in request.headers.get("Accept", "") and request.method == "GET":
            return redirect(f"/login?next={quote(request.full_path.rstrip('?'))}", 303)
        response = abort_response("log in first, or send Authorization: Bearer TOKEN")
        return response

    def login(self) -> AnyResponse:
        if self._desk.base.accounts.is_empty():
            return redirect("/setup", 303)
        back = local_path(request.values.get("next", "/"))
        if request.method == "GET":
            return redirect(back, 303) if current_account() else _form("login.html", next=back)
        name = request.form.get("name", "")
        try:
            secret = self._hashed(
                lambda: logins.login(self._desk.base, self._patience, name, request.form.get("password", ""), g.address)
            )
        except TooManyTries as error:
            response = _form("login.html", 429, next=back, name=name, error=str(error))
            response.headers["Retry-After"] = str(int(error.wait_s) + 1)
            return response
        except Forbidden as error:
            self._log.warning("web_login_failed", "a login was refused", account=name[:128], address=g.address)
            return _form("login.html", 401, next=back, name=name, error=str(error))
        except PepperbusError as error:
            self._log.warning("web_login_failed", str(error), account=name[:128], address=g.address)
            return _form("login.html", 503, next=back, name=name, error=NO_DIRECTORY)
        return with_session(redirect(back, 303), secret)

    def oidc(self) -> AnyResponse:
        return cast(AnyResponse, self.sign_on.start(local_path(request.args.get("next", "/"))))

    def logout(self) -> AnyResponse:
        if g.get("session"):
            logins.logout(self._desk.office, request.cookies[_cookie()])
        response = redirect("/login", 303)
        response.delete_cookie(_cookie(), secure=g.secure, httponly=True, samesite="Lax")
        return response

    def setup(self) -> AnyResponse:
        if not self._desk.base.accounts.is_empty():
            return redirect("/login", 303)
        needs_code = not is_direct(request)
        name = request.form.get("name", "")
        given: dict[str, Any] = {"needs_code": needs_code, "name": name}
        if request.method == "GET":
            return _form("setup.html", **given)
        if needs_code and not self._is_code(request.form.get("code", "")):
            return _form("setup.html", 403, error=WRONG_CODE, **given)
        if request.form.get("password", "") != request.form.get("again", ""):
            return _form("setup.html", 400, error=DIFFER, **given)
        try:
            secret = self._hashed(lambda: logins.setup(self._desk.base, name, request.form["password"], g.address))
        except PepperbusError as error:
            return _form("setup.html", 400, error=str(error), **given)
        return with_session(redirect("/", 303), secret)

    def _is_code(self, code: str) -> bool:
        wait_s = self._patience.wait_s("(setup)", g.address)
        if wait_s > 0 or not self._code:
            return False
        good = hmac.compare_digest(code.strip().encode(), self._code.encode())
        if not good:
            self._patience.failed("(setup)", g.address)
        return good

    def _hashed(self, work: Any) -> str:
        """A short queue for the hashes: a flood of logins must not keep everybody waiting for minutes."""
        if self._waiting >= _MOST_WAITING:
            raise TooManyTries(1.0)
        self._waiting += 1
        try:
            return str(work())
        finally:
            self._waiting -= 1


def abort_response(message: str) -> Response:
    response = failures.error(401, "unauthorized", message)
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _form(template: str, status: int = 200, **words: Any) -> Response:
    return Response(render_template(template, **words), status, mimetype="text/html")


def _cookie() -> str:
    """With TLS the name binds the cookie to this very host."""
    return "__Host-pepperbus" if g.secure else "pepperbus"


def with_session(response: AnyResponse, secret: str) -> AnyResponse:
    """The answer with the cookie of that session.

    Lax, not Strict: a link in an alarm's message must open the page. Nothing changes by GET, and forms carry a token.
    """
    response.set_cookie(_cookie(), secret, secure=g.secure, httponly=True, samesite="Lax", path="/")
    return response
