"""How a topic lies in Redis: its keys, its pointers, its attempt records.

Floor 3. Pure: opens nothing.

    job      hash  id -> nonce + body     the single truth: no field, no job
    att      hash  id -> "attempts crashes first_due_ms"; only of jobs that were tried, or pushed for later
    ready    list  pointers; pushed on the left, claimed on the right
    in:OWNER list  pointers an owner holds
    delay    zset  pointer -> due ms
    dead     zset  pointer -> ms of its death
    why      hash  id -> reason it is dead
    going    set   ids that are being removed; what is left there by a crash is removed again
    owners   set   who may hold pointers; also the fence: taking an owner out makes its late verdicts void

A *pointer* is the id and the nonce of the push that stored the body. A push that is repeated finds the body there and
leaves it, so the second pointer carries a nonce that is not the body's, and whoever meets it drops it. That is why a
push may be sent again at any time, even while its first form still lies unread in a frozen server's socket.
"""

from __future__ import annotations

from typing import NamedTuple

from pepperbus import names

ID = 20  # digits of a job id
NONCE = 6


class Keys:
    """The keys of one topic."""

    __slots__ = ("_held", "att", "dead", "delay", "going", "job", "owners", "ready", "topic", "why")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        for part in ("job", "att", "ready", "delay", "dead", "why", "going", "owners"):
            setattr(self, part, names.redis_key(topic, part).encode())
        self._held = names.redis_key(topic, "in:").encode()

    job: bytes
    att: bytes
    ready: bytes
    delay: bytes
    dead: bytes
    why: bytes
    going: bytes
    owners: bytes

    def held(self, owner: str) -> bytes:
        """The list of what `owner` holds of this topic."""
        return b"%b%b" % (self._held, owner.encode())


def field(job_id: int) -> bytes:
    """A job's field in the hashes."""
    return b"%020d" % job_id


def pointer(job_id: int, nonce: bytes) -> bytes:
    return b"%020d:%b" % (job_id, nonce)


def pointer_of(job_field: bytes, stored: bytes | None) -> bytes:
    """The one pointer that is good for what is stored under `job_field`; b"" when nothing is."""
    return b"%b:%b" % (job_field, stored[:NONCE]) if stored else b""


def is_good(found: bytes, stored: bytes | None) -> bool:
    """Whether the pointer `found` leads to the stored value."""
    return stored is not None and found[ID + 1 :] == stored[:NONCE]


class Record(NamedTuple):
    """What is remembered of a job beside its body."""

    attempts: int = 0
    crashes: int = 0
    first_due_ms: int = 0

    @classmethod
    def decode(cls, text: bytes | None) -> Record:
        """What nobody of the bus wrote counts as nothing: no job must be lost for its record."""
        try:
            return cls(*map(int, text.split())) if text else VIRGIN
        except (TypeError, ValueError):
            return VIRGIN

    def encode(self) -> bytes:
        return b"%d %d %d" % self


VIRGIN = Record()
