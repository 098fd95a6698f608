"""One master a run directory: `run_dir/lock` is flock'd, and every process of the family inherits the descriptor.

So who holds the lock knows that no orphan of an earlier master lives, whatever number stands in the file. Nor may two buses
with run directories of their own share a data directory: each would take the other's workers for dead, and their jobs.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

from pepperbus.errors import BootError
from pepperbus.family.spec import ORPHAN_S
from pepperbus.master.control import is_served

_POLL_S = 0.05


def take_lock(run_dir: Path) -> int:
    """The locked descriptor, for good. Raises BootError when a living master has it.

    Orphans of a killed master leave by themselves within ORPHAN_S; those that cannot (stopped, stuck) are ended.
    """
    path = run_dir / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        raise BootError(f"[bus] run_dir: cannot open {path}: {error.strerror}") from None
    patience = time.monotonic() + 2 * ORPHAN_S
    killed = False
    while not _try(fd):
        if is_served(run_dir) or _is_a_master(fd):
            raise BootError(f"already running, pid {_owner(fd)} (it holds {path})")
        if time.monotonic() > patience:
            if killed:
                raise BootError(f"{path} is held by processes that cannot be ended: {holders(path)}")
            killed, patience = True, time.monotonic() + ORPHAN_S
            _end(holders(path))
        time.sleep(_POLL_S)
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd


def check_alone(data_dir: Path) -> None:
    """Raises BootError while another bus lives on `data_dir`, even one in another container that shares the volume.

    Its gateways lock the marks of their ids for as long as they live; of our own family nobody lives yet.
    """
    for path in sorted((data_dir / "ids").glob("*.mark")):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if not _try(fd):
                raise BootError(
                    f"[bus] data_dir {data_dir} is in use by another bus ({path.name} is locked; pids here: {holders(path)}): "
                    "each needs a data_dir of its own"
                )
        finally:
            os.close(fd)


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(fd: int) -> str:
    return os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"


def _is_a_master(fd: int) -> bool:
    """Whether the process named in the file lives and holds this very lock: a master between lock and socket."""
    owner = _owner(fd)
    return owner.isdigit() and int(owner) != os.getpid() and _holds(int(owner), os.fstat(fd))


def holders(path: Path) -> list[int]:
    """The other processes that have the file open: found by what they hold, never by a remembered number."""
    wanted = path.stat()
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and _holds(pid, wanted)]


def _holds(pid: int, wanted: os.stat_result) -> bool:
    directory = f"/proc/{pid}/fd"
    try:
        for fd in os.listdir(directory):
            found = os.stat(f"{directory}/{fd}")
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    except OSError:  # it ended, or it is another user's
        pass
    return False


def _end(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
