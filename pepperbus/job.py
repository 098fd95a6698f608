"""The job: what is stored of it, and the JSON its consumer gets.

Words for its bytes on their way: the *value* of a command is the job's *content*; content with id, trace, client and time is
its stored form, which storages call its *body*; what a consumer is sent is made of the content again (`delivery.form`).

Floor 0. Storages see only `Job.encode()`'s bytes; how often a job was tried is the storage's own record,
because it changes while the bytes never do ("a body is never written over another").
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import count
from json.encoder import encode_basestring  # the C one: 1 µs, leaves non-ASCII as it is
from typing import NamedTuple

_HEAD = struct.Struct("<BQQHB")
_VERSION = 1
ID_DIGITS = 20  # of every id this bus makes


def is_traceparent(trace: str) -> bool:
    """Whether `trace` is the producer's own, as W3C Trace Context spells it; those the bus makes begin with a number."""
    return trace[2:3] == "-" and len(trace) == 55


class State(StrEnum):
    """Where a job of a topic is; exactly one of these. A done job is no longer in the storage."""

    READY = "ready"
    DELAYED = "delayed"
    LEASED = "leased"
    DEAD = "dead"


class Job(NamedTuple):
    """One accepted job. `content` is bytes as the producer sent them; times are wall time in ms."""

    id: int
    trace: str
    content: bytes
    accepted_ms: int = 0
    client: str = ""

    def encode(self) -> bytes:
        """The stored form: version, id, accept time, trace, client, content."""
        return stored_form(self.id, self.trace.encode(), self.content, self.accepted_ms, self.client.encode()[:255])

    @classmethod
    def decode(cls, body: bytes) -> Job:
        """The inverse of `encode`. Raises ValueError for bytes that are no job of this version."""
        if len(body) < _HEAD.size or body[0] != _VERSION:
            raise ValueError("not a stored job of version 1")
        _, job_id, accepted_ms, trace_length, client_length = _HEAD.unpack_from(body)
        middle = _HEAD.size + trace_length
        end = middle + client_length
        if len(body) < end:
            raise ValueError(f"a stored job cut off after {len(body)} bytes")
        return cls(
            job_id,
            body[_HEAD.size : middle].decode(),
            body[end:],
            accepted_ms,
            body[middle:end].decode(errors="replace"),
        )


def stored_form(job_id: int, trace: bytes, content: bytes, accepted_ms: int, client: bytes) -> bytes:
    """`Job.encode` for the push path, which has the parts at hand and makes no `Job`. `client`: 255 bytes at most."""
    return b"%b%b%b%b" % (
        _HEAD.pack(_VERSION, job_id, accepted_ms, len(trace), len(client)),
        trace,
        client,
        content,
    )


class Stamp:
    """The parts of the stored form that are the same in all jobs of one client; for the push path."""

    __slots__ = ("_client_length", "_middle", "_trace_length")

    def __init__(self, trace_tail: bytes, client: bytes) -> None:
        """`trace_tail`: what follows the number in a trace id. `client`: 255 bytes at most."""
        self._middle = trace_tail + client
        self._trace_length = ID_DIGITS + len(trace_tail)
        self._client_length = len(client)

    def forms(self, first: int, contents: Sequence[bytes], accepted_ms: int) -> list[bytes]:
        """`stored_form` of each: the first has the trace number `first` and the id behind it, the next the two behind."""
        pack, trace, client, middle = _HEAD.pack, self._trace_length, self._client_length, self._middle
        if len(contents) == 1:  # what producers send most: half a microsecond less
            head = pack(_VERSION, first + 1, accepted_ms, trace, client)
            return [b"%b%d%b%b" % (head, first, middle, contents[0])]
        return [
            b"%b%d%b%b" % (pack(_VERSION, number + 1, accepted_ms, trace, client), number, middle, content)
            for number, content in zip(count(first, 2), contents, strict=False)
        ]


def content_json(content: bytes) -> tuple[bytes, bool]:
    """`content` as a JSON string, and whether it had to go base64 because it is not UTF-8 (docs/CONSUME.md)."""
    try:
        return encode_basestring(content.decode()).encode(), False
    except UnicodeDecodeError:
        return b'"%b"' % base64.b64encode(content), True


def job_json(
    job: Job,
    attempt: int = 0,
    now_s: int = 0,
    retries: bool = False,
    residue_s: int = 0,
    escape: Callable[[bytes], bytes] = bytes,
) -> bytes:
    """The job as consumers, RPOP and LRANGE show it; the key order is fixed (docs/CONSUME.md).

    `attempt` counts from 1; 0 means "not delivered by the bus" (RPOP, LRANGE). `residue_s` is what is left of
    the topic's `max_age`. `escape` is applied to what producers wrote: all else is letters, digits and `{":,}`.
    """
    text, is_base64 = content_json(job.content)
    return b'{"id":"%d","inTraceId":%b,"content":%b,"retrying":%d,"RetryTimes":%d,"RetryTime":%d%b%b%d%b' % (
        job.id,
        escape(encode_basestring(job.trace).encode()),
        escape(text),
        attempt - 1 if attempt else 0,
        attempt,
        now_s,
        b',"IsRetry":true' if retries else b',"IsRetry":false',
        b',"BeginRetry":true,"RetryResidueTime":' if attempt > 1 else b',"BeginRetry":false,"RetryResidueTime":',
        residue_s,
        b',"encoding":"base64"}' if is_base64 else b"}",
    )
