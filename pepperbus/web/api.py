"""/api/v1: the table of routes.py over HTTP. Floor 5."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import gevent
import gevent.lock
import gevent.queue
import msgspec
from flask import Blueprint, Response, request

from pepperbus.errors import PepperbusError
from pepperbus.operations.results import to_json
from pepperbus.web import departure, logins, openapi
from pepperbus.web.desk import Desk
from pepperbus.web.failures import error, told
from pepperbus.web.routes import ROUTES
from pepperbus.web.table import Call, Route

PREFIX = "/api/v1"
_STREAMS = 32
_QUIET_S = 15.0
_LOOK_AGAIN_S = 10.0


def blueprint(desk: Desk) -> Blueprint:
    """The API as a blueprint."""
    api = Blueprint("api", __name__, url_prefix=PREFIX)
    document = msgspec.json.encode(openapi.document(PREFIX))
    streams = gevent.lock.BoundedSemaphore(_STREAMS)
    for route in ROUTES:
        path = route.path.replace("{", "<").replace("}", ">")
        view = _view(desk, route, streams)
        api.add_url_rule(path, f"{route.method} {route.path}".replace(".", "_"), view, methods=[route.method])
    api.add_url_rule("/openapi.json", "openapi", lambda: Response(document, mimetype="application/json"))
    return api


def _view(desk: Desk, route: Route, streams: Any) -> Any:
    def view(**names: str) -> Response:
        try:
            query = msgspec.convert(request.args.to_dict(), route.query, strict=False)
            body = msgspec.json.decode(request.get_data() or b"{}", type=route.body)
            result = route.do(Call(desk, names, query, body))
        except (msgspec.MsgspecError, UnicodeDecodeError) as refused:
            return error(400, "usage", str(refused))
        except RecursionError:
            return error(400, "usage", "the body is nested too deeply")
        except PepperbusError as failure:
            return told(failure)
        if route.stream:
            return _streamed(result, streams, logins.witness(desk))
        return Response(to_json(result), mimetype="application/json")

    return view


def _streamed(events: Iterator[Any], streams: Any, may_go_on: Callable[[], bool]) -> Response:
    if not streams.acquire(blocking=False):
        return error(503, "too_many", f"{_STREAMS} streams are open already")
    ready: Any = gevent.queue.Queue(1000)
    feeder = gevent.spawn(_feed, events, ready)
    departure.of(request.environ).rawlink(lambda _gone: ready.shutdown(immediate=True))

    def close() -> None:
        feeder.kill()
        streams.release()

    response = Response(_sent(ready, may_go_on), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(close)
    return response


def _feed(events: Iterator[Any], ready: Any) -> None:
    with contextlib.suppress(gevent.queue.ShutDown):
        for event in events:
            ready.put(event)


def _sent(ready: Any, may_go_on: Callable[[], bool]) -> Iterator[bytes]:
    """Server-sent events, and a comment when nothing happens: only writing shows that the reader's machine vanished.

    Ends when the reader leaves, or their login ends.
    """
    yield b": begin\n\n"
    looked = monotonic()
    while True:
        if monotonic() - looked > _LOOK_AGAIN_S:
            if not may_go_on():
                return
            looked = monotonic()
        try:
            yield b"data: " + to_json(ready.get(timeout=_QUIET_S)) + b"\n\n"
        except gevent.queue.Empty:
            yield b": quiet\n\n"
        except gevent.queue.ShutDown:
            return
