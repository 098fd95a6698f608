"""The admin addresses of the Go system, for the tools that know them: one envelope, always status 200, text/plain.

Floor 5. Path parts are joined and compared without case, so /get/queue/length is /GetQueueLength. What each does stands in
legacy_actions.py. Unlike there, somebody must be known: a login, a token, or this machine under `legacy_loopback = yes`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
from flask import Flask, Request, Response, g, request
from werkzeug.routing import BaseConverter, ValidationError

from pepperbus.accounts.model import HOST_ROLES, Actor, Via
from pepperbus.errors import Forbidden, NotFound, PepperbusError, UsageError
from pepperbus.web import logins
from pepperbus.web.desk import Desk
from pepperbus.web.legacy_actions import ACTIONS, Action, Asked

GUEST = "legacy_loopback"  # who acts when nobody logged in, in the audit log


class Envelope(msgspec.Struct):
    """Every answer. `error_code`: 0, 400 for what was asked wrongly or may not be done, 500 for what went wrong."""

    error_code: int
    error: str
    data: object


def named(path: str) -> Action | None:
    """What a path means here."""
    return ACTIONS.get(path.replace("/", "").lower())


class _Named(BaseConverter):
    """Lets only our paths through, whatever their case and slashes."""

    regex = r"[^/].*?"
    part_isolating = False
    weight = 1000

    def to_python(self, value: str) -> str:
        if named(value) is None:
            raise ValidationError
        return value


def install(app: Flask, desk: Desk) -> None:
    """Before `logins.install`: here it is decided who needs no login."""

    @app.before_request
    def greet() -> None:
        if named(request.path) is None:
            return
        g.own_refusal = True
        if desk.base.config.web.legacy_loopback and logins.is_direct(request) and _is_no_page(request):
            g.actor = Actor(GUEST, Via.WEB, request.remote_addr or "", HOST_ROLES)

    def serve(action: str) -> Response:
        found = named(action)
        assert found is not None  # the converter let it through
        return _answer(_do(desk, found))

    app.url_map.converters["legacy"] = _Named
    app.add_url_rule("/<legacy:action>", "legacy", serve, methods=["GET", "POST"])


def _do(desk: Desk, action: Action) -> Envelope:
    try:
        if logins.current_actor() is None:
            raise Forbidden("log in first: send Authorization: Bearer TOKEN, or set legacy_loopback = yes in [web]")
        if action.changes and g.get("session") and request.method != "POST":  # HEAD comes here as well
            raise Forbidden("a link must change nothing: send a token, or POST the form")
        return Envelope(0, "", action.do(Asked(desk, request)))
    except (Forbidden, NotFound, UsageError) as refused:
        return Envelope(400, str(refused), "")
    except PepperbusError as failure:
        return Envelope(500, str(failure), "")


def _answer(envelope: Envelope) -> Response:
    return Response(msgspec.json.encode(envelope), mimetype="text/plain")


def _is_no_page(asked: Request) -> bool:
    """Not a browser that a page of somebody else's sent here: such a request would come from this machine too."""
    if asked.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return False
    told = (asked.headers.get("Origin"), asked.headers.get("Referer"))
    return all(one is None or urlsplit(one).netloc == asked.host for one in told)
