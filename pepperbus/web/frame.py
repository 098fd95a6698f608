"""What every page wears: navigation, language, theme, static files with a version. Floor 5.

A page is a template that extends `base.html` and a `build` that makes its variables. Asked for as an event stream, the
same page sends its block `live` again whenever that has changed (live.py); static/app.js puts it in place.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flask import Flask, Response, abort, current_app, g, make_response, redirect, render_template, request

from pepperbus import __version__
from pepperbus.journal.failures import uncounted
from pepperbus.web import formats, live
from pepperbus.web.live import Build
from pepperbus.web.said import reason, said
from pepperbus.web.words import COOKIE as LANGUAGE_COOKIE
from pepperbus.web.words import LANGUAGES, _, ago, span, spoken, timed

THEMES = ("auto", "light", "dark")
THEME_COOKIE = "pepperbus_theme"
STATIC = Path(__file__).with_name("static")
_YEAR_S = 365 * 86400
_EVERY_S = 2.0
_BEGINNING = {"cursor": None, "before": None}
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".json": "application/json"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the navigation. `text` is English; base.html translates it. `needs` "admin": for those of the node."""

    path: str
    text: str
    icon: str
    group: str = "work"
    needs: str = ""


NAVIGATION: list[Entry] = []


def install(app: Flask) -> None:
    """Give the application's templates what base.html needs, and the two addresses that every page uses."""
    env = app.jinja_env
    env.trim_blocks = env.lstrip_blocks = True
    env.globals.update(
        _=_,
        said=said,
        reason=reason,
        cause=lambda text: reason(uncounted(text)),
        navigation=NAVIGATION,
        languages=LANGUAGES,
        themes=THEMES,
        version=__version__,
        language=spoken,
        span=span,
        ago=ago,
        timed=timed,
        theme=theme,
        here=here,
        static=static_url,
        with_query=with_query,
    )
    env.globals.update({name: getattr(formats, name) for name in ("count", "rate", "size", "moment", "sparkline")})
    env.globals["ui"] = env.get_template("ui.html").module
    app.add_url_rule("/look", "look", _look)
    app.add_url_rule("/static/<path:name>", "static", _static)


def show(template: str, build: Build, every: float = _EVERY_S, shared: bool = False) -> Response:
    """The page, or, when the browser asks for events, its live part again and again.

    `shared`: the live part holds nothing of the person but what their roles let them see, so that people with the same
    roles who look at the same address share one rendering.
    """
    is_live = "live" in current_app.jinja_env.get_template(template).blocks
    if not is_live or "text/event-stream" not in request.headers.get("Accept", ""):
        return make_response(render_template(template, **build()))
    key = f"{here()} {spoken()} {g.actor.roles!r}" if shared and g.get("actor") else ""
    return live.stream(template, build, every, key)


def theme() -> str:
    chosen = request.cookies.get(THEME_COOKIE, "auto")
    return chosen if chosen in THEMES else "auto"


def here() -> str:
    """This page's own path and query, to come back to."""
    return request.full_path.rstrip("?")


def with_query(**changes: Any) -> str:
    """This page with some words of its query changed, its list from the beginning unless they say from where; "" or None
    removes one.
    """
    from urllib.parse import urlencode

    changes = {**_BEGINNING, **changes}
    words = {**request.args.to_dict(), **{name: str(value) for name, value in changes.items() if value is not None}}
    kept = {name: value for name, value in words.items() if value != "" and changes.get(name, "") is not None}
    return request.path + ("?" + urlencode(kept) if kept else "")


def _look() -> Any:
    """Choose language or theme; back to where one was."""
    back = request.args.get("back", "/")
    parts = urlsplit(back)
    if parts.netloc or parts.scheme or not back.startswith("/") or back.startswith(("//", "/\\")):
        back = "/"
    response = redirect(back, 303)
    for name, cookie, allowed in (("language", LANGUAGE_COOKIE, LANGUAGES), ("theme", THEME_COOKIE, THEMES)):
        if (value := request.args.get(name)) in allowed:
            response.set_cookie(cookie, str(value), max_age=_YEAR_S, httponly=True, samesite="Lax")
    return response


# -- static files --------------------------------------------------------------------------------------------------


class _Asset(NamedTuple):
    """A file of ours as it is sent; `version` is its fingerprint."""

    version: str
    plain: bytes
    packed: bytes
    kind: str


_assets: dict[str, _Asset] = {}


def pack() -> None:
    """Read and pack all static files; for a thread of its own, so that no first visitor waits for it."""
    for path in STATIC.rglob("*"):
        _asset(path.relative_to(STATIC).as_posix())


def static_url(name: str) -> str:
    """Its address with a fingerprint, so that a browser may keep it for ever; "" for a file that set-up could not get."""
    asset = _asset(name)
    return f"/static/{name}?v={asset.version}" if asset else ""


def _asset(name: str) -> _Asset | None:
    if name not in _assets:
        path = STATIC / name
        if not path.resolve().is_relative_to(STATIC) or path.suffix not in _KINDS or not path.is_file():
            return None
        plain = path.read_bytes()
        version = hashlib.blake2b(plain, digest_size=6).hexdigest()
        _assets[name] = _Asset(version, plain, gzip.compress(plain, 9, mtime=0), _KINDS[path.suffix])
    return _assets[name]


def _static(name: str) -> Response:
    """A file of ours, packed when the browser takes that."""
    asset = _asset(name)
    if asset is None:
        abort(404)
    takes_gzip = "gzip" in request.headers.get("Accept-Encoding", "")
    response = Response(asset.packed if takes_gzip else asset.plain, mimetype=asset.kind)
    response.headers["Vary"] = "Accept-Encoding"
    if takes_gzip:
        response.headers["Content-Encoding"] = "gzip"
    fresh = request.args.get("v") == asset.version
    response.headers["Cache-Control"] = f"public, max-age={_YEAR_S}, immutable" if fresh else "no-cache"
    return response
