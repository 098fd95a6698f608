"""POST /push/QUEUE: jobs from producers that speak HTTP. Floor 5.

Whoever pushes shows the queue's password (Basic, Bearer or X-Pepperbus-Password) or an API token of an operator; a queue that
is open to this machine needs neither from here. Who may is decided by the gateway, or by the operation; every answer has the
JSON of a push.
"""

from __future__ import annotations

import re
import time

import msgspec
from flask import Flask, Request, Response, g, request

from pepperbus.accounts.patience import Patience, network
from pepperbus.config.model import Config
from pepperbus.errors import Forbidden, NotFound, NotReachable, PepperbusError, UsageError
from pepperbus.gateway.logins import find_login
from pepperbus.log import Log
from pepperbus.names import is_name
from pepperbus.operations.submit import Batch, Producer, Submitted, submit
from pepperbus.web import logins
from pepperbus.web.desk import Desk

PREFIX = "/push/"
MOST_JOBS = 10_000  # of one request
LINES = "application/x-ndjson"
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z"
)  # W3C, version 00
_YEAR_2000, _YEAR_5138 = 946_684_800, 100_000_000_000

#: What an error of a push begins with -> HTTP status. In this order; anything else is a mistake of the request.
_STATUS = (
    ("NOAUTH", 403),  # logged in, and not for this queue
    ("queue or Topic not exist", 404),
    ("queue full", 429),
    ("storage unavailable", 503),
    ("UNKNOWN", 504),
)


def named(path: str) -> bool:
    return path.startswith(PREFIX)


def install(app: Flask, desk: Desk, log: Log) -> None:
    """Before `logins.install`: who pushes may be no account at all."""
    door = _Door(desk, log)

    @app.before_request
    def greet() -> None:
        if named(request.path):
            g.own_refusal = True

    app.add_url_rule(f"{PREFIX}<queue>", "push", door.push, methods=["POST"], provide_automatic_options=False)


class _Door:
    """The one address, and who failed at it of late."""

    def __init__(self, desk: Desk, log: Log) -> None:
        self._desk = desk
        self._log = log
        self._patience = Patience(desk.base.clock)

    def push(self, queue: str) -> Response:
        try:
            if logins.current_actor() is not None:
                return self._as_account(queue)
            return self._as_producer(queue)
        except UsageError as error:
            return _refusal(413 if "larger" in str(error) else 400, str(error))
        except Forbidden as error:
            return _refusal(403, str(error))
        except NotFound:
            return _refusal(404, f"queue or Topic not exist {queue}")
        except NotReachable as error:
            return _refusal(503, f"storage unavailable: {error}")
        except PepperbusError as error:
            return _refusal(503, str(error))

    def _as_account(self, queue: str) -> Response:
        if not is_name(queue):
            raise NotFound(queue)
        return _answer(submit(self._desk.office, queue, batch_of(request, self._desk.base.config)))

    def _as_producer(self, queue: str) -> Response:
        config = self._desk.base.config
        shown = _shown(request, queue)
        found = config.queues.get(queue)
        if shown.password is None and not (found is not None and found.open and logins.is_direct(request)):
            return _refusal(401, "NOAUTH Authentication required.")
        if not is_name(queue):
            raise NotFound(queue)
        # Neither a stranger elsewhere nor another program of the same machine keeps out who knows the password.
        whose = f"{network(g.address)} {shown.user}"
        wait_s = self._patience.wait_s(whose, "") if shown.password is not None else 0.0
        if wait_s > 0:
            return _refusal(429, "too many attempts", int(wait_s) + 1)
        from_afar = found is not None and found.open and not logins.is_direct(request)

        def read() -> Batch:
            login = find_login(config, shown.user) if from_afar else None
            if from_afar and (login is None or not login.may_push(queue)):  # for the gateway we are this machine
                raise Forbidden(f"NOAUTH {shown.user} may not push to {queue} from elsewhere")
            return batch_of(request, config)

        told = shown.submit(self._desk.base, queue, read)
        if told.refused:
            self._patience.failed(whose, "")
            self._log.warning("login_failed", client=g.address, login=shown.user[:64])
            return _refusal(401, told.error)
        self._patience.succeeded(whose)
        return _answer(told)


