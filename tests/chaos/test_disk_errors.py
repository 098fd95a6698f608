"""A disk that fails: fsync of the storage's file ends with EIO for a while, injected by strace into a running gateway."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.process.gateway_running import running, spec

STRACE = shutil.which("strace")
WHY = "strace is not installed" if not STRACE else "" if os.geteuid() == 0 else "tracing another process needs root"


@pytest.mark.skipif(bool(WHY), reason=WHY or "possible")
def test_a_push_that_could_not_be_synced_is_never_called_stored(tmp_path: Path) -> None:
    with running(spec(tmp_path, storages={"local": {"type": "embedded"}}, durability="power")) as gateway:
        one = gateway.connect()
        assert one.ask("AUTH", "new:pw") == b"+OK\r\n"
        assert one.ask("LPUSH", "new", "before") == b":1\r\n"
        trace = tmp_path / "strace"
        command = [str(STRACE), "-f", "-o", str(trace), "-p", str(gateway.pid)]
        tracer = subprocess.Popen([*command, "-e", "inject=fdatasync,fsync,msync:error=EIO"], stderr=subprocess.PIPE)
        try:
            assert tracer.stderr is not None
            assert b"attached" in tracer.stderr.readline()
            for _ in range(5):
                assert one.ask("LPUSH", "new", "while it fails")[:5] in (b"-UNKN", b"-TRYA")
            assert "EIO" in trace.read_text(), "nothing was injected: the storage syncs in another way now"
        finally:
            tracer.terminate()
            tracer.wait(10)
        until = time.monotonic() + 10
        while one.ask("LPUSH", "new", "after") != b":1\r\n":
            assert time.monotonic() < until, "the disk is well again, and pushes are still refused"
        assert gateway.process.poll() is None
