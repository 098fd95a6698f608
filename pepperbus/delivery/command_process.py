"""`run = command`: one running process: its output captured, lines to and from it, and its end, with all its group.

Floor 3. Waiting is gevent's: a child watcher, and descriptors that do not block. It knows nothing of jobs or verdicts.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event
from gevent.os import make_nonblocking, nb_read, nb_write
from gevent.queue import SimpleQueue

from pepperbus.delivery.command_start import Command

#: Of what it prints, the end is kept: that is where errors are said.
OUTPUT_CAP = 64 << 10
#: Told to leave by SIGINT, it has this long before its group is killed; docs/COMMAND.md says so.
GRACE_S = 10.0
_LINE_CAP = 1 << 20
_READ = 65536
_PAGE = os.sysconf("SC_PAGESIZE")


class Process:
    """One process of a command, started now. Raises OSError when it cannot be.

    `lines`: it is fed through standard input as long as it lives and answers on descriptor 3, one line each.
    """

    def __init__(self, command: Command, lines: bool, stdin: bool, more: Mapping[str, str] | None = None) -> None:
        self._command = command
        self.since = monotonic()
        self.ended = Event()
        self.status = 0  # once it has ended: exit status, or minus the signal
        self.lines_fed = lines
        self.tasks = 0
        self.seat = -1
        self.leaving = ""  # why it was told to leave
        self.how = ""  # once it has ended: that in words, with the last thing it said
        self.lines: SimpleQueue[bytes | None] = SimpleQueue()  # None: it ended
        self._output = bytearray()
        self._said = ""  # the last line of what was taken
        self._partial = bytearray()
        their: list[int] = []
        ours: list[int] = []
        try:
            self._stdin = _pipe(their, ours, reading=False) if stdin else -1
            if not stdin:
                their.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            self._out = _pipe(their, ours, reading=True)
            self._verdicts = _pipe(their, ours, reading=True) if lines else -1
            verdicts = their[2] if lines else -1
            self._popen = command.start(their[0], their[1], verdicts, more)
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in their:
                os.close(fd)
        self.pid: int = self._popen.pid
        self._written = 0
        self.never_read = True  # once it has ended: whether what was last sent to it lies in the pipe as a whole
        self._readers = [gevent.spawn(self._read_output)]
        if lines:
            self._readers.append(gevent.spawn(self._read_lines))
        gevent.spawn(self._wait)

    # -- to and from it ------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> bool:
        """Write to its standard input; False when nobody reads there any more. Waits in the calling greenlet."""
        self._written = 0
        view = memoryview(data)
        while self._written < len(data):
            if self._stdin < 0:
                return False
            try:
                self._written += nb_write(self._stdin, view[self._written :])
            except OSError:
                return False
        return True

    def _untouched(self) -> bool:
        """Whether all that was last sent still lies in the pipe: then it has certainly not begun with it."""
        if self._stdin < 0 or not self._written:
            return not self._written
        (lying,) = struct.unpack("i", fcntl.ioctl(self._stdin, termios.FIONREAD, b"\0\0\0\0"))
        return bool(lying >= self._written)

    def end_input(self) -> None:
        """It sees the end of its standard input; one that reads jobs there leaves after the one it has."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def take_output(self) -> bytes:
        """What it printed since this was last asked, the end of it."""
        self._drain(self._out, self._output)
        said = bytes(self._output)
        self._said = _last_line(self._output) or self._said
        self._output.clear()
        return said

    def _read_output(self) -> None:
        while data := _read(self._out):
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        self._output += data
        if len(self._output) > 2 * OUTPUT_CAP:
            del self._output[:-OUTPUT_CAP]

    def _read_lines(self) -> None:
        while data := _read(self._verdicts):
            self._split(data)

    def _split(self, data: bytes) -> None:
        self._partial += data
        while (end := self._partial.find(b"\n")) >= 0:
            self.lines.put(bytes(self._partial[:end]))
            del self._partial[: end + 1]
        if len(self._partial) > _LINE_CAP:
            self.lines.put(bytes(self._partial[:256]))
            self._partial.clear()

    def _drain(self, fd: int, into: bytearray | None) -> None:
        """What is there to be read now."""
        while fd >= 0:
            try:
                data = os.read(fd, _READ)
            except OSError:
                return
            if not data:
                return
            if into is None:
                self._split(data)
            else:
                self._keep(data)

    # -- its end -------------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return not self.ended.is_set()

    def memory(self) -> int:
        """Resident bytes of the process itself; 0 when it is gone."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * _PAGE
        except (OSError, ValueError, IndexError):
            return 0

    def facts(self, job: str = "") -> dict[str, Any]:
        """For people and pages. `job`: the id of the one it has."""
        return {
            "pid": self.pid,
            "state": "leaving" if self.leaving else "busy" if job else "idle",
            "uptime_s": round(monotonic() - self.since, 1),
            "tasks": self.tasks,
            "memory": self.memory(),
            "job": job,
            "why": self.leaving,
            "said": _last_line(self._output) or self._said,
        }

    def stop(self, why: str, grace_s: float = GRACE_S) -> None:
        """SIGINT, `grace_s`, SIGKILL, all to its whole group. Waits in the calling greenlet until it is gone."""
        self.leaving = self.leaving or why
        self.end_input()
        self._signal(signal.SIGINT)
        if not self.ended.wait(grace_s):
            self._signal(signal.SIGKILL)
            self.ended.wait(5.0)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _wait(self) -> None:
        self.status = self._popen.wait()
        self._signal(signal.SIGKILL)  # what it started and left behind
        self._drain(self._out, self._output)
        self._drain(self._verdicts, None)
        self.never_read = self._untouched()
        self.how = self._in_words()
        self.end_input()
        for reader in self._readers:
            reader.kill()
        if self._verdicts >= 0:
            os.close(self._verdicts)
        os.close(self._out)
        self._out = self._verdicts = -1
        with suppress(OSError):  # then it stays marked until its number is another's: that harms nobody
            self._command.forget(self.pid)
        self.lines.put(None)
        self.ended.set()

    def _in_words(self) -> str:
        words = f"killed by {_signal_name(-self.status)}" if self.status < 0 else f"exit status {self.status}"
        said = _last_line(self._output)
        return f"{words}: {said}" if said else words

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except OSError:
            pass  # nobody is left


def _last_line(output: bytearray) -> str:
    lines = bytes(output[-2048:]).decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else ""


def _pipe(their: list[int], ours: list[int], reading: bool) -> int:
    """A new pipe: our end, which does not block; the other is for the process."""
    read, write = os.pipe()
    mine, other = (read, write) if reading else (write, read)
    their.append(other)
    ours.append(mine)
    make_nonblocking(mine)
    return mine


def _read(fd: int) -> bytes:
    """b"" at the end, or when the descriptor was closed meanwhile."""
    try:
        return bytes(nb_read(fd, _READ)) if fd >= 0 else b""
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.EIO):
            raise
        return b""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
