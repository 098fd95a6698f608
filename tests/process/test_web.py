"""The sidecar of a real bus: everything the API can do, on a running node with a real consumer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from pepperbus.stats import read_all
from tests.fixtures.bus import Bus
from tests.fixtures.http import RawServer, answering, raw_server, read_request

DONE = b"HTTP/1.1 200 OK\r\nCode: 200\r\nContent-Length: 12\r\n\r\norders/mail,"
FAILED = b"HTTP/1.1 200 OK\r\nCode: 500\r\nError-Code: E7\r\nContent-Length: 4\r\n\r\nboom"


def queue(url: str, **keys: str) -> str:
    lines = "".join(f"        {key} = {value}\n" for key, value in {"run": "http", "url": url, **keys}.items())
    return f"open = loopback\nstorage = local\n[topics]\n    [[mail]]\n{lines}"


def bearer(bus: Bus) -> dict[str, str]:
    """The header that logs in; the token is made once a bus."""
    if not hasattr(bus, "bearer"):
        bus.bearer = {"Authorization": f"Bearer {bus.token()}"}  # type: ignore[attr-defined]
    return dict(bus.bearer)  # type: ignore[attr-defined]


def ask(bus: Bus, path: str, body: Any = None, method: str = "") -> tuple[int, Any]:
    """One request to the sidecar; JSON answers come as values."""
    data = json.dumps(body).encode() if body is not None else None
    method = method or ("POST" if data is not None else "GET")
    url = f"http://127.0.0.1:{bus.web_port}{path}"
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **bearer(bus)}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            status, text, kind = answer.status, answer.read().decode(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as answer:
        status, text, kind = answer.code, answer.read().decode(), answer.headers["Content-Type"]
    return status, json.loads(text) if kind == "application/json" else text


def until(get: Callable[[], Any], good: Callable[[Any], object], seconds: float = 40.0) -> Any:
    deadline = time.monotonic() + seconds
    while not good(found := get()):
        assert time.monotonic() < deadline, json.dumps(found, indent=1)
        time.sleep(0.05)
    return found


def test_a_days_work_through_the_api(buses: Any) -> None:
    api = "/api/v1"
    mail = f"{api}/topics/orders/mail"
    with raw_server(answering(DONE)) as server:
        bus = buses.start(queues={"orders": queue(server.url)})
        assert ask(bus, "/healthz") == (200, "ok\n")
        assert ask(bus, "/readyz") == (200, "ready\n")

        status, pushed = ask(bus, f"{api}/queues/orders/push", {"contents": ["a", "/w==", "b"]})
        assert (status, pushed["accepted"], len(pushed["ids"])) == (200, 3, 3)
        status, pushed = ask(bus, f"{api}/queues/orders/push", {"contents": ["/w=="], "encoding": "base64"})
        until(lambda: ask(bus, mail)[1], lambda topic: topic["done"] == 4)
        life = until(
            lambda: ask(bus, f"{api}/jobs/{pushed['ids'][0]}")[1],
            lambda life: life.get("topics") and life["topics"][0]["state"] == "done",
        )
        assert (life["content"], life["encoding"]) == ("/w==", "base64")
        assert life["topics"][0]["events"][0]["code"] == 200

        status, pinged = ask(bus, f"{mail}/ping", {})
        assert (status, pinged["registered"]) == (200, True)
        status, sent = ask(bus, f"{mail}/send", {"content": "by hand"})
        assert (status, sent["act"], sent["status"]) == (200, "done", 200)
        assert b"by+hand" in server.requests[-1].body

        assert ask(bus, f"{mail}/pause", {})[1] == {"topics": ["orders/mail"], "paused": True}
        until(lambda: read_all(bus.run_dir / "stats")["orders/mail"]["state"], lambda state: state == 2)
        ask(bus, f"{api}/queues/orders/push", {"contents": ["waits"] * 3})
        until(lambda: ask(bus, mail)[1], lambda topic: topic["state"] == "paused" and topic["ready"] == 3)
        page = ask(bus, f"{mail}/jobs?state=ready")[1]
        assert [job["content"] for job in page["jobs"]] == ["waits"] * 3
        first = page["jobs"][0]["id"]
        assert ask(bus, f"{mail}/purge", {"ids": [first], "state": "ready"})[1]["removed"] == 1
        assert ask(bus, f"{mail}/resume", {})[1]["paused"] is False
        until(lambda: ask(bus, mail)[1], lambda topic: topic["done"] == 6)

        status, made = ask(
            bus, f"{api}/queues/audit", {"settings": {"storage": "local", "log/run": "http", "log/url": server.url}}
        )
        assert (status, made["what"], made["reloaded"]) == (200, "created", True), made
        until(
            lambda: ask(bus, f"{api}/queues")[1]["queues"],
            lambda queues: len(queues) == 2,
        )
        status, changed = ask(bus, f"{api}/queues/audit", {"settings": {"log/timeout": "30s"}}, "PUT")
        assert (status, changed["what"]) == (200, "changed"), changed
        until(lambda: ask(bus, f"{api}/queues/audit")[1]["topics"][0]["settings"], lambda s: s["timeout"] == 30.0)
        assert 'queue="audit"' in ask(bus, "/metrics")[1]
        assert ask(bus, f"{api}/queues/audit", method="DELETE")[1]["what"] == "removed"
        until(lambda: ask(bus, "/metrics")[1], lambda text: 'queue="audit"' not in text)

        assert ask(bus, f"{api}/check")[1]["ok"] is True
        assert ask(bus, f"{api}/reload", {})[1]["ok"] is True
        assert 'pepperbus_job_success_count{queue="orders",topic="mail"} 6.0' in ask(bus, "/metrics")[1]
        page = ask(bus, "/queues")[1]
        assert "orders" in page
        assert ask(bus, f"{api}/stop", {"now": True})[1]["ok"] is True
        assert bus.wait() == 0


def test_failures_are_found_followed_and_replayed(buses: Any) -> None:
    mail = "/api/v1/topics/orders/mail"
    well = threading.Event()

    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        while (seen := read_request(conn)) is not None:
            conn.sendall(DONE if b"type=ping" in seen.body or well.is_set() else FAILED)

    with raw_server(talk) as server:
        bus = buses.start(queues={"orders": queue(server.url, attempts="1", concurrency="1")})
        request = urllib.request.Request(
            f"http://127.0.0.1:{bus.web_port}/api/v1/tail?name=orders&failed=true", headers=bearer(bus)
        )
        with urllib.request.urlopen(request, timeout=20) as stream:
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            assert stream.readline() == b": begin\n"
            stream.readline()
            ask(bus, "/api/v1/queues/orders/push", {"contents": ["x", "y"]})
            line = stream.readline()
        event = json.loads(line.removeprefix(b"data: "))
        assert (event["outcome"], event["error_code"], event["topic"]) == ("dead", "E7", "orders/mail")

        until(lambda: ask(bus, mail)[1], lambda topic: topic["dead"] == 2)
        found = until(lambda: ask(bus, "/api/v1/events?error=boom")[1], lambda page: len(page["events"]) == 2)
        assert {one["outcome"] for one in found["events"]} == {"dead"}
        well.set()
        assert ask(bus, f"{mail}/replay", {"error": "boom", "dry_run": True})[1]["matched"] == 2
        assert ask(bus, f"{mail}/replay", {"error": "boom"})[1]["jobs"] == 2
        until(lambda: ask(bus, mail)[1], lambda topic: topic["done"] == 2 and topic["dead"] == 0)


def test_a_killed_sidecar_comes_back_and_counts_go_on(buses: Any) -> None:
    with raw_server(answering(DONE)) as server:
        bus = buses.start(queues={"orders": queue(server.url)})
        ask(bus, "/api/v1/queues/orders/push", {"contents": ["x"] * 10})
        until(lambda: ask(bus, "/api/v1/topics/orders/mail")[1], lambda topic: topic["done"] == 10)
        bus.wait_replaced("web", bus.kill("web"))
        assert 'pepperbus_job_success_count{queue="orders",topic="mail"} 10.0' in ask(bus, "/metrics")[1]
        answers_all_the_same_while_flooded(bus)


def answers_all_the_same_while_flooded(bus: Bus) -> None:
    """Idle connections, half heads and half jobs, more than there are places; a page that is open already stays so."""
    address = ("127.0.0.1", bus.web_port)
    words = "".join(f"{name}: {text}\r\n" for name, text in bearer(bus).items()) + "Host: localhost\r\n"
    with contextlib.ExitStack() as opened:
        live = opened.enter_context(socket.create_connection(address, 20))
        live.sendall(f"GET /queues HTTP/1.1\r\n{words}Accept: text/event-stream\r\n\r\n".encode())
        assert b"200 OK" in live.recv(4096)
        job = f"POST /push/orders HTTP/1.1\r\n{words}Content-Length: 9\r\n\r\nhalf".encode()
        for n in range(600):
            slow = opened.enter_context(socket.create_connection(address, 20))
            slow.sendall((b"", b"GET / HTTP/1.1\r\nHost: loc", job)[n % 3])
        for path, text in (("/healthz", "ok\n"), ("/readyz", "ready\n")):
            assert until(lambda path=path: ask(bus, path), lambda got: got[0] == 200)[1] == text  # type: ignore[misc]
        ask(bus, "/api/v1/queues/orders/push", {"contents": ["one more"]})
        seen = ""
        while "11" not in seen:  # the live page goes on
            piece = live.recv(65536)
            assert piece, "closed"
            seen += piece.decode()
    assert "action=web_crowded" in bus.log


def test_a_dead_gateway_is_not_ready(buses: Any) -> None:
    bus = buses.start(queues={"orders": queue("http://127.0.0.1:9/")})
    pid = bus.kill("gateway.0", signal.SIGSTOP)
    try:
        status, text = ask(bus, "/readyz")
        assert (status, text) == (503, f"gateway 127.0.0.1:{bus.port}: no answer within 2 s\n")
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: ask(bus, "/readyz"), lambda answer: answer == (200, "ready\n"))
