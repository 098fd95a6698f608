"""Giving disk space back: an LMDB file keeps its size when jobs leave. Only while no process has the storage open.

Floor 3. Knows LMDB's files; knows neither jobs nor the bus.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import lmdb

from pepperbus.errors import StorageRefused, StorageUnavailable


def compact(path: Path) -> tuple[int, int]:
    """Write the storage in the directory `path` anew without its free pages. Returns the file's bytes before and after.

    Raises StorageRefused while a process has it open or when it is no storage, StorageUnavailable when the disk has no
    room for the copy; the storage is as it was then.
    """
    file, copy = path / "data.mdb", path / "compact"
    if not file.exists():
        raise StorageRefused(f"{path} holds no embedded storage (no data.mdb)")
    lock = os.open(path / "lock.mdb", os.O_RDWR | os.O_CREAT, 0o640)
    try:
        # The byte every process that has the environment open holds a shared lock on.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        before = file.stat().st_size
        _copy(path, copy)
        os.replace(copy / "data.mdb", file)
        _sync(path)
        return before, file.stat().st_size
    except BlockingIOError as error:
        raise StorageRefused(f"{path} is in use; stop the bus first") from error
    except (lmdb.Error, OSError) as error:
        raise StorageUnavailable(f"{path}: not compacted: {error}") from error
    finally:
        os.close(lock)
        shutil.rmtree(copy, ignore_errors=True)


def _copy(path: Path, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(mode=0o750)
    # Without LMDB's own lock: closing its lock file would give up ours, which keeps all others out.
    with lmdb.open(str(path), readonly=True, lock=False, max_dbs=1) as env:
        env.copy(str(copy), compact=True)
    os.chmod(copy / "data.mdb", 0o640)
    _sync(copy / "data.mdb")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
