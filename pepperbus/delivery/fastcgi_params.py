"""The FastCGI params of one topic: constant ones packed once, the few of an attempt added to them.

No job data ever becomes the name of a param; names come from this module and from the topic's `[[[params]]]`.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import PurePosixPath

from pepperbus import __version__
from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Request
from pepperbus.delivery.form import FORM_TYPE, RAW_TYPE
from pepperbus.errors import ConfigError
from pepperbus.job import is_traceparent
from pepperbus.wire import fastcgi

#: With a pool of our own these make an error visible on stderr and keep it out of the answer. They stick to the php-fpm
#: child that saw them, so a pool that serves others must never get them.
PINS = "display_errors=0\nlog_errors=1\nhtml_errors=0\noutput_buffering=65536"

_OURS = ("REQUEST_METHOD", "CONTENT_LENGTH", "CONTENT_TYPE", "SCRIPT_FILENAME", "PHP_VALUE", "PHP_ADMIN_VALUE")
#: What changes from attempt to attempt, each under both names of `TWINS`; CONTENT_LENGTH stands before them.
OF_AN_ATTEMPT = ("TRACE_ID", "DEADLINE", "LENGTH", "SHA256", "JOB_ID", "ATTEMPT")
TWINS = ("PEPPERBUS_", "HTTP_X_PEPPERBUS_")


class Params:
    """Makes the params of each request of a topic. Raises ConfigError for an extra that would hide one of ours."""

    def __init__(self, topic: Topic, dedicated: bool) -> None:
        for name, _ in topic.params:
            if name in _OURS or name.startswith(TWINS):
                raise ConfigError(f"topic {topic.full_name}: [[[params]]] must not set {name}, the bus sets it itself")
        self.of_jobs = fastcgi.pairs(_constants(topic, dedicated, topic.body == "raw").items())
        self._of_a_ping = fastcgi.pairs(_constants(topic, dedicated, False).items())

    def of(self, request: Request, body: bytes) -> bytes:
        """All params, packed. With `chunk`, JOB_ID lists the ids with commas and ATTEMPT is the highest.

        Raises ProtocolError when a value cannot be sent.
        """
        values = {
            "TRACE_ID": request.trace,
            "DEADLINE": str(request.now_ms // 1000 + int(request.deadline_s)),
            "LENGTH": str(len(body)),
            "SHA256": sha256(body).hexdigest(),
        }
        if request.jobs:
            values["JOB_ID"] = ",".join([str(delivered.job.id) for delivered in request.jobs])
            values["ATTEMPT"] = str(max([delivered.attempt for delivered in request.jobs]))
        return b"".join(
            (
                self.of_jobs if request.jobs else self._of_a_ping,
                fastcgi.pair("CONTENT_LENGTH", values["LENGTH"]),
                *(fastcgi.pair(prefix + name, value) for prefix in TWINS for name, value in values.items()),
                _traceparent(request.jobs[0].job.trace) if request.jobs else b"",
            )
        )


def _traceparent(trace: str) -> bytes:
    """The producer's own trace, where PHP looks for that header."""
    return fastcgi.pair("HTTP_TRACEPARENT", trace) if is_traceparent(trace) else b""


def _constants(topic: Topic, dedicated: bool, raw: bool) -> dict[str, str]:
    script = PurePosixPath(topic.script)
    name = "/" + script.name
    constants = {
        "SCRIPT_FILENAME": topic.script,
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": RAW_TYPE if raw else FORM_TYPE,
        "SCRIPT_NAME": name,
        "REQUEST_URI": name,
        "DOCUMENT_ROOT": str(script.parent),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": f"pepperbus/{__version__}",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        **dict(topic.params),
    }
    for prefix in TWINS:
        constants[prefix + "QUEUE"] = topic.queue
        constants[prefix + "TOPIC"] = topic.name
    if dedicated:
        constants["PHP_ADMIN_VALUE"] = PINS
    return constants
