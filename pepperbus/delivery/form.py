"""The body of a call to a consumer: the form every SDK reads, or one job's own bytes.

Floor 2. Pure: a request in, bytes out. It must not know how they travel (FastCGI's STDIN, an HTTP body).
Fields and their order are fixed: existing SDKs read them (docs/CONSUME.md).
"""

from __future__ import annotations

from functools import lru_cache

from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Delivered, Request
from pepperbus.job import job_json

FORM_TYPE = "application/x-www-form-urlencoded"
RAW_TYPE = "application/octet-stream"
_PING = b"type=ping&IS_PEPPER_BUS_REQUEST=true"


def escape(text: bytes) -> bytes:
    """`text` as one form value: only what a form parser would take for syntax is escaped.

    JSON has no control characters, so `% & + ; =` and the blank are all there is; everything else, non-ASCII
    included, travels as it is. That keeps a JSON body at its own size where the usual quoting more than doubles
    it, and leaves room under the consumer's post_max_size.
    """
    return (
        text.replace(b"%", b"%25")
        .replace(b"&", b"%26")
        .replace(b"+", b"%2B")
        .replace(b";", b"%3B")
        .replace(b"=", b"%3D")
        .replace(b" ", b"+")
    )


def encode(request: Request, topic: Topic) -> bytes:
    """The form of a data call or a ping. A parser gives back every field byte for byte, whatever the content is."""
    if request.ping:
        return _PING
    now_ms, retries = request.now_ms, topic.attempts > 1
    jobs = [
        job_json(one.job, one.attempt, now_ms // 1000, retries, residue_s(one, now_ms, topic), escape)
        for one in request.jobs
    ]
    return b"%b%b&jobs=[%b]&IS_PEPPER_BUS_REQUEST=true" % (
        head(request.queue, request.topic),
        escape(request.trace.encode()),
        b",".join(jobs),
    )


@lru_cache(maxsize=4096)
def head(queue: str, topic: str) -> bytes:
    """What stands before the trace in every data call of a topic."""
    return b"type=data&queue=%b&topic=%b&outTraceId=" % (escape(queue.encode()), escape(topic.encode()))


def residue_s(delivered: Delivered, now_ms: int, topic: Topic) -> int:
    """Whole seconds left of the topic's `max_age`, counted from when the job was first due."""
    due_ms = delivered.first_due_ms or delivered.job.accepted_ms
    age_ms = now_ms - due_ms if due_ms else 0
    left_s = int(topic.max_age - age_ms / 1000) if age_ms > 0 else int(topic.max_age)
    return left_s if left_s > 0 else 0


def body(request: Request, topic: Topic) -> tuple[bytes, str]:
    """What is sent and its content type: the form, or with `body = raw` the bytes of the request's one job."""
    if topic.body == "raw" and not request.ping:
        (delivered,) = request.jobs
        return delivered.job.content, RAW_TYPE
    return encode(request, topic), FORM_TYPE
