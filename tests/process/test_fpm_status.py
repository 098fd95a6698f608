"""php-fpm's own status page from a real php-fpm, also while all its children are busy; else one line says why."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from pepperbus.delivery import fpm_status
from pepperbus.errors import NotReachable


def test_its_figures_come_also_while_no_child_is_free(fpm: Any, tmp_path: Path) -> None:
    status = tmp_path / "status.sock"
    server = fpm(children=1, pool={"pm.status_path": "/status", "pm.status_listen": str(status)})
    found = fpm_status.ask(f"unix:{status}/status")
    assert found["total processes"] == 1
    assert found["process manager"] == "static"
    with socket.socket(socket.AF_UNIX) as holder:  # a connection that says nothing takes the only child
        holder.connect(str(server.socket))
        assert fpm_status.ask(f"unix:{status}/status")["pool"] == found["pool"]


def test_a_pool_without_the_page_says_what_to_set(fpm: Any) -> None:
    server = fpm()
    with pytest.raises(NotReachable, match=r"pm\.status_path = /status"):
        fpm_status.ask(f"unix:{server.socket}/status")


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotReachable, match="No such file"):
        fpm_status.ask(f"unix:{tmp_path}/none.sock/status")
