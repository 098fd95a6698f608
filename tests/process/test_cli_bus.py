"""The command line against a running bus: push, watch, look up, replay, purge, pause, change, stop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.fixtures.bus import NODE, ROOT, Bus, Buses
from tests.fixtures.fpm import Fpm

QUEUE = """
password = secret
storage = local
[topics]
    [[mail]]
        run = http
        url = http://127.0.0.1:@CONSUMER@/mail
        attempts = 1
        timeout = 10s
"""


class Consumer:
    """An HTTP consumer: answers pings, refuses jobs whose content has `bad` in it while `strict`."""

    def __init__(self) -> None:
        self.strict = True
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                bad = outer.strict and b"bad" in body
                if b"type=data" in body:
                    outer.bodies.append(body)
                answer = b"no such order" if bad else b"fine"
                self.send_response(200)
                self.send_header("Code", "500" if bad else "200")
                if bad:
                    self.send_header("Error-Code", "E404")
                self.send_header("Consume-Topics", "orders/mail")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *words: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])


@pytest.fixture
def consumer() -> Iterator[Consumer]:
    made = Consumer()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def bus(buses: Buses, consumer: Consumer) -> Bus:
    return buses.start(queues={"orders": QUEUE.replace("@CONSUMER@", str(consumer.port))})


def ask(bus: Bus, *words: str) -> Any:
    done = bus.cli("--json", *words)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def until(bus: Bus, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The topic's status as soon as it is like that."""
    deadline = time.monotonic() + 40
    while True:
        (queue,) = ask(bus, "status", "--seconds", "0")["queues"]
        topic: dict[str, Any] = queue["topics"][0]
        if condition(topic):
            return topic
        assert time.monotonic() < deadline, f"{topic}\n{bus.log}"


def events(bus: Bus, job_id: str, n: int) -> list[dict[str, Any]]:
    """A job's events as soon as there are so many: a worker counts first and writes its journal after that."""
    deadline = time.monotonic() + 40
    while len(found := ask(bus, "job", job_id)["topics"][0]["events"]) < n:
        assert time.monotonic() < deadline, found
    return list(found)


def test_a_jobs_way_from_push_to_replay(bus: Bus, consumer: Consumer) -> None:
    pushed = ask(bus, "push", "orders", "good", "bad")
    assert (pushed["accepted"], pushed["refused"], len(pushed["ids"])) == (2, 0, 2)
    topic = until(bus, lambda t: t["done"] == 1 and t["dead"] == 1)
    assert (topic["pushed"], topic["failed"], topic["wait"]["count"]) == (2, 1, 2)

    events(bus, pushed["ids"][0], 1)
    events(bus, pushed["ids"][1], 1)
    life = bus.cli("job", pushed["ids"][1]).stdout
    for text in ("from 127.0.0.1:", "attempt 1 dead", "code 500 E404", "no such order", "now: dead - ", "bad"):
        assert text in life
    assert ask(bus, "job", pushed["ids"][0])["topics"][0]["state"] == "done"

    (dead,) = ask(bus, "jobs", "orders/mail", "--error", "no such")["jobs"]
    assert (dead["id"], dead["content"]) == (pushed["ids"][1], "bad")
    lines = bus.cli("tail", "orders", "--since", "1h", "--no-follow").stdout.splitlines()
    assert len(lines) == 2
    assert len(bus.cli("tail", "--failed", "--since", "1h", "--no-follow").stdout.splitlines()) == 1

    consumer.strict = False
    replayed = ask(bus, "replay", "orders/mail", "--yes", "--stop-at-errors", "50%")
    assert (replayed["matched"], replayed["replayed"], replayed["succeeded"], replayed["state"]) == (1, 1, 1, "done")
    until(bus, lambda t: t["done"] == 2 and t["dead"] == 0)
    told = events(bus, pushed["ids"][1], 3)
    assert [event["event"] for event in told] == ["attempt", "replayed", "attempt"]


