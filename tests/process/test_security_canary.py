"""Secrets never print: a real bus with a canary in every setting that holds a secret, driven hard, then searched.

Searched: every log line, every command's output, every answer of the sidecar and the control socket, process titles and
environments, the journal, the statistics, whatever lies in data_dir and run_dir.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from pepperbus.config.secret import Secret
from pepperbus.master.lock import holders
from tests.fixtures.bus import NODE, ROOT, Bus, Buses
from tests.fixtures.fpm import Fpm
from tests.fixtures.http import answering, raw_server
from tests.fixtures.redis import Redis

FAILED = b"HTTP/1.1 500 Oops\r\nCode: 500\r\nError-Code: E7\r\nContent-Length: 4\r\n\r\nboom"


def canary(place: str) -> str:
    return f"cnry{place}7f3a9c"


PLACES = (
    "queue", "topic", "sign", "header", "reference", "environment", "param", "login", "redis", "plain", "guess", "typo",
    "badsign", "badurl", "badlogin", "shortlogin", "quote",
)  # fmt: skip
_STORAGES = """\
    [[far]]
        type = redis
        url = redis://:{redis}@127.0.0.1:{port}/0
        store_timeout = 500ms
[logins]
    shop = {login}, push|pop, "*"
[fastcgi]
    [[php]]
        address = {php}
"""
_ORDERS = """\
password = {queue}
system = canaries
[topics]
    [[mail]]
        storage = far
        run = http
        url = {url}
        attempts = 2
        backoff = fixed 100ms
        contract = status
        password = {topic}
        sign = {sign}
        [[[headers]]]
            Authorization = Bearer {header}
            X-Plain-Name = file:../secret.txt
    [[script]]
        storage = local
        run = fastcgi
        pool = php
        script = {script}
        attempts = 1
        ping = off
        [[[params]]]
            APP_SECRET = {param}
"""
_BILLS = (
    "password = env:BILLS_PASSWORD\nstorage = local\n[topics]\n    [[mail]]\n        run = http\n        url = {url}\n"
)
_ENDED = b"ended with "
_COMMANDS = """
import json, sys
from pepperbus.cli import main
for words in json.loads(sys.argv[1]):
    print("ended with", main(words), file=sys.stderr)
"""
#: Mistakes that stand beside a secret, or in it: what is said of them must not hold it.
_MISTAKES = {
    "queue": ["passwort = {typo}", "password = {queue}, {typo}", 'password = "{quote}" x', "timeout = 5"],
    "topic": [
        "sign = whsec_{badsign}!",
        "        sing = {typo}",
        "        [[[headers]]]\n            Bad Name = {header}",
    ],
    "node": [
        "[storages]\n    [[far]]\n        url = http://u:{badurl}@h/0",
        "[logins]\n    a = {badlogin}, {shortlogin}, x",
    ],
}


class Stage:
    """The bus and everything it ever said."""

    def __init__(self, bus: Bus, values: dict[str, str], server: Redis, facts: dict[str, object]) -> None:
        self.bus, self.values, self.server, self.facts = bus, values, server, facts
        self.said: dict[str, bytes] = {}

    def cli(self, *commands: list[str], code: int | None = None) -> None:
        """Run commands as an operator would, one after the other in one process; keep what they print."""
        asked = [["-c", str(self.bus.config), *words] for words in commands]  # of two -c the last counts
        done = subprocess.run(
            [sys.executable, "-c", _COMMANDS, json.dumps(asked)],
            capture_output=True,
            env={**os.environ, "BILLS_PASSWORD": canary("environment"), "PYTHONPATH": str(ROOT)},
            timeout=110,
            stdin=subprocess.DEVNULL,
            cwd=self.bus.directory,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said.decode()
        assert said.count(_ENDED) == len(commands), said.decode()
        if code is not None:
            assert said.count(b"%s%d\n" % (_ENDED, code)) == len(commands), said.decode()
        self.said[f"pepperbus {commands} ({len(self.said)})"] = said

    def get(self, path: str) -> None:
        url = f"http://127.0.0.1:{self.bus.web_port}{path}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.bus.token()}"})
        try:
            with urllib.request.urlopen(request, timeout=40) as answer:
                body = answer.read(1 << 20)
        except urllib.error.HTTPError as error:
            body = error.read()
        self.said[f"GET {path} ({len(self.said)})"] = body

    def processes(self) -> list[psutil.Process]:
        found = []
        for pid in [*holders(self.bus.run_dir / "lock"), self.bus.pid]:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def look_at_processes(self) -> None:
        """Titles and environments, as ps and /proc show them."""
        for process in self.processes():
            for name in ("cmdline", "comm", "environ"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                    shown = Path(f"/proc/{process.pid}/{name}").read_bytes()
                    self.said[f"/proc/{process.pid}/{name} ({len(self.said)})"] = shown

    def look_at_files(self) -> None:
        """Everything it left behind but its configuration; the kept versions of that are for nobody else's eyes."""
        for path in self.bus.directory.rglob("*"):
            if path.is_file() and "versions" in path.parts:
                assert not path.stat().st_mode & 0o077, path
            elif path.is_file() and "queues.d" not in path.parts and path.name not in ("pepperbus.conf", "secret.txt"):
                self.said[str(path.relative_to(self.bus.directory))] = path.read_bytes()

    def found(self) -> list[str]:
        """`place of the secret, where it was said` of every one that got out."""
        return [
            f"{place}: {where}: …{data[max(at - 60, 0) : at + 40]!r}"
            for where, data in self.said.items()
            for place, value in self.values.items()
            # An env: reference is in the environment, of course; docs/SECURITY.md says what that means.
            if (at := data.find(value.encode())) >= 0 and not (place == "environment" and "/environ" in where)
        ]


