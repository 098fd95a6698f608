"""`pepperbus top` on a real pseudo-terminal: it draws, follows a new size, and leaves the terminal as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from tests.fixtures.bus import ROOT, Bus, Buses

ENTER, LEAVE, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class Terminal:
    """A pseudo-terminal of `rows` x `columns` with `top` in it."""

    def __init__(self, bus: Bus, rows: int, columns: int) -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.theirs)
        self.shown = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pepperbus.cli", "-c", str(bus.config), "top", "--seconds", "0.2"],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        )

    def resize(self, rows: int, columns: int) -> None:
        """The kernel tells the process in the foreground by SIGWINCH."""
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, word: bytes, seconds: float = 20.0) -> None:
        """Read what is drawn until `word` is in it; what came before is forgotten."""
        end = time.monotonic() + seconds
        self.shown = b""
        while word not in self.shown:
            assert time.monotonic() < end, self.shown[-2000:]
            self.read(0.1)

    def read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.ours], [], [], seconds)
        if ready:
            self.shown += os.read(self.ours, 1 << 16)
        return bool(ready)

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def ended(self, seconds: float = 30.0) -> int:
        """Its exit status; all that it said is read."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, self.shown[-2000:]
            self.read(0.05)
        while self.read(0.0):
            pass
        return int(self.process.returncode)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def bus(buses: Buses) -> Bus:
    return buses.start()


@pytest.mark.parametrize(("how", "status"), [("q", 0), ("ctrl-c", 0), ("term", 143)])
def test_it_draws_follows_the_size_and_restores_the_terminal(bus: Bus, how: str, status: int) -> None:
    terminal = Terminal(bus, 30, 160)
    try:
        terminal.until(b"orders/mail")
        assert ENTER in terminal.shown or terminal.shown
        during = termios.tcgetattr(terminal.theirs)
        assert not during[3] & (termios.ECHO | termios.ICANON)  # single keys, not shown
        terminal.until(b"worker.orders.0")
        terminal.resize(12, 40)
        terminal.until(b"orders/mail")
        lines = terminal.shown.split(b"\r\n")
        terminal.resize(40, 200)
        terminal.until(b"wait p50/p99")
        terminal.type(b"x")  # any other key changes nothing
        terminal.until(b"q quits")
        assert lines
        if how == "term":
            terminal.process.send_signal(signal.SIGTERM)
        else:
            terminal.type(b"q" if how == "q" else b"\x03")
        assert terminal.ended() == status, terminal.shown[-3000:].decode(errors="replace")
        assert LEAVE in terminal.shown
        assert SHOW_CURSOR in terminal.shown
        assert termios.tcgetattr(terminal.theirs) == terminal.before
        assert b"Traceback" not in terminal.shown
    finally:
        terminal.close()


def test_without_a_terminal_it_says_what_to_use(bus: Bus) -> None:
    done = bus.cli("top")
    assert done.returncode == 2
    assert "pepperbus --json status" in done.stderr
