"""Jobs as entries of a stream: their ids both ways, and how they are spelled on the wire.

Floor 4. An entry's id is `<unix ms>-<low 24 bits>` of the job's id: stream libraries take such ids apart, and a number of 20
digits breaks some. Knows no storage and no session.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pepperbus.ids import EPOCH_MS, LAST_MS, id_time_ms
from pepperbus.job import Job
from pepperbus.wire import resp

Id = tuple[int, int]  # (ms, sequence), as streams compare them

LOWEST: Id = (0, 0)
HIGHEST: Id = ((1 << 64) - 1, (1 << 64) - 1)
NULL_ARRAY = b"*-1\r\n"
_LOW = (1 << 24) - 1
_ID = re.compile(rb"([0-9]{1,20})(?:-([0-9]{1,20}))?\Z")


def entry_of(job_id: int) -> Id:
    return id_time_ms(job_id), job_id & _LOW


def job_of(entry: Id) -> int:
    """The job's id; 0 for an entry that is none of ours."""
    ms, low = entry
    if not EPOCH_MS <= ms <= LAST_MS or low > _LOW:
        return 0
    return 1 << 63 | (ms - EPOCH_MS) << 24 | low


def spell(entry: Id) -> bytes:
    return b"%d-%d" % entry


def parse(word: bytes, missing: int = 0) -> Id | None:
    """An id as clients write it; `missing` stands for a sequence that was left out. None: not an id."""
    match = _ID.match(word)
    if match is None:
        return None
    entry = int(match[1]), int(match[2]) if match[2] is not None else missing
    return entry if entry <= HIGHEST else None


def parse_range(first: bytes, last: bytes) -> tuple[Id, Id] | None:
    """Both ends of a range, inclusive: `-`, `+`, an id, or `(` before one to leave it out. None: not a range."""
    low = LOWEST if first == b"-" else parse(first.removeprefix(b"("))
    high = HIGHEST if last == b"+" else parse(last.removeprefix(b"("), HIGHEST[1])
    if low is None or high is None:
        return None
    if first.startswith(b"("):
        low = (low[0], low[1] + 1) if low[1] < HIGHEST[1] else (low[0] + 1, 0)
    if last.startswith(b"("):
        high = (high[0], high[1] - 1) if high[1] else (high[0] - 1, HIGHEST[1])
    return low, high


def encode(job: Job, attempt: int) -> bytes:
    """One entry: its id and its fields, a flat array in both protocols."""
    fields = (
        (b"id", b"%d" % job.id),
        (b"inTraceId", job.trace.encode()),
        (b"content", job.content),
        (b"attempt", b"%d" % attempt),
    )
    flat = [resp.bulk(word) for pair in fields for word in pair]
    return resp.array((resp.bulk(spell(entry_of(job.id))), resp.array(flat)))


def streams(found: Iterable[tuple[bytes, Sequence[bytes]]], protocol: int) -> bytes:
    """The answer of XREADGROUP: a map in RESP3, pairs in RESP2; nothing at all is nil."""
    streams = [(key, resp.array(entries)) for key, entries in found]
    if not streams:
        return b"_\r\n" if protocol == 3 else NULL_ARRAY
    if protocol == 3:
        return resp.mapping(streams, 3)
    return resp.array([resp.array((resp.bulk(key), entries)) for key, entries in streams])
