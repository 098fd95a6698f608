"""php-fpm's own status page from a real php-fpm, also while all its children are busy; else one line says why."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from pepperbus.config.model import FastcgiPool
from pepperbus.delivery import fpm_status, unix_line
from pepperbus.errors import NotReachable
from pepperbus.wire import fastcgi
from tests.fixtures.fpm import wait_until


def test_its_figures_come_also_while_no_child_is_free(fpm: Any, tmp_path: Path) -> None:
    status = tmp_path / "status.sock"
    server = fpm(children=1, pool={"pm.status_path": "/status", "pm.status_listen": str(status)})
    found = fpm_status.ask(f"unix:{status}/status")
    assert found["total processes"] == 1
    assert found["process manager"] == "static"
    with socket.socket(socket.AF_UNIX) as holder:  # a connection that says nothing takes the only child
        holder.connect(str(server.socket))
        assert fpm_status.ask(f"unix:{status}/status")["pool"] == found["pool"]


def test_kept_connections_make_no_more_children_than_there_are(fpm: Any, tmp_path: Path) -> None:
    """php-fpm's sums count each request of a kept connection anew until it looks again, once a second."""
    status = tmp_path / "status.sock"
    server = fpm(children=1, pool={"pm.status_path": "/status", "pm.status_listen": str(status)})
    script = server.script("ok.php", "<?php echo 1;")
    params = fastcgi.pairs({"SCRIPT_FILENAME": script, "REQUEST_METHOD": "GET"}.items())
    with socket.socket(socket.AF_UNIX) as kept:
        kept.connect(str(server.socket))
        for _ in range(30):
            kept.sendall(fastcgi.opening(params, True) + fastcgi.closing(b""))
            assert b"1" in fpm_status._reply(kept)[2]
            found = fpm_status.ask(f"unix:{status}/status")
            assert (found["active processes"], found["total processes"]) == (1, 1)
            assert found["max active processes"] <= 1


def test_how_many_wait_in_its_line(fpm: Any, tmp_path: Path) -> None:
    """php-fpm says it of TCP sockets; of a unix socket it says 0, and the kernel is asked."""
    for tcp in (False, True):
        status = tmp_path / f"status{tcp}.sock"
        server = fpm(tcp=tcp, children=1, pool={"pm.status_path": "/status", "pm.status_listen": str(status)})
        pool = FastcgiPool("php", server.address, status=f"unix:{status}/status")
        # The connection that found out whether it listens may still lie there.
        wait_until(lambda pool=pool: fpm_status.of(pool)["listen queue"] == 0, 20, lambda: "a line of nobody")
        with contextlib.ExitStack() as held:
            for _ in range(4):
                one = held.enter_context(socket.socket(socket.AF_INET if tcp else socket.AF_UNIX))
                one.connect(("127.0.0.1", server.port) if tcp else str(server.socket))
            wait_until(lambda pool=pool: fpm_status.of(pool)["listen queue"] == 3, 20, lambda: "no line of three")
    assert unix_line.waiting(f"{tmp_path}/none.sock") is None


def test_a_pool_without_the_page_says_what_to_set(fpm: Any) -> None:
    server = fpm()
    with pytest.raises(NotReachable, match=r"pm\.status_path = /status"):
        fpm_status.ask(f"unix:{server.socket}/status")


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotReachable, match="No such file"):
        fpm_status.ask(f"unix:{tmp_path}/none.sock/status")
