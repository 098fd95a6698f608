"""The job: what is stored of it, and the JSON its consumer gets.

Floor 0. Storages see only `Job.encode()`'s bytes; how often a job was tried is the storage's own record,
because it changes while the bytes never do ("a body is never written over another").
"""

from __future__ import annotations

import base64
import struct
from enum import StrEnum
from json.encoder import encode_basestring  # the C one: 1 µs, leaves non-ASCII as it is
from typing import NamedTuple

_HEAD = struct.Struct("<BQQHB")
_VERSION = 1


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


def content_json(content: bytes) -> tuple[str, bool]:
    """`content` as a JSON string, and whether it had to go base64 because it is not UTF-8 (docs/CONSUME.md)."""
    try:
        return encode_basestring(content.decode()), False
    except UnicodeDecodeError:
        return '"' + base64.b64encode(content).decode() + '"', True


def job_json(job: Job, attempt: int = 0, now_s: int = 0, retries: bool = False, residue_s: int = 0) -> str:
    """The job as consumers, RPOP and LRANGE show it; the key order is fixed (docs/CONSUME.md).

    `attempt` counts from 1; 0 means "not delivered by the bus" (RPOP, LRANGE). `residue_s` is what is left of
    the topic's `max_age`.
    """
    text, is_base64 = content_json(job.content)
    return '{"id":"%d","inTraceId":%s,"content":%s,"retrying":%d,"RetryTimes":%d,"RetryTime":%d%s%s%s' % (
        job.id,
        encode_basestring(job.trace),
        text,
        max(attempt - 1, 0),
        attempt,
        now_s,
        ',"IsRetry":true' if retries else ',"IsRetry":false',
        ',"BeginRetry":true,"RetryResidueTime":%d' % residue_s
        if attempt > 1
        else ',"BeginRetry":false,"RetryResidueTime":%d' % residue_s,
        ',"encoding":"base64"}' if is_base64 else "}",
    )
