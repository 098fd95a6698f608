"""One HTTP request as bytes: which headers a consumer gets with a job.

Floor 3. No socket. Job data never becomes a header's name; values that HTTP cannot carry are refused by h11. What is
the same for every job of a topic is written by h11 once; of the rest h11 is asked where it might write anything but what it was
given.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

import h11

from pepperbus import __version__
from pepperbus.config.model import Topic
from pepperbus.delivery import form
from pepperbus.delivery.contract import Delivered, Request
from pepperbus.delivery.sign import Signer
from pepperbus.errors import ConfigError
from pepperbus.job import is_traceparent

Headers = list[tuple[str, str]]

#: Headers that frame the message or speak for the bus; `[[[headers]]]` may not set them.
_OURS = ("host", "content-length", "transfer-encoding", "connection", "is-pepper-bus-request", "is_pepper_bus_request")
_TARGET = "/%:@!$&'()*+,;=~?-._"  # what may stand in a request target as it is (RFC 3986); the rest is escaped
_OUR_PREFIXES = ("x-pepperbus-", "ce-", "webhook-")


@dataclass(frozen=True, slots=True)
class Url:
    """One consumer URL, taken apart. `shown` is for people and holds no password."""

    host: str
    port: int
    tls: bool
    target: str
    netloc: str
    authorization: str
    shown: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Raises ConfigError for anything that is not http or https with a host."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"url: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"url: {text!r} must be http://host[:port]/path or https://…")
        tls = parts.scheme == "https"
        target = quote(parts.path or "/", _TARGET) + (f"?{quote(parts.query, _TARGET)}" if parts.query else "")
        try:
            host = parts.hostname.encode("idna").decode()
        except UnicodeError as error:
            raise ConfigError(f"url: {parts.hostname!r} is no host name: {error}") from None
        netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
        login = ""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            login = "Basic " + b64encode(pair.encode()).decode()
        shown = f"{parts.scheme}://{netloc}{parts.path}"
        return cls(host, port or (443 if tls else 80), tls, target, netloc, login, shown)


class Packed(NamedTuple):
    """A request but for the URL it goes to."""

    lines: bytes  # the headers of this attempt, a line each
    body: bytes
    content_type: str


class Requests:
    """Makes the requests of one topic. Raises ConfigError when its headers or its secret cannot be used."""

    def __init__(self, topic: Topic) -> None:
        for name, _ in topic.headers:
            if name.lower() in _OURS or name.lower().startswith(_OUR_PREFIXES):
                raise ConfigError(f"topic {topic.full_name}: [[[headers]]] must not set {name}, the bus sets it itself")
        self._topic = topic
        self._signer = Signer(topic.sign.reveal()) if topic.sign else None
        self._own_type = any(name.lower() == "content-type" for name, _ in topic.headers)
        self._fixed: Headers = [
            ("IS-PEPPER-BUS-REQUEST", "true"),
            ("IS_PEPPER_BUS_REQUEST", "true"),
            ("X-Pepperbus-Queue", topic.queue),
            ("X-Pepperbus-Topic", topic.name),
            *topic.headers,
        ]
        if not any(name.lower() == "user-agent" for name, _ in topic.headers):
            self._fixed.append(("User-Agent", f"pepperbus/{__version__}"))
        try:
            _lines_by_h11([("Host", topic.host or "x"), *self._fixed])
        except h11.LocalProtocolError as error:
            raise ConfigError(f"topic {topic.full_name}: host or [[[headers]]] cannot be sent: {error}") from None
        self._same: dict[tuple[Url, str], tuple[bytes, bytes]] = {}

    def make(self, request: Request, url: Url) -> tuple[h11.Request, bytes]:
        """The request and its body, for people and as h11 has it. Raises h11.LocalProtocolError when it cannot be sent."""
        body, content_type = form.body(request, self._topic)
        headers = [("Host", self._topic.host or url.netloc), ("Content-Length", str(len(body)))]
        headers += self._of_url(url, content_type) + self._of_attempt(request, body)
        return h11.Request(method="POST", target=url.target, headers=headers), body

    def pack(self, request: Request) -> Packed:
        """All that can be made before a URL is chosen. Raises h11.LocalProtocolError when it cannot be sent."""
        body, content_type = form.body(request, self._topic)
        return Packed(lines(self._of_attempt(request, body)), body, content_type)

    def render(self, packed: Packed, url: Url) -> bytes:
        """The bytes that h11 would send for `make`'s request and body. Raises h11.LocalProtocolError for the URL's fault."""
        same = self._same.get((url, packed.content_type))
        if same is None:
            same = self._same[url, packed.content_type] = self._head(url, packed.content_type)
        return b"%bContent-Length: %d\r\n%b%b\r\n%b" % (same[0], len(packed.body), same[1], packed.lines, packed.body)

    def _head(self, url: Url, content_type: str) -> tuple[bytes, bytes]:
        """What stands before and behind the length, in every request to a URL."""
        host = [("Host", self._topic.host or url.netloc)]
        h11.Request(method="POST", target=url.target, headers=host)
        first = b"POST %b HTTP/1.1\r\n" % url.target.encode("ascii")
        return first + _lines_by_h11(host), _lines_by_h11(self._of_url(url, content_type))

    def _of_url(self, url: Url, content_type: str) -> Headers:
        headers = self._fixed
        if not (self._own_type and content_type == form.RAW_TYPE):
            headers = [pair for pair in headers if pair[0].lower() != "content-type"]
            headers.append(("Content-Type", content_type))
        return [*headers, ("Authorization", url.authorization)] if url.authorization else headers

    def _of_attempt(self, request: Request, body: bytes) -> Headers:
        headers = self._of_jobs(request)
        if self._signer:
            headers += self._signer.headers(_message_id(request), request.now_ms // 1000, body)
        return headers

    def _of_jobs(self, request: Request) -> Headers:
        headers = [
            ("X-Pepperbus-Trace-Id", request.trace),
            ("X-Pepperbus-Deadline", str(request.now_ms // 1000 + int(request.deadline_s))),
        ]
        if not request.jobs:
            return headers
        headers.append(("X-Pepperbus-Job-Id", ",".join(str(delivered.job.id) for delivered in request.jobs)))
        headers.append(("X-Pepperbus-Attempt", str(max(delivered.attempt for delivered in request.jobs))))
        if is_traceparent(request.jobs[0].job.trace):
            headers.append(("traceparent", request.jobs[0].job.trace))
        if self._topic.body == "raw":
            headers += _cloud_event(request, request.jobs[0])
        return headers


def rendered(request: h11.Request, body: bytes) -> bytes:
    """The bytes of a request that is not made by `Requests`."""
    protocol = h11.Connection(h11.CLIENT)
    events = (request, h11.Data(data=body), h11.EndOfMessage())
    return b"".join(protocol.send(event) or b"" for event in events)


def lines(headers: Headers) -> bytes:
    """Headers as they are sent, a line each. Raises h11.LocalProtocolError for what cannot be sent."""
    values = "".join([value for _, value in headers])
    if values.isascii() and values.isprintable() and " " not in values:  # nothing h11 would refuse, trim or change
        return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("ascii")
    return _lines_by_h11(headers)


def _lines_by_h11(headers: Headers) -> bytes:
    host = [] if headers and headers[0][0] == "Host" else [("Host", "x")]
    whole = rendered(h11.Request(method="POST", target="/", headers=[*host, *headers]), b"")
    return whole.split(b"\r\n", 1 + len(host))[-1][:-2]


def _cloud_event(request: Request, delivered: Delivered) -> Headers:
    """CloudEvents 1.0, binary mode: source and id together name the event, whatever the attempt."""
    accepted = datetime.fromtimestamp(delivered.job.accepted_ms / 1000, UTC)
    return [
        ("ce-specversion", "1.0"),
        ("ce-id", str(delivered.job.id)),
        ("ce-source", f"/pepperbus/{request.queue}"),
        ("ce-type", "pepperbus.job"),
        ("ce-subject", request.topic),
        ("ce-time", accepted.isoformat(timespec="milliseconds").replace("+00:00", "Z")),
    ]


def _message_id(request: Request) -> str:
    return str(request.jobs[0].job.id) if len(request.jobs) == 1 else request.trace or "ping"
