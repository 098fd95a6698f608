"""Redis commands as bytes. Floor 3, pure.

hiredis packs a command in about a microsecond. A batch repeats one command with another id each time, and ids are all
equally long: `each` and `many` join them fifty times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import hiredis


class Packed(NamedTuple):
    """Ready-made bytes, and how many commands they are."""

    data: bytes
    commands: int


Command = tuple[bytes | str | int, ...]
Part = Command | Packed

pack_one: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub takes one word


def pack(parts: Iterable[Part]) -> Packed:
    """All of `parts`, one behind the other."""
    pieces, count = [], 0
    for part in parts:
        if type(part) is Packed:
            pieces.append(part.data)
            count += part.commands
        else:
            pieces.append(pack_one(part))
            count += 1
    return Packed(b"".join(pieces), count)


@lru_cache(maxsize=4096)
def _words(head: Command) -> bytes:
    """The words of `head` without the line that counts them."""
    return pack_one(head).partition(b"\r\n")[2]


def _even(items: Sequence[bytes]) -> bool:
    return len(set(map(len, items))) == 1


def each(head: Command, items: Sequence[bytes]) -> Packed:
    """One command for each of `items` (quick when they are equally long): `head` and the item."""
    if not items or not _even(items):
        return pack([(*head, item) for item in items])
    start = b"*%d\r\n%b$%d\r\n" % (len(head) + 1, _words(head), len(items[0]))
    return Packed(start + (b"\r\n" + start).join(items) + b"\r\n", len(items))


def many(head: Command, items: Sequence[bytes]) -> Packed:
    """One command: `head` and all of `items` (at least one; quick when they are equally long)."""
    if not _even(items):
        return pack([(*head, *items)])
    size = b"$%d\r\n" % len(items[0])
    start = b"*%d\r\n%b%b" % (len(head) + len(items), _words(head), size)
    return Packed(start + (b"\r\n" + size).join(items) + b"\r\n", 1)


def several(heads: Sequence[Command], items: Sequence[bytes]) -> Packed:
    """`many` for each of `heads`: the items are joined once."""
    if not _even(items):
        return pack([(*head, *items) for head in heads])
    size = b"$%d\r\n" % len(items[0])
    joined = size + (b"\r\n" + size).join(items) + b"\r\n"
    packed = [b"*%d\r\n%b%b" % (len(head) + len(items), _words(head), joined) for head in heads]
    return Packed(b"".join(packed), len(packed))


@lru_cache(maxsize=4096)
def repeated(command: Command, times: int) -> Packed:
    """The same command `times` over."""
    return Packed(pack_one(command) * times, times)
