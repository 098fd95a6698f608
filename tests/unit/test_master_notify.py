"""The master speaks to its supervisor, and is never kept by one that does not listen."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from pepperbus.master.notify import Notifier


def test_a_supervisor_that_does_not_read_does_not_keep_the_master(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        full = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        full.setblocking(False)
        with full, pytest.raises(BlockingIOError):
            while True:
                full.sendto(b"x", str(tmp_path / "notify"))
        began = time.monotonic()
        notifier.ready("up")
        assert time.monotonic() - began < 5.0
        supervisor.recv(16)
        notifier.ready("heard")
        supervisor.setblocking(False)
        heard = b""
        with pytest.raises(BlockingIOError):
            while True:
                heard = supervisor.recv(100)
        assert heard == b"READY=1\nSTATUS=heard"