def _shown(req: Request, queue: str) -> Producer:
    """The login that came with the request: Basic names its user, the others mean the queue."""
    basic = req.authorization
    if basic is not None and basic.type == "basic":
        return Producer(basic.username or queue, basic.password or "")
    kind, _, text = req.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and text.strip():
        return Producer(queue, text.strip())
    return Producer(queue, req.headers.get("X-Pepperbus-Password"))


# -- what is pushed ----------------------------------------------------------------------------------------------------


def batch_of(req: Request, config: Config) -> Batch:
    """The jobs of a request. Raises UsageError that says what would be right."""
    body = req.get_data()
    if req.mimetype == LINES:
        contents = [line for line in body.splitlines() if line.strip()]
    elif _is_on(req, "batch"):
        contents = _elements(body)
    else:
        contents = [body] if body else []
    if not contents:
        raise UsageError("empty jobs")
    if len(contents) > min(MOST_JOBS, config.gateway.max_args // 2 - 2):
        raise UsageError(
            f"{len(contents)} jobs at once, {min(MOST_JOBS, config.gateway.max_args // 2 - 2)} are the most"
        )
    largest = max(map(len, contents))
    if largest > config.gateway.max_bulk:
        raise UsageError(
            f"a job of {largest} bytes is larger than [gateway] max_bulk allows ({config.gateway.max_bulk})"
        )
    parent = req.headers.get("traceparent", "").strip()
    front, due_ms = _is_on(req, "front"), _due_ms(req)
    if front and due_ms:
        raise UsageError("front is for jobs that may run at once: say it, or delay or at")
    return Batch(contents, due_ms, front, parent if _TRACEPARENT.match(parent) else "")


def _elements(body: bytes) -> list[bytes]:
    """`?batch=1`: a JSON array. A string's text is a job; anything else is one as JSON."""
    try:
        elements = msgspec.json.decode(body, type=list[msgspec.Raw])
        return [
            msgspec.json.decode(raw, type=str).encode() if bytes(raw)[:1] == b'"' else bytes(raw) for raw in elements
        ]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"batch=1 wants a JSON array: {error}") from error


def _is_on(req: Request, name: str) -> bool:
    return req.args.get(name, "").lower() in ("1", "yes", "true")


def _due_ms(req: Request) -> int:
    """`?delay=SECONDS` or `?at=UNIX TIME`; 0: at once."""
    delay, at = req.args.get("delay", ""), req.args.get("at", "")
    if delay and at:
        raise UsageError("delay and at: one of them")
    try:
        number = float(delay or at or 0)
    except ValueError:
        raise UsageError("delay is seconds and at a unix time, such as delay=60") from None
    if delay:
        if not 0 <= number < _YEAR_5138:
            raise UsageError("delay is seconds from now, such as delay=60")
        return int((time.time() + number) * 1000) if number else 0
    if at and not _YEAR_2000 <= number < _YEAR_5138:
        raise UsageError("at is a unix time in seconds; delay=60 means in 60 seconds")
    return int(number * 1000)


# -- what is answered ----------------------------------------------------------------------------------------------------


def _answer(told: Submitted) -> Response:
    if not told.error:
        return Response(told.text, 200, mimetype="application/json")
    status = next((status for words, status in _STATUS if told.error.startswith(words)), 400)
    return _told(told.text, status, 1)


def _refusal(status: int, text: str, wait_s: int = 1) -> Response:
    return _told(msgspec.json.encode({"jobs": None, "inTraceId": "", "error": text}), status, wait_s)


def _told(text: bytes, status: int, wait_s: int) -> Response:
    response = Response(text, status, mimetype="application/json")
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="pepperbus", charset="UTF-8"'
    if status in (429, 503):
        response.headers["Retry-After"] = str(wait_s)
    return response
