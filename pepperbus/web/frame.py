"""What every page wears: navigation, language, theme, the live stream, static files with a version. Floor 5.

A page is a template that extends `base.html` and a `build` that makes its variables. Asked for as an event stream, the
same page sends its block `live` again whenever that has changed; static/app.js puts it in place.
"""

from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import gevent.lock
from flask import (
    Flask,
    Response,
    abort,
    current_app,
    g,
    make_response,
    redirect,
    render_template,
    request,
    stream_with_context,
)

from pepperbus import __version__
from pepperbus.errors import PepperbusError
from pepperbus.web import formats
from pepperbus.web.said import reason, said
from pepperbus.web.words import COOKIE as LANGUAGE_COOKIE
from pepperbus.web.words import LANGUAGES, _, spoken

Build = Callable[[], dict[str, Any]]

THEMES = ("auto", "light", "dark")
THEME_COOKIE = "pepperbus_theme"
STATIC = Path(__file__).with_name("static")
_YEAR_S = 365 * 86400
_MOST_STREAMS = 200
#: A stream ends after this long and the browser comes again: rights and configuration are then looked at afresh.
_STREAM_S = 600.0
_EVERY_S = 2.0
_QUIET_S = 14.0
_LIVE_SHARE = 0.1  # of a core, for all live pages together
_LONGEST_S = 0.5
_KEPT_S = 60.0
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
_streams = gevent.lock.BoundedSemaphore(_MOST_STREAMS)


def install(app: Flask) -> None:
    """Give the application's templates what base.html needs, and the two addresses that every page uses."""
    env = app.jinja_env
    env.trim_blocks = env.lstrip_blocks = True
    env.globals.update(
        _=_,
        said=said,
        reason=reason,
        navigation=NAVIGATION,
        languages=LANGUAGES,
        themes=THEMES,
        version=__version__,
        language=spoken,
        theme=theme,
        here=here,
        static=static_url,
        with_query=with_query,
    )
    env.globals.update(
        {name: getattr(formats, name) for name in ("count", "rate", "span", "size", "moment", "sparkline")}
    )
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
    if not _streams.acquire(blocking=False):
        abort(503, f"{_MOST_STREAMS} live pages are open already")
    key = f"{here()} {spoken()} {g.actor.roles!r}" if shared and g.get("actor") else ""
    response = Response(stream_with_context(_live(template, build, every, key)), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(_streams.release)
    return response


def _live(template: str, build: Build, every: float, key: str) -> Iterator[str]:
    """The block `live` whenever it is another one; a comment now and then: only writing shows that the reader has gone."""
    last, quiet = b"", 0.0
    for _round in range(int(_STREAM_S / every)):
        try:
            event = _event(template, build, every, key)
        except PepperbusError:  # what the page is about has gone; the browser comes back and is told so
            return
        digest = hashlib.blake2b(event.encode(), digest_size=16).digest()
        if digest != last:
            last, quiet = digest, 0.0
            yield event
        elif (quiet := quiet + every) >= _QUIET_S:
            quiet = 0.0
            yield ": quiet\n\n"
        gevent.sleep(every)


_rendered: dict[str, tuple[float, str]] = {}
_renderers: dict[str, gevent.lock.RLock] = {}


def _event(template: str, build: Build, every: float, key: str) -> str:
    """The live part, rendered once for all who share it."""
    if not key:
        return _pace.render(template, build)
    with _renderers.setdefault(key, gevent.lock.RLock()):
        at, text = _rendered.get(key, (0.0, ""))
        if text and time.monotonic() - at < every * 0.9:
            return text
        event = _pace.render(template, build)
        _rendered[key] = time.monotonic(), event
        for old in [name for name, (then, _text) in _rendered.items() if time.monotonic() - then > _KEPT_S]:
            del _rendered[old]
            _renderers.pop(old, None)
        return event


class _Pace:
    """All live pages together take a share of this process, however many are open and however dear they are: they come
    less often then, and the heartbeat and whoever clicks are not held up.
    """

    def __init__(self) -> None:
        self._free_at = 0.0

    def render(self, template: str, build: Build) -> str:
        while (early := self._free_at - time.monotonic()) > 0:
            gevent.sleep(early)
        began = time.thread_time()
        event = _render(template, build)
        busy = min(
            time.thread_time() - began, _LONGEST_S
        )  # what others did while we waited counts too: so it is bounded
        self._free_at = max(self._free_at, time.monotonic()) + busy * (1 / _LIVE_SHARE - 1)
        return event


_pace = _Pace()


def _render(template: str, build: Build) -> str:
    page = current_app.jinja_env.get_template(template)
    # Without the session's token: what is shared must not hold one, and app.js adds it to whatever it sends.
    text = "".join(page.blocks["live"](page.new_context({**build(), "csrf_token": None})))
    lines = text.replace("\r\n", "\n").replace("\r", "&#13;").split("\n")
    return "".join(f"data: {line}\n" for line in lines) + "\n"


def theme() -> str:
    chosen = request.cookies.get(THEME_COOKIE, "auto")
    return chosen if chosen in THEMES else "auto"


def here() -> str:
    """This page's own path and query, to come back to."""
    return request.full_path.rstrip("?")


def with_query(**changes: Any) -> str:
    """This page with some words of its query changed; "" or None removes one."""
    from urllib.parse import urlencode

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


_versions: dict[str, str] = {}


def static_url(name: str) -> str:
    """Its address with a fingerprint, so that a browser may keep it for ever; "" for a file that set-up could not get."""
    if name not in _versions:
        try:
            _versions[name] = hashlib.blake2b((STATIC / name).read_bytes(), digest_size=6).hexdigest()
        except OSError:
            return ""
    return f"/static/{name}?v={_versions[name]}"


_packed: dict[tuple[str, str], bytes] = {}


def _static(name: str) -> Response:
    """A file of ours, packed when the browser takes that."""
    path = STATIC / name
    if not path.resolve().is_relative_to(STATIC) or path.suffix not in _KINDS or not path.is_file():
        abort(404)
    version = (static_url(name)).rpartition("=")[2]
    if (name, version) not in _packed:
        _packed[name, version] = gzip.compress(path.read_bytes(), 6)
    takes_gzip = "gzip" in request.headers.get("Accept-Encoding", "")
    body = _packed[name, version] if takes_gzip else path.read_bytes()
    response = Response(body, mimetype=_KINDS[path.suffix])
    response.headers["Vary"] = "Accept-Encoding"
    if takes_gzip:
        response.headers["Content-Encoding"] = "gzip"
    fresh = request.args.get("v") == version
    response.headers["Cache-Control"] = f"public, max-age={_YEAR_S}, immutable" if fresh else "no-cache"
    return response