@pytest.fixture
def stage(buses: Buses, fpm: Callable[..., Fpm], start_redis: Callable[..., Redis]) -> Iterator[Stage]:
    values = {place: canary(place) for place in PLACES}
    server = start_redis(appendonly="yes", appendfsync="everysec")
    server.ask("CONFIG", "SET", "requirepass", values["redis"])
    php = fpm()
    script = php.script("fail.php", "<?php error_log('a note'); throw new RuntimeException('no such order');")
    with raw_server(answering(FAILED)) as consumer:
        facts = {**values, "port": server.port, "php": php.address, "url": consumer.url, "script": script}
        queues = {"orders": _ORDERS.format(**facts), "bills": _BILLS.format(**facts)}
        bus = buses.make(_node(facts), queues)
        (bus.directory / "secret.txt").write_text(values["reference"] + "\n")
        bus.start(env={"BILLS_PASSWORD": values["environment"]})
        yield Stage(bus, values, server, facts)


def _node(facts: dict[str, object], more: str = "") -> str:
    return NODE + _STORAGES.format(**facts) + "[log]\n    errors = errors.log\n    level = info\n" + more


def test_no_canary_ever_sings(stage: Stage) -> None:
    bus = stage.bus
    _log_in(stage)
    _work(stage)
    _ask_everything(stage)
    stage.look_at_processes()
    _break_the_configuration(stage)
    _break_the_world(stage)
    stage.look_at_processes()
    assert bus.stop(timeout=30) == 0
    stage.look_at_files()
    stage.said["log"] = bus.log.encode()
    assert {"bus.log", "errors.log"} <= stage.said.keys()
    assert "login" in bus.log
    assert "reload_refused" in bus.log
    assert stage.found() == []


def test_the_search_would_find_them(stage: Stage) -> None:
    """The same search over the configuration finds every canary that stands there."""
    stage.said = {str(path): path.read_bytes() for path in stage.bus.directory.rglob("*.conf")}
    stage.said["secret.txt"] = (stage.bus.directory / "secret.txt").read_bytes()
    places = {line.partition(":")[0] for line in stage.found()}
    assert places == {"queue", "topic", "sign", "header", "param", "login", "redis", "reference"}


def test_a_secret_never_prints() -> None:
    secret = Secret(canary("plain"))
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>9}",
        "%s" % secret,
        f"{secret}",
        repr([secret]),
    ]
    assert not [text for text in shown if canary("plain") in text]


def _log_in(stage: Stage) -> None:
    bus, values = stage.bus, stage.values
    for name, password in (("orders", "queue"), ("orders/mail", "topic"), ("shop", "login"), ("bills", "environment")):
        assert bus.client(name, values[password]).ping()
    for words in (
        ("AUTH", f"orders:{values['guess']}"),
        ("AUTH", "orders", values["guess"]),
        ("AUTH", values["guess"]),
    ):
        with pytest.raises(redis.RedisError):
            bus.client().execute_command(*words)
    with pytest.raises(redis.RedisError):
        bus.client().execute_command("AUTH", "orders", values["guess"], "too", "many")


