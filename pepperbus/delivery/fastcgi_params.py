"""The FastCGI params of one topic: constant ones packed once, the few of an attempt added to them.

No job data ever becomes the name of a param; names come from this module and from the topic's `[[[params]]]`.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import PurePosixPath

from pepperbus import __version__
from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Request
from pepperbus.errors import ConfigError, ProtocolError
from pepperbus.wire import fastcgi

#: With a pool of our own these make an error visible on stderr and keep it out of the answer. They stick to the php-fpm
#: child that saw them, so a pool that serves others must never get them.
PINS = "display_errors=0\nlog_errors=1\nhtml_errors=0\noutput_buffering=65536"

_FORM = "application/x-www-form-urlencoded"
_RAW = "application/octet-stream"
_OURS = ("REQUEST_METHOD", "CONTENT_LENGTH", "CONTENT_TYPE", "SCRIPT_FILENAME", "PHP_VALUE", "PHP_ADMIN_VALUE")
_EACH = ("TRACE_ID", "DEADLINE", "LENGTH", "SHA256")
_OF_A_JOB = ("JOB_ID", "ATTEMPT")
_length = fastcgi.length
_TWINS = ("PEPPERBUS_", "HTTP_X_PEPPERBUS_")


class Params:
    """Makes the params of each request of a topic. Raises ConfigError for an extra that would hide one of ours."""

    def __init__(self, topic: Topic, dedicated: bool) -> None:
        for name, _ in topic.params:
            if name in _OURS or name.startswith(_TWINS):
                raise ConfigError(f"topic {topic.full_name}: [[[params]]] must not set {name}, the bus sets it itself")
        self._data = _template(_constants(topic, dedicated, topic.body == "raw"), _EACH + _OF_A_JOB)
        self._ping = _template(_constants(topic, dedicated, False), _EACH)

    def of(self, request: Request, body: bytes) -> bytes:
        """All params, packed. With `chunk`, JOB_ID lists the ids with commas and ATTEMPT is the highest.

        Raises ProtocolError when a value cannot be sent.
        """
        length = b"%d" % len(body)
        trace = request.trace.encode()
        deadline = b"%d" % (request.now_ms // 1000 + int(request.deadline_s))
        digest = sha256(body).hexdigest().encode()
        each: tuple[bytes, ...] = (
            *(_length(len(trace)), trace),
            *(_length(len(deadline)), deadline),
            *(_length(len(length)), length),
            *(b"\x40", digest),
        )
        template = self._ping
        if request.jobs:
            template = self._data
            ids = b",".join([b"%d" % delivered.job.id for delivered in request.jobs])
            attempt = b"%d" % max([delivered.attempt for delivered in request.jobs])
            each += (_length(len(ids)), ids, _length(len(attempt)), attempt)
        if b"\0" in trace:
            raise ProtocolError("the trace id holds a NUL byte")
        return template % (_length(len(length)), length, *each, *each)


def _template(constants: dict[str, str], names: tuple[str, ...]) -> bytes:
    """The constant params, packed, and a place for the length and the value of every other one."""
    parts = [fastcgi.pairs(constants.items()).replace(b"%", b"%%"), _place("CONTENT_LENGTH")]
    parts += [_place(prefix + name) for prefix in _TWINS for name in names]
    return b"".join(parts)


def _place(name: str) -> bytes:
    return bytes((len(name),)) + b"%b" + name.encode() + b"%b"


def _constants(topic: Topic, dedicated: bool, raw: bool) -> dict[str, str]:
    script = PurePosixPath(topic.script)
    name = "/" + script.name
    constants = {
        "SCRIPT_FILENAME": topic.script,
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": _RAW if raw else _FORM,
        "SCRIPT_NAME": name,
        "REQUEST_URI": name,
        "DOCUMENT_ROOT": str(script.parent),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": f"pepperbus/{__version__}",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        **dict(topic.params),
    }
    for prefix in _TWINS:
        constants[prefix + "QUEUE"] = topic.queue
        constants[prefix + "TOPIC"] = topic.name
    if dedicated:
        constants["PHP_ADMIN_VALUE"] = PINS
    return constants
