"""The file of the embedded storage: its tables, keys and records. Pure packing; knows neither LMDB nor a clock.

Floor 3. Numbers in keys are big-endian, so byte order is number order. A topic is a 4-byte number in every key.

    about    b"format" -> version, b"touched" -> ms of the first write after a sync that failed
    topics   name -> topic number
    bodies   topic, id -> checksum, body: there is a job exactly when this entry is
    ready    topic, rank, id -> track      rank: the job id, unless the line already ends behind it or it goes in front
    delayed  topic, due ms, id -> track    dead    topic, dead ms, id -> track, reason
    leased   owner, topic, id -> rank, track
    place    topic, id -> state, rank or ms; only for what is delayed, dead, or ready at a rank that is not its id
    counts   topic -> how many are ready, delayed, leased, dead
    owners   name -> owner number, since ms    nodes  name -> ms of its last sign of life
    paused   topic name -> b""                 shards shard -> node
    once     name -> job id that holds it, until ms
    expiry   until ms, name -> b"": the order in which entries of `once` are swept out
    texts    name -> text

A first attempt so costs two entries to push, one moved to lease, two deleted when done.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

from pepperbus.job import State

#: Raised when a file written by this version cannot be read by the one before.
FORMAT = 1

TABLES = (
    "about",
    "topics",
    "bodies",
    "ready",
    "delayed",
    "dead",
    "leased",
    "place",
    "counts",
    "owners",
    "nodes",
    "paused",
    "shards",
    "once",
    "expiry",
    "texts",
)

#: Ranks below this are in front of every pushed job: ids have their highest bit set.
MIDDLE = 1 << 63

TOPIC = struct.Struct(">I")
JOB = struct.Struct(">IQ")  # topic, id
LINE = struct.Struct(">IQQ")  # topic, rank or ms, id
LEASE = struct.Struct(">IIQ")  # owner, topic, id
POSITION = struct.Struct(">QQ")  # the end of a LINE key: also a listing's cursor
COUNTS = struct.Struct(">QQQQ")  # in the order of STATES
OWNER = struct.Struct(">IQ")  # number, since ms
PLACE = struct.Struct(">BQ")  # index in STATES, rank or ms
NUMBER = struct.Struct(">Q")
HELD = struct.Struct(">QQ")  # job id, until ms
_CHECK = struct.Struct(">I")
_TRACK = struct.Struct(">IHQ")

STATES = (State.READY, State.DELAYED, State.LEASED, State.DEAD)
READY, DELAYED, LEASED, DEAD = range(4)


class Track(NamedTuple):
    """What happened to a job so far; nothing for most, and then it takes no bytes."""

    attempts: int = 0
    crashes: int = 0
    first_due_ms: int = 0

    def pack(self) -> bytes:
        return _TRACK.pack(*self) if self != NEW else b""


NEW = Track()
TRACK_SIZE = _TRACK.size


def unpack_track(value: bytes, start: int = 0) -> Track:
    return Track(*_TRACK.unpack_from(value, start)) if len(value) > start else NEW


def pack_dead(track: Track, reason: str) -> bytes:
    return _TRACK.pack(*track) + reason.encode()


def dead_reason(value: bytes) -> str:
    return value[TRACK_SIZE:].decode(errors="replace")


def pack_body(job_id: int, body: bytes) -> bytes:
    """The record of a body: its checksum (which knows whose body it is), then the bytes."""
    return _CHECK.pack(crc32(body, job_id & 0xFFFFFFFF)) + body


def unpack_body(job_id: int, record: bytes | None) -> tuple[bytes, bool]:
    """The body and whether it is what was stored. Damaged or missing bytes are handed out as they are."""
    if record is None or len(record) < _CHECK.size:
        return b"", False
    body = record[_CHECK.size :]
    return body, _CHECK.unpack_from(record)[0] == crc32(body, job_id & 0xFFFFFFFF)


def unpack_bodies(ids: Iterable[int], records: list[bytes]) -> list[bytes] | None:
    """`unpack_body` of many; None when one of them is damaged."""
    bodies = [record[_CHECK.size :] for record in records]
    sums = [_CHECK.pack(crc32(body, job_id & 0xFFFFFFFF)) for job_id, body in zip(ids, bodies, strict=True)]
    return bodies if sums == [record[: _CHECK.size] for record in records] else None
