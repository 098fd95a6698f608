"""A small file of JSON lines that anybody of the node may add to, bounded: the oldest half goes when it has grown too large.

Floor 3. Structs in, structs out; what the lines mean is their owner's.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TypeVar

import msgspec

MOST_BYTES = 512 << 10
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


def add(path: Path, *lines: msgspec.Struct) -> None:
    """Append. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_size > MOST_BYTES:
            kept = os.pread(fd, MOST_BYTES, MOST_BYTES // 2).partition(b"\n")[2]
            os.ftruncate(fd, 0)
            os.write(fd, kept)
        os.write(fd, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # gevent's os.close closes only in the hub's next turn
        os.close(fd)


def read(path: Path, kind: type[_Kind]) -> list[_Kind]:
    """Every line, oldest first; one that a full disk cut short is left out."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    decode = msgspec.json.Decoder(kind).decode
    found = []
    for line in lines:
        try:
            found.append(decode(line))
        except msgspec.MsgspecError:
            continue
    return found
