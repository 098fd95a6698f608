"""Passwords as argon2id hashes, made and checked in a thread, few at a time. Floor 2.

Memory and time of a hash follow RFC 9106's and OWASP's advice for servers: 32 MiB, 3 passes. Its parameters are part
of the hash, so a later change needs nobody's new password.
"""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, cast

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pepperbus.accounts.aside import aside, is_patched
from pepperbus.errors import UsageError

SHORTEST = 10
LONGEST = 1024
_AT_ONCE = 2
_hasher = PasswordHasher(time_cost=3, memory_cost=32 << 10, parallelism=1)


def hashed(password: str) -> str:
    """What is kept of a password. Raises UsageError for one that is too short."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise UsageError(f"a password has {SHORTEST} to {LONGEST} characters")
    with _few():
        return aside(lambda: _hasher.hash(password))


def matches(password: str, kept: str) -> bool:
    """Whether it is this password. An empty `kept` (nobody of that name) takes the same time and never matches."""
    with _few():
        return aside(lambda: _verify(password, kept or _nobodys())) and bool(kept)


@cache
def _few() -> AbstractContextManager[Any]:
    """Two at a time under gevent: a flood of logins must not take all memory, both cores and every pool thread."""
    if not is_patched():
        return nullcontext()
    from gevent.lock import BoundedSemaphore

    return cast("AbstractContextManager[Any]", BoundedSemaphore(_AT_ONCE))


def _verify(password: str, kept: str) -> bool:
    try:
        return len(password) <= LONGEST and _hasher.verify(kept, password)
    except (VerificationError, InvalidHashError):
        return False


def invented() -> str:
    """A password nobody chose: 20 characters, 100 bits, read out without doubt (no 0 O 1 l I)."""
    letters = "abcdefghijkmnopqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(5)) for _ in range(4))


@cache
def _nobodys() -> str:
    return _hasher.hash(secrets.token_hex())
