"""Who the processes are and what they leave on disk: root given up for good, groups kept, nothing open to others."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from pepperbus.delivery.fastcgi_connect import Address
from pepperbus.master.lock import holders
from tests.fixtures.bus import NODE, Bus, Buses
from tests.fixtures.fpm import BINARY, Fpm
from tests.fixtures.http import answering, raw_server

OK = b"HTTP/1.1 200 OK\r\nCode: 200\r\nContent-Length: 2\r\n\r\nok"
QUEUE = """
open = loopback
storage = local
ping = off
contract = status
[topics]
    [[mail]]
        run = http
        url = {url}
"""
_PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 38, 65
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Account(NamedTuple):
    user: pwd.struct_passwd
    group: grp.struct_group  # one it belongs to beside its own


def account_with_a_group() -> Account:
    """A user of this machine that belongs to a further group, as the bus' user belongs to php-fpm's."""
    for group in grp.getgrall():
        for name in group.gr_mem:
            user = pwd.getpwnam(name)
            if user.pw_uid and user.pw_gid != group.gr_gid:
                return Account(user, group)
    pytest.skip("no user of this machine belongs to a second group")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Others may pass through it; pytest's own directories are closed to them."""
    made = Path(tempfile.mkdtemp(prefix="pepperbus-open-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def processes(bus: Bus) -> dict[str, dict[str, str]]:
    """The status of every process of the family by its title."""
    found = {}
    for pid in {*holders(bus.run_dir / "lock"), bus.pid}:
        with contextlib.suppress(OSError, psutil.NoSuchProcess):  # it has just ended
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            found[" ".join(psutil.Process(pid).cmdline())] = {
                key: value.strip() for key, _, value in (line.partition(":") for line in lines)
            }
    return found


def until(condition: Callable[[], object], bus: Bus) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, bus.log
        time.sleep(0.02)


@needs_root
def test_root_is_given_up_for_good_and_the_groups_are_kept(buses: Buses, open_directory: Path) -> None:
    """php-fpm's socket is open to a second group of the user alone: a job gets through it."""
    if BINARY is None:
        pytest.skip("php-fpm is not installed (apt-get install php8.2-fpm)")
    account = account_with_a_group()
    php = Fpm(open_directory).start()
    try:
        give_up_root(buses, php, account)
    finally:
        php.stop()


def give_up_root(buses: Buses, php: Fpm, account: Account) -> None:
    os.chown(php.socket, 0, account.group.gr_gid)
    php.socket.chmod(0o660)
    script = php.script("ok.php", "<?php header('Code: 200'); file_put_contents(__DIR__ . '/ran', 'x', FILE_APPEND);")
    node = NODE.replace("grace = 5s", f"grace = 5s\n    user = {account.user.pw_name}")
    node += f"[fastcgi]\n    [[php]]\n        address = {php.address}\n"
    node += "[log]\n    file = @DIR@/log/bus.log\n    errors = @DIR@/log/errors.log\n"
    topic = f"        run = fastcgi\n        pool = php\n        script = {script}\n"
    queue = f"open = loopback\nstorage = local\nping = off\n[topics]\n    [[mail]]\n{topic}"
    bus = buses.make(node, {"orders": queue})
    bus.directory.chmod(0o755)
    (bus.directory / "log").mkdir(mode=0o750)
    os.chown(bus.directory / "log", account.user.pw_uid, account.user.pw_gid)
    bus.start()
    bus.client().lpush("orders", "x")
    until(lambda: (php.scripts / "ran").exists(), bus)
    family = processes(bus)
    assert len(family) >= 5
    for title, facts in family.items():
        assert facts["Uid"].split() == [str(account.user.pw_uid)] * 4, title
        assert facts["Gid"].split() == [str(account.user.pw_gid)] * 4, title
        assert str(account.group.gr_gid) in facts["Groups"].split(), title
        assert "0" not in facts["Groups"].split(), title
        assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0, title
    for path in (bus.run_dir, bus.directory / "data", bus.directory / "log"):
        for file in (path, *path.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # written anew and renamed meanwhile
                assert file.lstat().st_uid == account.user.pw_uid, file
    log = bus.directory / "log" / "bus.log"
    log.rename(log.with_suffix(".1"))
    bus.send(signal.SIGUSR1)
    until(lambda: log.exists() and "reopened" in log.read_text(), bus)
    assert bus.cli("reload").returncode == 0
    assert bus.stop() == 0


@needs_root
def test_a_user_who_may_not_write_there_is_told_before_anything_starts(buses: Buses) -> None:
    account = account_with_a_group()
    bus = buses.make(NODE.replace("grace = 5s", f"grace = 5s\n    user = {account.user.pw_name}"))
    bus.directory.chmod(0o755)
    (bus.directory / "data").mkdir(mode=0o700)
    (bus.directory / "data" / "jobs").mkdir(mode=0o700)
    bus.start(wait=False)
    assert bus.wait() == 3
    assert f"chown -R {account.user.pw_name}" in bus.log


def test_nothing_on_disk_is_open_to_others(buses: Buses) -> None:
    """Directories 0750, files and sockets 0640 or less for others: whatever umask the bus was started with."""
    with raw_server(answering(OK)) as server:
        node = NODE.replace("listen = 127.0.0.1:@PORT@", "listen = 127.0.0.1:@PORT@, unix:@DIR@/run/gateway.sock")
        node += "[log]\n    file = @DIR@/bus-own.log\n    errors = @DIR@/errors.log\n"
        bus = buses.make(node, {"orders": QUEUE.format(url=server.url)})
        bus.start(before=lambda: os.umask(0) and None)
        bus.client().lpush("orders", "x")
        until(lambda: server.requests, bus)
        bus.wait_replaced("gateway.0", bus.kill("gateway.0"))
        seen = []
        for top in (bus.run_dir, bus.directory / "data", bus.directory / "bus-own.log", bus.directory / "errors.log"):
            for path in (top, *top.rglob("*")):
                with contextlib.suppress(FileNotFoundError):  # written anew and renamed meanwhile
                    mode = path.lstat().st_mode
                seen.append(path)
                assert not mode & 0o007, f"{path} {stat.filemode(mode)}"
                assert stat.S_ISDIR(mode) or stat.S_ISSOCK(mode) or not mode & 0o020, f"{path} {stat.filemode(mode)}"
    names = " ".join(str(path) for path in seen)
    for word in ("gateway.sock", "control", "lock", "journal", "stats", "data.mdb"):
        assert word in names, names


def test_it_runs_where_no_memory_may_become_code(buses: Buses) -> None:
    """What MemoryDenyWriteExecute= and NoNewPrivileges= of the unit forbid, forbidden by the kernel itself."""

    def forbid() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")

    if ctypes.CDLL(None).prctl(66, 0, 0, 0, 0) < 0:
        pytest.skip("this kernel has no PR_SET_MDWE (it came with 6.3)")
    with raw_server(answering(OK)) as server:
        bus = buses.make(queues={"orders": QUEUE.format(url=server.url)})
        bus.start(before=forbid)
        bus.client().lpush("orders", "x")
        until(lambda: server.requests, bus)
        assert json.loads(bus.cli("--json", "status").stdout)["running"]
        assert bus.stop() == 0


@needs_root
@pytest.mark.parametrize(("mode", "cure"), [(0o660, "usermod -aG www-data nobody"), (0o600, "listen.group")])
def test_a_closed_socket_names_people_and_the_cure(open_directory: Path, mode: int, cure: str) -> None:
    path = open_directory / "php.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)
        os.chown(path, 0, grp.getgrnam("www-data").gr_gid)
        path.chmod(mode)
        groups = os.getgroups()
        os.setgroups([])
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
        try:
            address = Address(f"unix:{path}")
            _, refused = address.open()
            told = address.explain(refused)
        finally:
            os.seteuid(0)
            os.setgroups(groups)
    assert "of root group www-data; we are nobody" in told
    assert cure in told
