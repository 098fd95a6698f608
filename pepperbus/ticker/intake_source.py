"""The list an intake takes from, and what lies beside it in that Redis so that no crash loses or doubles an element.

Floor 4. Knows Redis' lists and nothing of jobs. Uses only commands Pika has; BRPOPLPUSH, where it is allowed, merely waits.

    KEY                      the list; others push to it and may take from it too
    KEY::pepperbus           elements that left it and are not stored yet, the oldest at the right
    KEY::pepperbus:batch     "token n": the n elements there are being stored under this token
    KEY::pepperbus:taker     who takes; expires
    KEY::pepperbus:refused   elements that are not what the format says

One taker at a time: the list is the only thing all who might take share. An element moves by RPOPLPUSH; from the left end, and
from Pika, whose RPOPLPUSH is not atomic, it is copied first, and the copy is nobody's until LREM has answered 1.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pepperbus.errors import PepperbusError
from pepperbus.names import INTAKE_SUFFIX
from pepperbus.storage.redis_url import parse_url

TAKER_MS = 15_000
_RENEW_S, _LATE_S = 4.0, 10.0
_WAIT_S = 2.0
_ANSWER_S = 5.0
_PIPELINED = 32  # elements asked for at once: each may be as large as a job may be
_BATCH_BYTES = 4 << 20


class TakenOver(PepperbusError):
    """Another took this list over while we did not say that we live."""


class Source:
    """One list. Every method raises redis.RedisError; after one, close it and begin anew with `claim` and `left`."""

    def __init__(self, url: str, key: str, end: str, mode: str, me: str) -> None:
        """`me` names the taker: the same after a restart, another's is another."""
        address = parse_url(f"of intake {key}", url)
        where: dict[str, Any] = {"unix_socket_path": address.path} if address.path else {"host": address.host}
        if not address.path:
            where |= {"port": address.port, "ssl": address.tls}
            where |= {"ssl_ca_certs": address.ca} if address.tls and address.ca else {}
        self._client: Any = redis.Redis(
            db=address.database,
            username=address.user or None,
            password=address.password or None,
            socket_timeout=_ANSWER_S,
            socket_connect_timeout=_ANSWER_S,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            **where,
        )
        self.key, self._right, self._mode, self._me = key, end == "right", mode, me
        self._own, self._batch, self._taker, self.refused = (
            f"{key}{INTAKE_SUFFIX}{what}" for what in ("", ":batch", ":taker", ":refused")
        )
        self._renewed = 0.0
        self._blocks = self._moves = True

    def close(self) -> None:
        """Let go of the connection; `claim` stays until it expires."""
        self._client.close()

    # -- one taker ---------------------------------------------------------------------------------------------------

    def claim(self) -> str:
        """Become the taker; "" when that worked, else who it is."""
        now = time.monotonic()
        if not self._client.set(self._taker, self._me, nx=True, px=TAKER_MS):
            holder = (self._client.get(self._taker) or b"").decode(errors="replace")
            if holder != self._me:
                return holder or "somebody else"
            self._client.set(self._taker, self._me, px=TAKER_MS)
        self._renewed = now
        pika = self._mode == "pika" or (self._mode == "auto" and self._is_pika())
        self._moves = self._right and not pika
        self._blocks = self._moves
        return ""

    def _is_pika(self) -> bool:
        return any(str(name).startswith("pika") for name in self._client.info("server"))

    def keep(self) -> None:
        """Go on being the taker. Raises TakenOver; called before anything is taken or stored."""
        now = time.monotonic()
        if now - self._renewed < _RENEW_S:
            return
        if now - self._renewed > _LATE_S or self._client.get(self._taker) != self._me.encode():
            raise TakenOver(f"{self.key}: another took over while this node stood still")
        self._client.set(self._taker, self._me, px=TAKER_MS)
        self._renewed = now

    def leave(self) -> None:
        """Say that we take no more, so that another can at once."""
        if self._client.get(self._taker) == self._me.encode():
            self._client.delete(self._taker)

    # -- elements ----------------------------------------------------------------------------------------------------

    def left(self) -> tuple[str, list[bytes]]:
        """What a predecessor left unfinished: the token of its batch ("" = none yet) and the elements, oldest first."""
        elements = self._client.lrange(self._own, 0, -1)[::-1]
        token, _, count = (self._client.get(self._batch) or b"").decode(errors="replace").partition(" ")
        if token and len(elements) > int(count or 0):
            token = ""  # somebody put elements there: they are in no batch
        return token, elements

    def take(self, n: int) -> list[bytes]:
        """Move up to `n` elements to our own list, oldest first. Waits up to 2 s for one where Redis can."""
        found = self._move(n) if self._moves else self._copy(n)
        if found or not self._blocks:
            return found
        try:
            one = self._client.brpoplpush(self.key, self._own, timeout=_WAIT_S)
        except redis.ResponseError as error:
            if "WRONGTYPE" in str(error):
                raise
            self._blocks = False  # not allowed, or not known here
            return []
        return [one] if one is not None else []

    @property
    def waits(self) -> bool:
        """Whether `take` waits by itself when there is nothing."""
        return self._blocks

    def _move(self, n: int) -> list[bytes]:
        found: list[bytes] = []
        size = 0
        while len(found) < n and size < _BATCH_BYTES:
            some = min(n - len(found), _PIPELINED)
            pipe = self._client.pipeline(transaction=False)
            for _ in range(some):
                pipe.rpoplpush(self.key, self._own)
            moved = [one for one in pipe.execute() if one is not None]
            found += moved
            size += sum(map(len, moved))
            if len(moved) < some:
                break
        return found

    def _copy(self, n: int) -> list[bytes]:
        some = min(n, _PIPELINED)
        seen = (
            self._client.lrange(self.key, -some, -1)[::-1]
            if self._right
            else self._client.lrange(self.key, 0, some - 1)
        )
        if not seen:
            return []
        pipe = self._client.pipeline(transaction=True)
        pipe.lpush(self._own, *seen)
        for element in seen:
            pipe.lrem(self.key, -1 if self._right else 1, element)
        removed = pipe.execute()[1:]
        ours = [element for element, one in zip(seen, removed, strict=True) if one]
        if others := [element for element, one in zip(seen, removed, strict=True) if not one]:
            pipe = self._client.pipeline(transaction=True)
            for element in others:  # another took it in between
                pipe.lrem(self._own, 1, element)
            pipe.execute()
        return ours

    def begin(self, token: str, n: int) -> None:
        """Note that our list's `n` elements are stored under this token from now on."""
        self._client.set(self._batch, f"{token} {n}")

    def done(self, elements: Sequence[bytes], refused: Sequence[bytes] = ()) -> None:
        """They are stored: take them off our list; the refused ones go to the list of such."""
        pipe = self._client.pipeline(transaction=True)
        if refused:
            pipe.lpush(self.refused, *refused)
        for element in elements:
            pipe.lrem(self._own, -1, element)
        pipe.delete(self._batch)
        pipe.execute()

    def lengths(self) -> tuple[int, int]:
        """How many elements wait, and how many were refused so far."""
        pipe = self._client.pipeline(transaction=False)
        pipe.llen(self.key)
        pipe.llen(self.refused)
        waiting, refused = pipe.execute()
        return int(waiting), int(refused)
