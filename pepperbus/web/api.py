"""/api/v1: the table of routes.py over HTTP, with one shape for every error. Floor 5."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import gevent
import gevent.lock
import gevent.queue
import msgspec
from flask import Blueprint, Response, request

from pepperbus import errors
from pepperbus.operations.results import to_json
from pepperbus.web import logins, openapi
from pepperbus.web.desk import Desk
from pepperbus.web.routes import ROUTES
from pepperbus.web.table import Call, Route

PREFIX = "/api/v1"
_STREAMS = 32
_QUIET_S = 15.0
_LOOK_AGAIN_S = 10.0

#: The first class that fits decides: HTTP status and the error's stable code.
_ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.Forbidden, 403, "forbidden"),
    (errors.NotFound, 404, "not_found"),
    (errors.UsageError, 400, "usage"),
    (errors.ConfigError, 422, "configuration"),
    (errors.NotReachable, 503, "not_reachable"),
    (errors.StorageUnknown, 504, "storage_unknown"),
    (errors.StorageUnavailable, 503, "storage_unavailable"),
    (errors.StorageRefused, 503, "storage_refused"),
    (errors.TooManyTries, 429, "too_many_tries"),
    (errors.PepperbusError, 409, "refused"),
)


def error(status: int, code: str, message: str, details: list[str] | None = None) -> Response:
    """The one shape of an error."""
    body = openapi.Error(openapi.ErrorDetail(code, message, details or []))
    return Response(msgspec.json.encode(body), status, mimetype="application/json")


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
        except errors.PepperbusError as failure:
            return told(failure)
        if route.stream:
            return _streamed(result, streams, logins.witness(desk))
        return Response(to_json(result), mimetype="application/json")

    return view


def told(failure: errors.PepperbusError) -> Response:
    """What became of an operation that raised."""
    status, code = next((status, code) for kind, status, code in _ERRORS if isinstance(failure, kind))
    details = list(failure.mistakes) if isinstance(failure, errors.ConfigError) else []
    return error(status, code, str(failure), details)


def _streamed(events: Iterator[Any], streams: Any, may_go_on: Callable[[], bool]) -> Response:
    if not streams.acquire(blocking=False):
        return error(503, "too_many", f"{_STREAMS} streams are open already")
    ready: Any = gevent.queue.Queue(1000)
    feeder = gevent.spawn(_feed, events, ready)

    def close() -> None:
        feeder.kill()
        streams.release()

    response = Response(_sent(ready, may_go_on), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(close)
    return response


def _feed(events: Iterator[Any], ready: Any) -> None:
    for event in events:
        ready.put(event)


def _sent(ready: Any, may_go_on: Callable[[], bool]) -> Iterator[bytes]:
    """Server-sent events, and a comment when nothing happens: only writing shows that the reader has gone.

    Ends when the reader's login does.
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
