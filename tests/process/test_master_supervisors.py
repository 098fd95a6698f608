"""The two that run the bus for others: systemd (its notify protocol, the unit's text) and a real supervisord."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.fixtures.bus import ROOT, Bus, Buses, is_living

ROLES = dict.fromkeys(("gateway", "worker", "ticker", "web"), "tests.process.family_roles:main")
_PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 38, 65


def test_the_notify_protocol(buses: Buses) -> None:
    bus = buses.make(roles=ROLES)
    bus.start(wait=False, env={"WATCHDOG_USEC": "400000"})
    lines = bus.wait_notified("READY=1")
    assert "STATUS=4 processes, 1 queue, generation 0" in lines
    for _ in range(3):
        bus.wait_notified("WATCHDOG=1", timeout=20)
    bus.send(signal.SIGHUP)
    assert any(line.startswith("MONOTONIC_USEC=") for line in bus.wait_notified("RELOADING=1"))
    assert "STATUS=4 processes, 1 queue, generation 1" in bus.wait_notified("READY=1")
    environ = psutil.Process(bus.pids()["mold"]).environ()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & environ.keys()
    bus.send(signal.SIGTERM)
    bus.wait_notified("STOPPING=1")
    assert bus.wait() == 0


def test_the_unit_file_is_flawless(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed here")
    text = (ROOT / "etc/systemd/pepperbus.service").read_text()
    unit = tmp_path / "pepperbus.service"
    unit.write_text(text.replace("/opt/pepperbus/venv/bin/pepperbus", str(Path(sys.executable).parent / "pepperbus")))
    done = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=30)
    # It says unknown keys only on standard error and exits with 0 all the same.
    assert (done.returncode, done.stderr) == (0, "")


def test_the_family_lives_without_writable_code_and_new_privileges(buses: Buses) -> None:
    """MemoryDenyWriteExecute and NoNewPrivileges of the unit, as the kernel itself can enforce them."""
    libc = ctypes.CDLL(None)
    if libc.prctl(_PR_SET_MDWE + 1, 0, 0, 0, 0) < 0:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")

    def harden() -> None:
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0):
            os._exit(99)

    bus = buses.make()
    bus.start(before=harden)
    assert bus.status()["ready"]
    client = bus.client()
    assert client.lpush("orders", "a job") == 1
    assert bus.stop() == 0


class Supervisor:
    """A real supervisord with the repository's file; only the program's command is this test's."""

    def __init__(self, bus: Bus) -> None:
        self.conf = bus.directory / "supervisord.conf"
        text = (ROOT / "supervisord.conf").read_text()
        command = f"command = {sys.executable} -m pepperbus.cli -c {bus.config} serve"
        old = next(line for line in text.splitlines() if line.startswith("command = "))
        self.conf.write_text(text.replace(old, command) + f'environment = PYTHONPATH="{ROOT}"\n')
        (bus.directory / "var").mkdir()
        self.process = subprocess.Popen(
            ["/usr/bin/supervisord", "-c", str(self.conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def ctl(self, *words: str) -> str:
        done = subprocess.run(
            ["/usr/bin/supervisorctl", "-c", str(self.conf), *words], capture_output=True, text=True, timeout=90
        )
        return done.stdout

    def wait_for(self, condition: Callable[[str], bool], timeout: float = 40.0) -> str:
        until = time.monotonic() + timeout
        said = ""
        while time.monotonic() < until:
            said = self.ctl("status", "pepperbus")
            if condition(said):
                return said
            time.sleep(0.1)
        raise AssertionError(said)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def supervised(buses: Buses) -> Iterator[tuple[Bus, Supervisor]]:
    if not Path("/usr/bin/supervisord").exists():
        pytest.skip("Debian's supervisor is not installed here")
    bus = buses.make()
    supervisor = Supervisor(bus)
    yield bus, supervisor
    supervisor.close()


def test_supervisord_starts_restarts_and_stops_the_bus(supervised: tuple[Bus, Supervisor]) -> None:
    bus, supervisor = supervised
    supervisor.wait_for(lambda said: "RUNNING" in said)
    bus.wait_for(lambda status: status["ready"])
    master = bus.status()["pid"]
    os.kill(master, signal.SIGKILL)
    supervisor.wait_for(lambda said: "RUNNING" in said and f"pid {master}," not in said)
    again = bus.wait_for(lambda status: status["ready"])
    assert again["pid"] != master
    family = [psutil.Process(pid) for pid in bus.pids().values()]
    assert "stopped" in supervisor.ctl("stop", "pepperbus")
    assert not [process for process in family if is_living(process)]
    # What cannot boot is not tried again and again.
    bus.write_queue("orders", "nonsense = 1\n")
    supervisor.ctl("start", "pepperbus")
    supervisor.wait_for(lambda said: "EXITED" in said or "FATAL" in said)
