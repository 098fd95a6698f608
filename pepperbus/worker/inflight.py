"""Which jobs a worker has begun: a table in a mapped file that outlives the process, so that only these are blamed.

Floor 4. Written before the first byte of a request is sent. Whoever takes back a dead worker's leases reads it: jobs that
were leased but never begun go back as if nothing had happened, without an attempt or a crash mark. After the loss
of the whole host the table is gone, and every leased job counts as begun. A worker that leaves in order leaves its table too: a
claim without an answer may have given it jobs that it never saw.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

_ENTRY = struct.Struct("<QQ")  # number of the topic's name, job id; a number of 0 is an empty place
_ENTRIES = 4096
_TABLE = _ENTRIES * _ENTRY.size
_EMPTY = _ENTRY.pack(0, 0)
_NAMES = 64 << 10  # bytes kept free for the topics' names


def table_path(run_dir: Path, owner: str) -> Path:
    return run_dir / "inflight" / owner.replace("/", "~")


class InFlight:
    """The writing end: one worker's table, with the topics' names behind it, one a line, and zeros behind those."""

    def __init__(self, run_dir: Path, owner: str) -> None:
        self.path = table_path(run_dir, owner)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        os.posix_fallocate(self._fd, 0, _TABLE + _NAMES)  # not a hole: a full disk would end whoever writes into it
        self._map = mmap.mmap(self._fd, _TABLE)
        self._free = list(range(0, _TABLE, _ENTRY.size))
        self._topics: dict[str, int] = {}
        self._end = _TABLE

    @property
    def free(self) -> int:
        """How many more jobs may begin; a limit above 4,096 jobs at once in one process is not used up."""
        return len(self._free)

    def begin(self, topic: str, job_id: int) -> int:
        """Mark a job as begun; returns the place to `end`. Raises IndexError when none is `free`."""
        number = self._topics.get(topic) or self._name(topic)
        at = self._free.pop()
        _ENTRY.pack_into(self._map, at, number, job_id)
        return at

    def _name(self, topic: str) -> int:
        self._end += os.pwrite(self._fd, topic.encode() + b"\n", self._end)
        number = self._topics[topic] = len(self._topics) + 1
        return number

    def is_of(self, at: int, topic: str, job_id: int) -> bool:
        """Whether the place `at` is this job's."""
        return bool(_ENTRY.unpack_from(self._map, at) == (self._topics.get(topic), job_id))

    def end(self, at: int) -> None:
        self._map[at : at + _ENTRY.size] = _EMPTY
        self._free.append(at)


def started(run_dir: Path, owner: str) -> frozenset[tuple[str, int]] | None:
    """The (topic, job id) a dead worker had begun; None when its table is lost or damaged and nobody can know."""
    try:
        data = table_path(run_dir, owner).read_bytes()
        names = data[_TABLE:].decode().split("\n")[:-1]
        if len(data) < _TABLE:
            return None
        return frozenset((names[number - 1], job_id) for number, job_id in _ENTRY.iter_unpack(data[:_TABLE]) if number)
    except (OSError, UnicodeDecodeError, struct.error, IndexError):  # after a power cut half of it may be missing
        return None


def forget(run_dir: Path, owner: str) -> None:
    """Its leases were taken back everywhere: the table has done its duty."""
    table_path(run_dir, owner).unlink(missing_ok=True)


def tables(run_dir: Path) -> list[str]:
    """The owners that have a table here."""
    directory = run_dir / "inflight"
    return [path.name.replace("~", "/") for path in directory.iterdir()] if directory.is_dir() else []
