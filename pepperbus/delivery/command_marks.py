"""Which processes a worker has started, told to those who come after it: nothing it kept alive survives its kill -9.

Floor 3. The kernel ends the processes themselves (PR_SET_PDEATHSIG), but not what they started. So each worker that starts
any holds a locked file with the numbers of their sessions, and gives them a token in their environment. Whoever finds such
a file unlocked knows that its worker is dead, and ends every process that has the token or lies in one of the sessions.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "PEPPERBUS_KEEPER"
_mine: dict[Path, Marks] = {}


class Marks:
    """This process' file. The lock is the kernel's to give up when we die."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.pid = os.getpid()
        self.token = f"{self.pid}-{secrets.token_hex(8)}"
        self._sessions: dict[int, str] = {}
        self._fd = os.open(directory / self.token, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def add(self, pid: int) -> None:
        """A session leader we started."""
        self._sessions[pid] = _started(pid)
        self._write()

    def remove(self, pid: int) -> None:
        self._sessions.pop(pid, None)
        self._write()

    def _write(self) -> None:
        text = "".join(f"{pid} {started}\n" for pid, started in self._sessions.items()).encode()
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))


def of_this_process(run_dir: Path) -> Marks:
    """Made at the first use, after the fork."""
    directory = run_dir / "commands"
    found = _mine.get(directory)
    if found is None or found.pid != os.getpid():
        found = _mine[directory] = Marks(directory)
    return found


def end_leftovers(run_dir: Path) -> int:
    """Kill what the commands of dead workers left running; how many processes that were. Reads /proc once if there are any."""
    killed = 0
    directory = run_dir / "commands"
    for path in list(directory.iterdir()) if directory.is_dir() else []:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sessions = dict(line.split() for line in os.read(fd, 1 << 20).decode().splitlines())
            killed += sum(_kill(pid) for pid in _belonging(path.name, sessions))
            path.unlink(missing_ok=True)
        except (OSError, ValueError):  # its worker lives, or another is quicker
            pass
        finally:
            os.close(fd)
    return killed


def _belonging(token: str, sessions: dict[str, str]) -> Iterator[int]:
    """Processes with the token, and those of the sessions; a number that another leader has by now means nothing."""
    wanted = f"{VARIABLE}={token}".encode()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                mine = wanted in file.read().split(b"\0")
        except OSError:
            mine = False
        if mine or _in_session(name, sessions):
            yield int(name)


def _in_session(pid: str, sessions: dict[str, str]) -> bool:
    session = _stat(pid, 3)
    started = sessions.get(session)
    return started is not None and _started(int(session)) in (started, "")


def _started(pid: int) -> str:
    """When it started, in the kernel's ticks; "" when it is gone."""
    return _stat(str(pid), 19)


def _stat(pid: str, field: int) -> str:
    """A field of /proc/PID/stat, counted from the one after the name in brackets (proc(5))."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[field]
    except (OSError, IndexError):
        return ""


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True
