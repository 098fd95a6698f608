"""What is opened before anything is started: the run directory, the lock, the sockets; then root is given up."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path

from pepperbus.config.model import Bus, Config
from pepperbus.errors import BootError
from pepperbus.master import control
from pepperbus.master.listeners import open_listener
from pepperbus.master.lock import check_alone, take_lock
from pepperbus.master.mounts import unmounted

_DIRECTORY_MODE = 0o750


@dataclass
class Opened:
    """`listeners`: role -> address as configured -> socket."""

    lock_fd: int
    control: socket.socket
    listeners: dict[str, dict[str, socket.socket]]
    run_dir: Path
    new_data: bool = False  # data_dir was not there

    def close(self) -> None:
        """Stop listening and remove the socket files. The lock goes with the process."""
        for socks in self.listeners.values():
            for address, sock in socks.items():
                sock.close()
                if address.startswith("unix:"):
                    Path(address[5:]).unlink(missing_ok=True)
        self.control.close()
        control.socket_path(self.run_dir).unlink(missing_ok=True)
        os.close(self.lock_fd)


def open_all(config: Config) -> Opened:
    """Raises BootError with one line that says what is in the way."""
    bus = config.bus
    if point := unmounted(bus.data_dir):
        raise BootError(
            f"[bus] data_dir {bus.data_dir}: /etc/fstab has a disk for {point}, not mounted now: mount {point}"
        )
    new_data = not bus.data_dir.exists()
    for directory in (bus.run_dir, bus.data_dir):
        _make_directory(directory)
    becomes = gives_up_root(bus)
    if not becomes:
        _check_writable(bus)
    lock_fd = take_lock(bus.run_dir)
    check_alone(bus.data_dir)
    _empty(bus.run_dir / "stats")
    listeners = {
        "gateway": {a: open_listener(a, "[gateway] listen") for a in config.gateway.listen},
        "web": {a: open_listener(a, "[web] listen") for a in config.web.listen},
    }
    if becomes:
        _become(bus, listeners, lock_fd)
        _check_writable(bus)
    return Opened(lock_fd, control.listen(bus.run_dir), listeners, bus.run_dir, new_data)


def gives_up_root(bus: Bus) -> bool:
    """Whether `open_all` will: what was started before that is root's, and must go."""
    return bool(bus.user) and os.geteuid() == 0


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise BootError(f"cannot make the directory {path}: {error.strerror}") from None


def _check_writable(bus: Bus) -> None:
    """What an earlier start by another user left behind (a try as root, mostly) would stop each process one by one."""
    for key, directory in (("run_dir", bus.run_dir), ("data_dir", bus.data_dir)):
        for path in (directory, *sorted(directory.iterdir() if os.access(directory, os.R_OK) else ())):
            needed = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
            if not path.is_socket() and not os.access(path, needed):
                raise BootError(f"[bus] {key}: {_locked_out(path, directory)}")


def _locked_out(path: Path, directory: Path) -> str:
    facts, us = path.stat(), _name_of(os.geteuid())
    cure = f"chown {us} {path}" if path == directory else f"chown -R {us} {directory}"
    mode = f"mode 0{facts.st_mode & 0o777:o}"
    return f"{us} may not write to {path}, which belongs to {_name_of(facts.st_uid)}, {mode}: {cure}"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _empty(directory: Path) -> None:
    """Counts begin at the start of the bus."""
    _make_directory(directory)
    for path in (*directory.glob("*.stats"), directory / "since.json"):
        path.unlink(missing_ok=True)


def _become(bus: Bus, listeners: dict[str, dict[str, socket.socket]], lock_fd: int) -> None:
    """Give up root for good; what the bus writes to belongs to its user from then on."""
    try:
        user = pwd.getpwnam(bus.user)
        gid = grp.getgrnam(bus.group).gr_gid if bus.group else user.pw_gid
    except KeyError as error:
        raise BootError(f"[bus] user or group does not exist: {error.args[0]}") from None
    for path in (bus.run_dir, bus.data_dir, bus.run_dir / "stats"):
        os.chown(path, user.pw_uid, gid)
    os.fchown(lock_fd, user.pw_uid, gid)
    for socks in listeners.values():
        for address in socks:
            if address.startswith("unix:"):
                os.chown(address[5:], user.pw_uid, gid)
    os.initgroups(bus.user, gid)
    os.setgid(gid)
    os.setuid(user.pw_uid)
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise BootError(f"could not give up root for user {bus.user}")
