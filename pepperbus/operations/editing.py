"""Files of the configuration: one editor at a time, and each written whole or not at all. Floor 4.

Knows owners and modes, and nothing of what stands in such a file.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pepperbus.config.model import Bus
from pepperbus.errors import PepperbusError

_PATIENCE_S, _LOOK_S = 20.0, 0.02  # for another editor


@contextmanager
def editing(file: Path) -> Iterator[None]:
    """One editor at a time in a directory of configuration files. Raises PepperbusError when the file cannot be changed."""
    try:
        fd = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PepperbusError(f"{file.parent}: {error.strerror or error}") from error
    try:
        _lock(fd, file)
        yield
    except OSError as error:
        raise PepperbusError(f"{error.filename or file}: {error.strerror or error}") from error
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # gevent's os.close closes only in the hub's next turn
        os.close(fd)


def _lock(fd: int, file: Path) -> None:
    """Asks again and again instead of waiting in the kernel: whoever has the lock may be a greenlet of this very process
    that waits for a storage's answer, and would never get it.
    """
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise PepperbusError(f"{file.parent}: somebody else is changing files there; try again") from None
        time.sleep(_LOOK_S)


def put_text(file: Path, text: str, bus: Bus) -> None:
    """Write a configuration's file whole, by rename. Raises OSError."""
    new = file.with_name(f".{file.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        with os.fdopen(fd, "w") as out:
            _as_before(out.fileno(), file, bus)
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(new, file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _as_before(fd: int, file: Path, bus: Bus) -> None:
    """Owner and mode stay; a new file made by root is one that the daemon's group can read."""
    if file.exists():
        stat = file.stat()
        os.fchmod(fd, stat.st_mode & 0o7777)
        if os.geteuid() == 0:
            os.fchown(fd, stat.st_uid, stat.st_gid)
    elif os.geteuid() == 0:
        os.fchown(fd, -1, _daemon_group(bus, file.parent))


def _daemon_group(bus: Bus, directory: Path) -> int:
    """`[bus]` names it, or else the directory of the queue files belongs to it."""
    if bus.group:
        return grp.getgrnam(bus.group).gr_gid
    return pwd.getpwnam(bus.user).pw_gid if bus.user else directory.stat().st_gid
