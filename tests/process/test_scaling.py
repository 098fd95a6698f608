"""Ranges in a running bus: a real consumer that is slow, the ticker's word, the workers' places, the master's processes."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pepperbus.wire import fastcgi
from tests.fixtures.bus import Bus, Buses
from tests.fixtures.fpm import Fpm
from tests.fixtures.http import RawServer, Talk, raw_server, read_request
from tests.process.bus_rig import node, push, until

ROLES = dict.fromkeys(("gateway", "worker"), "tests.process.family_roles:main")
OK = b"HTTP/1.1 200 OK\r\nCode: 200\r\nContent-Length: 0\r\n\r\n"
QUEUE = """\
open = loopback
password = secret
storage = local
workers = {workers}
[topics]
    [[mail]]
        run = http
        url = {url}
        ping = off
        concurrency = 1..4
"""


def test_workers_follow_what_the_master_is_told(buses: Buses) -> None:
    bus = buses.start(queues={"orders": QUEUE.format(workers="1..3", url="http://127.0.0.1:9/")}, roles=ROLES)

    def names(n: int) -> None:
        wanted = [f"worker.orders.{i}" for i in range(n)]
        bus.wait_for(lambda status: sorted(p["name"] for p in status["processes"] if p["role"] == "worker") == wanted)

    names(1)
    assert bus.ask("scale", group="orders", workers=9)["ok"]
    names(3)
    assert bus.ask("scale", group="orders", workers=2)["ok"]
    names(2)
    assert bus.ask("reload")["ok"]
    names(2)


class Slow:
    """Takes 0.25 s for each request, and knows how many it had at once."""

    def __init__(self) -> None:
        self.now = self.most = self.began = 0
        self._lock = threading.Lock()

    def talk(self) -> Talk:
        def serve(conn, server: RawServer, number: int) -> None:  # type: ignore[no-untyped-def]
            while read_request(conn, number) is not None:
                with self._lock:
                    self.now += 1
                    self.most = max(self.most, self.now)
                time.sleep(0.25)  # the job's own work
                with self._lock:
                    self.began = self.began or self.most  # as many as came while the first one ran
                    self.now -= 1
                conn.sendall(OK)

        return serve


def test_concurrency_follows_the_backlog_and_what_the_target_says(
    buses: Buses, fpm: Callable[..., Fpm], tmp_path: Path
) -> None:
    """One topic begins low and gets more; php-fpm's only child is somebody else's, and its status page says so."""
    slow, status = Slow(), tmp_path / "status.sock"
    php = fpm(children=1, pool={"pm.status_path": "/status", "pm.status_listen": str(status)})
    jam = f"script = {php.script('wire.php')}\nrun = fastcgi\npool = php\nping = off\nconcurrency = 2..4\n"
    with raw_server(slow.talk()) as server, socket.socket(socket.AF_UNIX) as other:
        other.connect(str(php.socket))
        params = {"SCRIPT_FILENAME": php.script("long.php", "<?php sleep(100);"), "REQUEST_METHOD": "GET"}
        other.sendall(fastcgi.opening(fastcgi.pairs(params.items()), False) + fastcgi.closing(b""))
        queues = {
            "orders": QUEUE.format(workers="1..2", url=server.url),
            "jam": f"open = loopback\npassword = secret\nstorage = local\n{jam}[topics]\n[[mail]]\n",
        }
        bus = buses.start(node(php, pool=f"status = unix:{status}/status\nguard = off"), queues)
        push(bus, *(f"job {i}" for i in range(400)))
        push(bus, *(f"job {i}" for i in range(20)), key="jam/x")
        until(lambda: slow.most, lambda most: most > 1, bus)
        until(lambda: stands(bus, "jam/mail")["why"], lambda why: "php-fpm" in why, bus)
        status_page = bus.cli("status", "--seconds", "0").stdout
        assert slow.began == 1
        assert re.search(r"orders/mail +concurrency +[234] of 1\.\.4: \w", status_page), status_page
        assert re.search(r"orders +workers +1 of 1\.\.2: \w", status_page), status_page  # they are not what is short
        found = stands(bus, "jam/mail")
        assert re.fullmatch(r"less: php-fpm has no idle child, [12] wait in its line", found["why"])
        assert found["now"] == 2


def stands(bus: Bus, topic: str) -> dict[str, Any]:
    file = bus.run_dir / "scaling.json"
    told = json.loads(file.read_text())["topics"] if file.exists() else {}
    return dict(told.get(topic, {"why": ""}))
