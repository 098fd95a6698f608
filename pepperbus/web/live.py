"""A page's live part as server-sent events: rendered once for all who see the same, at a pace, to as many as there are places.

Floor 5. Knows templates and how a page is built, not what stands on it. A reader who leaves frees the place at once.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gevent.lock
from flask import Response, abort, current_app, request, stream_with_context
from gevent.event import Event

from pepperbus.errors import PepperbusError
from pepperbus.web import departure

Build = Callable[[], dict[str, Any]]

MOST = 200
#: A stream ends after this long and the browser comes again: rights and configuration are then looked at afresh.
_STREAM_S = 600.0
_QUIET_S = 14.0
_LIVE_SHARE = 0.1  # of a core, for all live pages together
_FIRST_S, _LONGEST_S = 0.1, 0.5  # that a rendering is taken to cost at most: before it is known, and ever
_KEPT_S = 60.0

_places = gevent.lock.BoundedSemaphore(MOST)


class _Place:
    """One of the places. Given back once: by the end of the connection, or of the answer."""

    def __init__(self) -> None:
        self._taken = True

    def free(self, _gone: Event | None = None) -> None:
        if self._taken:
            self._taken = False
            _places.release()


def stream(template: str, build: Build, every: float, key: str) -> Response:
    """The block `live` of `template` every so many seconds, if it is another one. `key`: of all who share it, or ""."""
    if not _places.acquire(blocking=False):
        abort(503, f"{MOST} live pages are open already")
    place, gone = _Place(), departure.of(request.environ)
    gone.rawlink(place.free)
    response = Response(stream_with_context(_events(template, build, every, key, gone)), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(place.free)
    return response


class _Event(NamedTuple):
    digest: bytes
    data: bytes


def _events(template: str, build: Build, every: float, key: str, gone: Event) -> Iterator[bytes]:
    """What changed, and a comment now and then: a machine that vanished shows only by writing to it."""
    last, quiet = b"", 0.0
    for _round in range(int(_STREAM_S / every)):
        try:
            event = _event(template, build, every, key, gone)
        except PepperbusError:  # what the page is about has gone; the browser comes back and is told so
            return
        if event is None:
            return
        if event.digest != last:
            last, quiet = event.digest, 0.0
            yield event.data
        elif (quiet := quiet + every) >= _QUIET_S:
            quiet = 0.0
            yield b": quiet\n\n"
        if gone.wait(every):
            return


_rendered: dict[str, tuple[float, _Event]] = {}
_renderers: dict[str, gevent.lock.RLock] = {}


def _event(template: str, build: Build, every: float, key: str, gone: Event) -> _Event | None:
    """The live part, rendered once for all who share it; None: its reader has gone."""
    if not key:
        return _pace.render(template, build, gone)
    with _renderers.setdefault(key, gevent.lock.RLock()):
        at, known = _rendered.get(key, (0.0, None))
        if known and time.monotonic() - at < every * 0.9:
            return known
        event = _pace.render(template, build, gone)
        if event is None:
            return None
        _rendered[key] = time.monotonic(), event
        for old in [name for name, (then, _) in _rendered.items() if time.monotonic() - then > _KEPT_S]:
            del _rendered[old]
            _renderers.pop(old, None)
        return event


class _Pace:
    """All live pages together take a share of this process, however many are open and however dear they are: they come
    less often then, and the heartbeat and whoever clicks are not held up.
    """

    def __init__(self) -> None:
        self._free_at = 0.0
        self._cost: dict[str, float] = {}  # seconds of CPU, by template

    def render(self, template: str, build: Build, gone: Event) -> _Event | None:
        """None for a reader who left before it was their turn."""
        while (early := self._free_at - time.monotonic()) > 0:
            gone.wait(early)
            if gone.is_set():
                return None
        began = time.thread_time()
        data = _render(template, build)
        # What others did while we waited counts too (200 who connect at once, say): so it may only double at a time.
        bound = min(2 * self._cost.get(template, _FIRST_S / 2), _LONGEST_S)
        busy = self._cost[template] = min(time.thread_time() - began, bound)
        self._free_at = max(self._free_at, time.monotonic()) + busy * (1 / _LIVE_SHARE - 1)
        return _Event(hashlib.blake2b(data, digest_size=16).digest(), data)


_pace = _Pace()


def _render(template: str, build: Build) -> bytes:
    page = current_app.jinja_env.get_template(template)
    # Without the session's token: what is shared must not hold one, and app.js adds it to whatever it sends.
    text = "".join(page.blocks["live"](page.new_context({**build(), "csrf_token": None})))
    lines = text.replace("\r\n", "\n").replace("\r", "&#13;").split("\n")
    return ("".join(f"data: {line}\n" for line in lines) + "\n").encode()
