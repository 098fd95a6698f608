"""A disk that fails under a running gateway: fsync ends with EIO (injected by strace), files may not grow any more."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.process.gateway_running import Wire, running, spec

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
            tracer.wait(30)
        wait_until_well(one)
        assert gateway.process.poll() is None


def test_files_that_may_not_grow_are_an_answer(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: what is over the limit is refused, nobody dies of SIGXFSZ, and it passes."""
    with running(spec(tmp_path, storages={"local": {"type": "embedded"}}, durability="power")) as gateway:
        one = gateway.connect()
        assert one.ask("AUTH", "new:pw") == b"+OK\r\n"
        assert one.ask("LPUSH", "new", "before") == b":1\r\n"
        before = resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE)
        size = (tmp_path / "data" / "local" / "data.mdb").stat().st_size
        resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (size + (1 << 20), before[1]))
        said = [one.ask("LPUSH", "new", b"x" * 100_000)[:5] for _ in range(30)]
        assert set(said) <= {b":1\r\n", b"-UNKN", b"-TRYA"}
        assert said[-1] != b":1\r\n", "3 MB went into a file that may grow by 1 MB"
        stored = said.count(b":1\r\n") + 1
        resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, before)
        wait_until_well(one)
        assert int(one.ask("LLEN", "new")[1:]) >= stored + 1
        assert gateway.process.poll() is None


def wait_until_well(one: Wire) -> None:
    until = time.monotonic() + 40
    while one.ask("LPUSH", "new", "after") != b":1\r\n":
        assert time.monotonic() < until, "the disk is well again, and pushes are still refused"
