"""Topics on their way from one storage to another: the record that the ticker works by. Floor 3.

A drain begins with the topic's file naming the new storage, so that pushes go there; the ticker moves what lies in the old one.
`data_dir/drains.json` says which, until it is empty.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

FILE = "drains.json"


class Drain(msgspec.Struct):
    """`topic` moves from storage `source` to `target`. `state`: moving, or done. `trouble`: why it stands, in words."""

    topic: str
    source: str
    target: str
    since_ms: int
    who: str = ""
    state: str = "moving"
    moved: int = 0
    left: int = 0
    ended_ms: int = 0
    trouble: str = ""


def read(data_dir: Path) -> dict[str, Drain]:
    """Topic -> its last drain."""
    try:
        found = msgspec.json.decode((data_dir / FILE).read_bytes(), type=list[Drain])
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}
    return {drain.topic: drain for drain in found}


def moving(data_dir: Path) -> dict[str, str]:
    """Topic -> the storage it is moving out of."""
    return {drain.topic: drain.source for drain in read(data_dir).values() if drain.state == "moving"}


def update(data_dir: Path, change: Callable[[dict[str, Drain]], None]) -> None:
    """Read, change, write, alone; on the disk when it returns: a lost record would leave jobs where nobody looks.

    Raises OSError.
    """
    fd = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        drains = read(data_dir)
        change(drains)
        new = data_dir / (FILE + ".new")
        with new.open("wb") as out:
            out.write(msgspec.json.encode(list(drains.values())))
            out.flush()
            os.fsync(out.fileno())
        os.replace(new, data_dir / FILE)
        os.fsync(fd)
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # gevent's os.close closes only in the hub's next turn
        os.close(fd)
