"""One line an event, text or JSON, with a stable `action=` word; payloads and secrets never.

Floor 0. Messages may be reworded, actions may not: log alarms hang on them. A full or vanished log file, or a reader
of standard error who stopped reading, never reaches the caller: the line is dropped and counted.
"""

from __future__ import annotations

import _socket  # gevent replaces the sending of `socket`
import fcntl
import json
import os
import stat
import sys
import time
from typing import Any

LEVELS = {"info": 20, "warning": 30, "error": 40}


class Log:
    """The log of one process. `process` is how the process is called in every line: `gateway.0`, `worker.orders.0`."""

    def __init__(
        self, process: str, file: str = "-", level: str = "info", format: str = "text", errors: str = ""
    ) -> None:
        self.process = process
        self.dropped = 0
        self._level = LEVELS[level]
        self._json = format == "json"
        self._paths = (file, errors)
        self._fds: list[int] = [-1, -1]
        self._journal: _socket.socket | None = None  # standard error, where it is a socket (systemd)
        self.reopen()

    def reopen(self) -> None:
        """Open the files anew (USR1, after rotation)."""
        for i, path in enumerate(self._paths):
            old, self._fds[i] = self._fds[i], self._open(path)
            if old > 2:
                os.close(old)

    def _open(self, path: str) -> int:
        if not path:
            return -1
        if path == "-":
            return self._standard_error()
        try:
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            print(f"pepperbus: log file {path}: {error.strerror}; logging to standard error", file=sys.stderr)
            return 2

    def _standard_error(self) -> int:
        """Standard error without waiting for its reader: one who stands still must not stop the bus.

        Its file flags belong to others as well, so a pipe is opened anew and a socket told at each line.
        """
        try:
            mode = os.fstat(2).st_mode
            if stat.S_ISFIFO(mode):
                fd = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                _widen(fd)
                return fd
            if stat.S_ISSOCK(mode) and self._journal is None:
                self._journal = _socket.socket(fileno=os.dup(2))
        except OSError:
            pass
        return 2

    def event(self, level: str, action: str, message: str = "", **fields: Any) -> None:
        """Write one event. `fields` are short facts (queue=, topic=, job=, pid=, error=)."""
        number = LEVELS[level]
        if number < self._level:
            return
        line = self._line(level, action, message, fields)
        self._write(self._fds[0], line)
        if number >= 30:
            self._write(self._fds[1], line)

    def _line(self, level: str, action: str, message: str, fields: dict[str, Any]) -> bytes:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now)) + ".%03d" % (now % 1 * 1000)
        if self._json:
            facts = {"time": stamp, "level": level, "process": self.process, "action": action}
            text = json.dumps({**facts, "message": message, **fields}, default=str, ensure_ascii=False)
            return text.encode(errors="backslashreplace") + b"\n"
        words = [stamp, level, self.process, f"action={action}", *(f"{k}={_quoted(v)}" for k, v in fields.items())]
        if message:
            words.append("- " + _one_line(message))
        return " ".join(words).encode(errors="backslashreplace") + b"\n"

    def _write(self, fd: int, line: bytes) -> None:
        if fd >= 0:
            try:
                if fd == 2 and self._journal is not None:
                    self._journal.send(line, _socket.MSG_DONTWAIT)
                else:
                    os.write(fd, line)
            except OSError:
                self.dropped += 1

    def info(self, action: str, message: str = "", **fields: Any) -> None:
        self.event("info", action, message, **fields)

    def warning(self, action: str, message: str = "", **fields: Any) -> None:
        self.event("warning", action, message, **fields)

    def error(self, action: str, message: str = "", **fields: Any) -> None:
        self.event("error", action, message, **fields)


def _widen(fd: int) -> None:
    """Room in the pipe for a burst of lines while its reader is busy."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)
    except OSError:
        pass  # the user's share of pipe memory is used up


def _one_line(text: str) -> str:
    """CR, LF, ANSI and other control characters spelled out: one event stays one line (no log injection)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _quoted(value: Any) -> str:
    text = _one_line(str(value))
    return '"' + text.replace('"', '\\"') + '"' if not text or any(c in ' "=' for c in text) else text
