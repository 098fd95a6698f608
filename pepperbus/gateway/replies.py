"""How a push is answered: in the JSON of the Go system, or in Redis' own words. Bytes only; knows no session.

Which of the two a key gets, `route.Target.plain` says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from json.encoder import encode_basestring

from pepperbus.gateway.submission import FULL, UNAVAILABLE, UNKNOWN
from pepperbus.job import ID_DIGITS
from pepperbus.wire import resp

_CODES = {FULL: "OOM", UNAVAILABLE: "TRYAGAIN", UNKNOWN: "UNKNOWN"}
_TEXTS = {FULL: "queue full", UNAVAILABLE: "storage unavailable"}

#: Phrases a failure from its outcome and a text.
Failure = Callable[[int, str], bytes]


@cache
def one_job_form(trace_tail: bytes) -> bytes:
    """The commonest success, to be filled (`%`) with the job's id and the number of the trace."""
    length = ID_DIGITS + ID_DIGITS + len(trace_tail) + len(b'{"jobs":[""],"inTraceId":"","error":""}')
    return b'$%d\r\n{"jobs":["%%d"],"inTraceId":"%%d%b","error":""}\r\n' % (length, trace_tail)


def job_list(numbers: list[int], trace: bytes) -> bytes:
    ids = b",".join([b'"%d"' % n for n in numbers])
    return resp.bulk(b'{"jobs":[%b],"inTraceId":"%b","error":""}' % (ids, trace))


def json_error(trace: bytes, text: str) -> bytes:
    return resp.bulk(b'{"jobs":null,"inTraceId":"%b","error":%b}' % (trace, encode_basestring(text).encode()))


def plain_failure(outcome: int, text: str) -> bytes:
    return resp.error(f"{_CODES[outcome]} {_TEXTS.get(outcome) or text}")


def json_failure(trace: bytes) -> Failure:
    """The failure of the push with this trace id."""

    def failure(outcome: int, text: str) -> bytes:
        return json_error(trace, _TEXTS.get(outcome) or f"UNKNOWN {text}")

    return failure
