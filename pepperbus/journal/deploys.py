"""Marks on the time line: somebody deployed, the configuration changed, the bus started or was upgraded.

Floor 3. One file of JSON lines beside the journal, appended by whoever has something to say and bounded. Charts draw them, so
that "since when" finds its "because".
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

FILE = "deploys.jsonl"
MOST_BYTES = 512 << 10
TEXT_CAP = 200
KINDS = ("mark", "reload", "upgrade", "start")


class Deploy(msgspec.Struct, omit_defaults=True):
    """`system`: whose it is, "" for everybody's. `queues`: those that a reload changed. `boot`, `code`: which bus ran what."""

    at_ms: int
    kind: str
    text: str = ""
    who: str = ""
    system: str = ""
    queues: tuple[str, ...] = ()
    boot: str = ""
    code: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Deploy).decode


def add(data_dir: Path, deploy: Deploy) -> None:
    """Remember it. Raises OSError. The oldest half goes when the file has become too large."""
    fd = os.open(data_dir / FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_size > MOST_BYTES:
            kept = os.pread(fd, MOST_BYTES, MOST_BYTES // 2).partition(b"\n")[2]
            os.ftruncate(fd, 0)
            os.write(fd, kept)
        os.write(fd, _encode(deploy) + b"\n")
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # gevent's os.close closes only in the hub's next turn
        os.close(fd)


def read(data_dir: Path, since_ms: int = 0) -> list[Deploy]:
    """Since then, oldest first. A line that a full disk cut short is left out."""
    try:
        lines = (data_dir / FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(_decode(line))
        except msgspec.MsgspecError:
            continue
    return [deploy for deploy in found if deploy.at_ms >= since_ms]