def test_a_php_error_is_shown_with_its_file_and_line(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm()
    script = php.script("broken.php", "<?php\nheader('Code: 200');\n\nthrow new Exception('no stock');\n")
    queue = (
        f"password = x\n[topics]\n    [[mail]]\n        run = fastcgi\n        pool = php\n        script = {script}\n"
        "        ping = off\n        attempts = 1\n"
    )
    node = NODE + f"[fastcgi]\n    [[php]]\n        address = {php.address}\n        dedicated = yes\n"
    bus = buses.start(node, {"orders": queue})
    (job_id,) = ask(bus, "push", "orders", "x")["ids"]
    until(bus, lambda t: t["dead"] == 1)
    (event,) = events(bus, job_id, 1)
    assert (event["php_file"], event["php_line"]) == (script, 4)
    life = bus.cli("job", job_id).stdout
    assert "Uncaught Exception: no stock" in life
    assert f"at     {script}:4" in life


def test_pausing_pushing_in_many_ways_and_purging(bus: Bus, consumer: Consumer, tmp_path: Any) -> None:
    assert bus.cli("pause", "orders").stdout == "orders/mail: paused\n"
    until(bus, lambda t: t["state"] == "paused")  # and the workers know it by now: the command told them
    file = tmp_path / "jobs.txt"
    file.write_bytes(b"one\r\ntwo\n\xff\xfe\n")
    assert ask(bus, "push", "orders", str(file))["accepted"] == 3
    assert ask(bus, "push", "orders", "--file", str(file), "--whole")["accepted"] == 1
    assert ask(bus, "push", "orders", "--front", "first", "second")["accepted"] == 2
    assert ask(bus, "push", "orders", "--delay", "600", "later")["accepted"] == 1
    assert ask(bus, "push", "orders", "--count", "1500", "many")["accepted"] == 1500
    assert until(bus, lambda t: t["ready"] == 1506)["delayed"] == 1
    waiting = ask(bus, "jobs", "orders/mail", "--state", "ready", "-n", "6")["jobs"]
    assert [job["content"] for job in waiting[:5]] == ["first", "second", "one", "two", "//4="]
    assert (waiting[5]["encoding"], waiting[5]["size"]) == ("base64", 12)
    assert consumer.bodies == []
    assert ask(bus, "purge", "orders/mail", "--state", "ready", "--yes")["removed"] == 1506
    assert ask(bus, "replay", "orders/mail", "--state", "delayed", "--yes")["replayed"] == 1
    assert bus.cli("resume", "orders").stdout == "orders/mail: resumed\n"
    until(bus, lambda t: t["done"] == 1)
    assert b"later" in consumer.bodies[0]


def test_a_job_that_is_too_large_is_named_with_both_sizes(bus: Bus, tmp_path: Any) -> None:
    (tmp_path / "large").write_bytes(b"x" * ((8 << 20) + 1))
    done = bus.cli("push", "orders", "--whole", "-f", str(tmp_path / "large"))
    assert done.returncode == 1
    assert "a job of 8388609 bytes is larger than [gateway] max_bulk allows (8388608)" in done.stderr


def test_a_slow_stream_is_pushed_as_it_comes_and_ctrl_c_tells_how_far_it_came(bus: Bus) -> None:
    command = [sys.executable, "-m", "pepperbus.cli", "-c", str(bus.config), "push", "orders", "-"]
    child = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert child.stdin is not None
    child.stdin.write("one\ntwo\n")
    until(bus, lambda t: t["done"] == 2)
    child.stdin.write("three\n")
    until(bus, lambda t: t["done"] == 3)
    child.stdin.write("four\n")
    until(bus, lambda t: t["done"] == 4)
    child.send_signal(signal.SIGINT)  # of the fourth its answer may still be on the way, of the third it is not
    out, err = child.communicate(timeout=40)
    assert (child.returncode, len(out.split()) in (3, 4), err) == (1, True, "pepperbus: interrupted\n"), out


def test_changing_queues_while_it_runs(bus: Bus) -> None:
    url = "mail/url=http://127.0.0.1:9/none"
    made = bus.cli("queue", "add", "bills", "mail/run=http", url)
    assert (made.returncode, "the running bus has taken it" in made.stdout) == (0, True)
    assert ask(bus, "push", "bills", "x")["accepted"] == 1
    refused = bus.cli("queue", "rm", "bills", "--yes")
    assert (refused.returncode, "1 in bills/mail" in refused.stderr) == (1, True)
    assert bus.cli("queue", "rm", "bills", "--yes", "--keep-jobs").returncode == 0
    assert bus.cli("push", "bills", "x").returncode == 1
    status = ask(bus, "status", "--seconds", "0")
    assert [topic["name"] for topic in status["detached"]] == ["bills/mail"]
    assert bus.cli("status", "--seconds", "0").returncode == 1
    bus.write_queue("bad", "nonsense = 1\n")
    refused = bus.cli("reload")
    assert (refused.returncode, "nonsense" in refused.stderr) == (1, True)
    refused = bus.cli("queue", "set", "orders", "mail/timeout=20s")
    assert refused.returncode == 3, "the configuration as a whole is broken, so nothing is touched"
    bus.write_queue("bad", None)
    assert "generation" in bus.cli("reload").stdout


def test_straight_to_the_consumer(bus: Bus, consumer: Consumer) -> None:
    ping = bus.cli("ping", "orders/mail")
    assert (ping.returncode, "orders/mail: registered" in ping.stdout) == (0, True)
    sent = bus.cli("send", "orders/mail", "hello")
    assert (sent.returncode, "orders/mail: done, code 200" in sent.stdout) == (0, True)
    failed = ask(bus, "send", "orders/mail", "bad", "--attempt", "3")
    assert (failed["act"], failed["error_code"], failed["body"]) == ("retry", "E404", "no such order")
    assert ask(bus, "status", "--seconds", "0")["queues"][0]["pushed"] == 0


def test_stop_waits_until_the_bus_has_ended(bus: Bus) -> None:
    healthy = bus.cli("status")
    assert (healthy.returncode, healthy.stderr) == (0, ""), healthy.stdout
    refused = bus.cli("storage", "compact", "local")
    assert (refused.returncode, "is in use; stop the bus first" in refused.stderr) == (3, True), refused
    done = bus.cli("stop")
    assert (done.returncode, done.stdout) == (0, "stopped\n")
    assert bus.wait() == 0
    assert bus.cli("stop").returncode == 3
    made = ask(bus, "storage", "compact", "local")
    assert 0 < made["after"] <= made["before"]
    mistyped = bus.cli("storage", "compact", "locla")
    assert (mistyped.returncode, "storage 'locla' does not exist; there are local" in mistyped.stderr) == (1, True)