def _work(stage: Stage) -> None:
    client = stage.bus.client("orders", stage.values["queue"])
    end = time.monotonic() + 40
    ids: list[str] = []
    while len(ids) < 3:  # the Redis that it waits for no longer than half a second may be slow once
        assert time.monotonic() < end, stage.bus.log
        ids += json.loads(client.execute_command("LPUSH", "orders/x", "job"))["jobs"] or []
    while stage.bus.log.count("attempt_failed") < 9:  # 3 jobs: two attempts at one topic, one at the other
        assert time.monotonic() < end, stage.bus.log
        time.sleep(0.05)
    stage.cli(["job", ids[0]], ["--json", "job", ids[0]], code=0)


def _ask_everything(stage: Stage) -> None:
    stage.cli(["check"], code=0)
    stage.cli(
        ["status"], ["--json", "status"], ["doctor"], ["--json", "doctor"], ["check", "fpm"], ["queue", "list"],
        ["queue", "show", "orders"], ["--json", "queue", "show", "orders"], ["--json", "queue", "show", "bills"],
        ["jobs", "orders/mail"], ["jobs", "orders/script", "--state", "dead"], ["ping", "orders/mail"],
        ["send", "orders/mail", "x"], ["--json", "send", "orders/script", "x"], ["fpm-pool", "php"], ["push", "orders", "x"],
        ["push", "bills", "x"], ["queue", "set", "orders", "mail/timeout=30s"], ["reload"],
    )  # fmt: skip
    told = [stage.bus.status(), stage.bus.ask("tell", role="worker", command={"op": "targets"})]
    stage.said["control"] = json.dumps(told).encode()
    stage.get("/metrics")
    assert b"pepperbus" in stage.said[next(reversed(stage.said))]
    for path in (
        "/",
        "/healthz",
        "/readyz",
        "/QueueConfig",
        "/api/v1/openapi.json",
        "/api/v1/status",
        "/api/v1/queues/orders",
    ):
        stage.get(path)


def _break_the_configuration(stage: Stage) -> None:
    """Every mistake beside a secret: refused by the running bus, and named by `check`, one copy of the files for each."""
    bus, facts = stage.bus, stage.facts
    orders, node = _ORDERS.format(**facts), _node(facts)
    unsigned = orders.replace("        sign = ", "        # ", 1)
    cases = [
        (node, line.format(**facts) + "\n" + orders.replace("password = ", "# ", 1)) for line in _MISTAKES["queue"]
    ]
    for line in _MISTAKES["topic"]:
        cases.append((node, unsigned.replace("attempts = 2", f"attempts = 2\n{line.format(**facts)}")))
    for line in _MISTAKES["node"]:
        cases.append((NODE.partition("[storages]")[0] + line.format(**facts) + "\n", orders))
    wrong = bus.directory / "queues.d" / "wrong"  # below queues.d: not searched, and no *.conf of its own
    for n, (node_text, orders_text) in enumerate(cases):
        files = wrong / str(n)
        (files / "queues.d").mkdir(parents=True)
        (files / "pepperbus.conf").write_text(bus._fill(node_text))
        (files / "queues.d" / "orders.conf").write_text(orders_text)
        (files / "secret.txt").write_text(f"{facts['reference']}\n")
    stage.cli(*(["-c", str(wrong / str(n) / "pepperbus.conf"), "check"] for n in range(len(cases))), code=1)
    bus.write_queue("orders", cases[0][1])
    bus.send(signal.SIGHUP)
    bus.wait_log("reload_refused")
    stage.cli(["reload"], code=1)
    bus.write_queue("orders", orders)
    (bus.directory / "secret.txt").write_text(f"{facts['reference']}\n{facts['reference']}\n")
    stage.cli(["check"], code=1)
    (bus.directory / "secret.txt").write_text(f"{facts['reference']}\n")


def _break_the_world(stage: Stage) -> None:
    """Redis stands still, refuses the password; a worker is made to print where it hangs, a gateway is killed."""
    bus = stage.bus
    stage.server.freeze()
    client = bus.client("orders", stage.values["queue"])
    assert json.loads(client.execute_command("LPUSH", "orders/x", "job"))["error"]
    stage.get("/readyz")
    stage.cli(["status"], ["doctor"], ["jobs", "orders/mail"])
    stage.server.thaw()
    bus.write_node(_node({**stage.facts, "redis": canary("guess")}))
    stage.cli(["status"], ["doctor"], ["jobs", "orders/mail"])
    bus.write_node(_node(stage.facts))
    bus.wait_replaced("worker.bills.0", bus.kill("worker.bills.0", signal.SIGABRT))
    bus.wait_replaced("gateway.0", bus.kill("gateway.0"))
