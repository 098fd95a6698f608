"""A request with one job, tried for the first time: its bytes in one go.

Floor 2, pure. Nearly every request is one. `form`, `fastcgi_params` and `wire.fastcgi` one after the other need 26 calls for
it, this three. What is not as usual is left to them, and what they make is the oracle of what is made here
(tests/unit/test_fastcgi_single.py).
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from json.encoder import encode_basestring
from typing import NamedTuple

from pepperbus.config.model import Topic
from pepperbus.delivery.fastcgi_params import OF_AN_ATTEMPT, TWINS, Params
from pepperbus.delivery.form import escape, head
from pepperbus.job import ID_DIGITS, Job
from pepperbus.wire import fastcgi


class Flights(NamedTuple):
    """A request as it is sent. Of the first `cut` bytes alone php-fpm cannot run anything (`wire.fastcgi.opening`)."""

    data: bytes
    cut: int


class Tail(NamedTuple):
    """What follows the number in a trace id, in each form it takes in a request. It hardly ever changes."""

    raw: bytes
    form: bytes
    json: bytes


class Single:
    """The requests of one topic, as far as they are plain."""

    def __init__(self, topic: Topic, params: Params, keep: bool) -> None:
        varying = _place("CONTENT_LENGTH") + b"".join([_place(twin + name) for twin in TWINS for name in OF_AN_ATTEMPT])
        fixed = params.of_jobs.replace(b"%", b"%%") + varying
        self._wire = fastcgi.template(fixed, keep)
        self._params_size = len(fixed % _values(b"", b"", b"", bytes(64), b""))  # of nothing but names and SHA-256
        self._form = head(topic.queue, topic.name).replace(b"%", b"%%") + (
            b'%b%b&jobs=[{"id":"%b","inTraceId":"%b%b","content":%b,"retrying":0,"RetryTimes":1,"RetryTime":%b,"IsRetry":'
            + (b"true" if topic.attempts > 1 else b"false")
            + b',"BeginRetry":false,"RetryResidueTime":%d}]&IS_PEPPER_BUS_REQUEST=true'
        )
        self._max_age, self._timeout = topic.max_age, int(topic.timeout)
        self._second = 0
        self._now = self._deadline = b""

    def of(self, job: Job, trace: str, first_due_ms: int, now_ms: int) -> Flights | None:
        """The request of `job`, sent as `trace`. None: it is not plain, or cannot be sent."""
        pushed_as = job.trace
        number, pushed = trace[:ID_DIGITS].encode(), pushed_as[:ID_DIGITS].encode()
        mine, theirs = tail(trace[ID_DIGITS:]), tail(pushed_as[ID_DIGITS:])
        if mine is None or theirs is None or not (number.isdigit() and pushed.isdigit()):
            return None  # a traceparent, or none of ours
        try:
            content = escape(encode_basestring(job.content.decode()).encode())
        except UnicodeDecodeError:
            return None
        if now_ms // 1000 != self._second:
            self._second = now_ms // 1000
            self._now, self._deadline = b"%d" % self._second, b"%d" % (self._second + self._timeout)
        age_ms = now_ms - (first_due_ms or job.accepted_ms or now_ms)
        left_s = self._max_age - age_ms / 1000 if age_ms > 0 else self._max_age
        job_id = b"%d" % job.id
        body = self._form % (
            *(number, mine.form, job_id, pushed, theirs.json, content, self._now),
            int(left_s) if left_s > 0 else 0,
        )
        length, trace_id = b"%d" % len(body), number + mine.raw
        params = self._params_size + 3 * len(length) + 2 * (len(trace_id) + len(self._deadline) + len(job_id))
        if len(body) > fastcgi.MOST_CONTENT or params > fastcgi.MOST_PARAMS:
            return None
        values = _values(length, trace_id, self._deadline, sha256(body).hexdigest().encode(), job_id)
        data = self._wire % (params >> 8, params & 255, *values, len(body) >> 8, len(body) & 255, body)
        return Flights(data, fastcgi.BEGIN_SIZE + params)


def _values(length: bytes, trace: bytes, deadline: bytes, digest: bytes, job_id: bytes) -> tuple[int | bytes, ...]:
    """For the places in the params, each but the digest with its length."""
    each = (*(len(trace), trace, len(deadline), deadline, len(length), length), digest, len(job_id), job_id)
    return (len(length), length, *each, *each)


def _place(name: str) -> bytes:
    if name.endswith("ATTEMPT"):
        return fastcgi.pair(name, "1")
    size = b"\x40" if name.endswith("SHA256") else b"%c"
    return bytes((len(name),)) + size + name.encode() + b"%b"


@lru_cache(maxsize=1024)
def tail(text: str) -> Tail | None:
    """None: it does not fit into a short param."""
    raw = text.encode()
    if b"\0" in raw or len(raw) + ID_DIGITS > 127:
        return None
    return Tail(raw, escape(raw), escape(encode_basestring(text)[1:-1].encode()))
