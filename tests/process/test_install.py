"""`scripts/install` and the README's ten lines, typed as they stand, on a real systemd beside Debian's own php-fpm."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import pytest
import redis

from tests.fixtures.bus import ROOT
from tests.fixtures.systemd import Systemd

CONF = "/etc/pepperbus/pepperbus.conf"
SCRIPT = "/var/www/consume.php"
LOG = "/var/log/pepperbus.log"
#: What the README's second step leaves of a worker; what it did is in a file.
CONSUMER = """<?php
if (($_POST['type'] ?? '') === 'ping') { header('Consume-Topics: orders/mail'); header('Code: 200'); exit; }
foreach (json_decode($_POST['jobs'], true) as $job) {
    file_put_contents('/var/tmp/consumed', $job['content'] . "\\n", FILE_APPEND);
}
header('Code: 200');
"""


def debians_fpm() -> Path:
    found = sorted(Path("/lib/systemd/system").glob("php*-fpm.service"))
    if not found:
        pytest.skip("Debian's php-fpm with its unit is not installed")
    return found[-1]


def usual_ports_are_free() -> bool:
    for port in (12017, 19840):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return False
    return True


@pytest.fixture
def machine(systemd: Systemd) -> Systemd:
    """Debian's php-fpm runs, a consumer lies where the README has it, and there is a clone."""
    if not usual_ports_are_free():
        pytest.skip("another bus listens on the usual ports")
    unit = debians_fpm()
    for command in (
        ["cp", str(unit), "/etc/systemd/system/"],
        ["mkdir", "-p", "/run/php", "/usr/local/src"],
        [
            "bash",
            "-c",
            f"cd {ROOT} && tar c --exclude=./.venv --exclude=./.git --exclude=./var . | tar x -C /usr/local/src",
        ],
        ["systemctl", "daemon-reload"],
        ["systemctl", "start", unit.stem],
    ):
        done = systemd.run(*command)
        assert done.returncode == 0, f"{command}: {done.stderr}{systemd.log_text[-2000:]}"
    systemd.write(SCRIPT, CONSUMER)
    systemd.write("/etc/systemd/system/pepperbus.service.d/no-journal.conf", f"[Service]\nStandardError=append:{LOG}\n")
    return systemd


def typed(machine: Systemd, *words: str) -> str:
    """A command that must work, typed outside the clone; what it says."""
    done = machine.run(*words)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}\n{machine.run('tail', LOG).stdout}"
    return done.stdout


def consumed(machine: Systemd) -> list[str]:
    return machine.run("cat", "/var/tmp/consumed").stdout.split()


@pytest.mark.timeout(300)
def test_installed_by_script_and_run_by_systemd(machine: Systemd) -> None:
    said = typed(machine, "bash", "/usr/local/src/scripts/install")
    assert "user pepperbus is in group www-data" in said
    assert machine.show("ActiveState") == "active"
    assert "1 queue" not in machine.show("StatusText")
    master = machine.show("MainPID")

    # The README's lines 3 to 5 and 7.
    typed(machine, "pepperbus", "queue", "add", "orders", "mail/run=fastcgi", "mail/pool=php", f"mail/script={SCRIPT}")
    assert "1 queue" in machine.show("StatusText")
    typed(machine, "pepperbus", "ping", "orders/mail")
    typed(machine, "pepperbus", "send", "orders/mail", "sent")
    password = re.search(r'password = "?([^"\n]+)', typed(machine, "cat", "/etc/pepperbus/queues.d/orders.conf"))
    assert password
    client = redis.Redis("127.0.0.1", 12017, username="orders", password=password[1], retry=None, socket_timeout=20)
    client.lpush("orders", "pushed")
    machine.until(lambda: consumed(machine) == ["sent", "pushed"])
    assert "orders/mail" in typed(machine, "pepperbus", "status")

    # systemd's own verbs. A reload and an upgrade keep the process, a crash is mended, a second install updates.
    typed(machine, "systemctl", "reload", "pepperbus")
    assert machine.show("MainPID") == master
    typed(machine, "pepperbus", "upgrade")
    assert (machine.show("MainPID"), machine.show("NRestarts")) == (master, "0")
    client.lpush("orders", "after-upgrade")
    machine.until(lambda: "after-upgrade" in consumed(machine))
    typed(machine, "systemctl", "kill", "--kill-whom=main", f"--signal={signal.SIGKILL.value}", "pepperbus")
    machine.until(lambda: machine.show("MainPID") not in (master, "0") and machine.show("ActiveState") == "active")
    assert machine.show("NRestarts") == "1"
    client.connection_pool.disconnect()
    client.lpush("orders", "after-crash")
    machine.until(lambda: "after-crash" in consumed(machine))
    client.close()

    typed(machine, "systemctl", "stop", "pepperbus")
    assert machine.show("Result") == "success"
    # What cannot boot is said in one line and not tried again and again.
    machine.run("bash", "-c", f"echo nonsense = 1 >> {CONF}")
    assert machine.systemctl("start", "pepperbus") != 0
    assert machine.show("ExecMainStatus") == "3"
    assert machine.show("ActiveState") == "failed"
    assert "nonsense" in machine.run("tail", "-n", "3", LOG).stdout
