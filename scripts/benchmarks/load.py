"""Load on a RESP server: redis-benchmark for rates, small clients of our own for what it cannot do."""

from __future__ import annotations

import csv
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from scripts.benchmarks.servers import PASSWORD, wait_until

VALUE = "x" * 100


@dataclass(frozen=True)
class Load:
    """Commands a second, and the latency in ms."""

    rate: float
    p50: float
    p99: float


def redis_benchmark(port: int, user: str, requests: int, words: list[str], *options: str, clients: int = 50) -> Load:
    """`redis-benchmark` with one command of `words`; SystemExit when the server answered with an error."""
    command = ["redis-benchmark", "-p", str(port), "-c", str(clients), "-n", str(requests), "-a", PASSWORD, "--csv"]
    command += [*(["--user", user] if user else []), "--precision", "3", *options, *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = list(csv.DictReader(line for line in result.stdout.splitlines() if line.startswith('"')))
    if not rows:
        raise SystemExit(f"bench: {' '.join(command)}: {result.stdout[-300:]}{result.stderr[-300:]}")
    found = rows[-1]
    return Load(float(found["rps"]), float(found["p50_latency_ms"]), float(found["p99_latency_ms"]))


def packed(*words: bytes) -> bytes:
    """One command in RESP."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def connect(port: int) -> socket.socket:
    """A plain connection, logged in as the one who may push everywhere."""
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(packed(b"AUTH", b"pusher", PASSWORD.encode()))
    answer = sock.recv(100)
    if answer != b"+OK\r\n":
        raise SystemExit(f"bench: login at port {port}: {answer!r}")
    return sock


def fill(port: int, queue: str, jobs: int, value: bytes = VALUE.encode()) -> None:
    """Push `jobs` jobs quickly, many in one command; each command is awaited."""
    at_once = max(1, min(500, (1 << 20) // max(len(value), 1)))
    with connect(port) as sock:
        while jobs > 0:
            n = min(at_once, jobs)
            sock.sendall(packed(b"LPUSH", queue.encode() + b"/x", *[value] * n))
            read_reply(sock, queue)
            jobs -= n


def read_reply(sock: socket.socket, queue: str) -> None:
    """One bulk that says that all was stored."""
    data = b""
    while not data.endswith(b'"error":""}\r\n'):
        more = sock.recv(1 << 16)
        data += more
        if not more or (data.endswith(b"}\r\n") and b'"jobs":null' in data[:100]):
            raise SystemExit(f"bench: push to {queue}: {data[:200]!r}")


def latencies(port: int, key: str, pushes: int) -> list[float]:
    """Seconds of each of `pushes` pushes, one after the other on one connection; sorted."""
    command = packed(b"LPUSH", key.encode(), VALUE.encode())
    times = []
    with connect(port) as sock:
        for _ in range(pushes):
            began = time.perf_counter()
            sock.sendall(command)
            sock.recv(4096)
            times.append(time.perf_counter() - began)
    return sorted(times)


def paced(port: int, queue: str, rate: float, seconds: float) -> int:
    """Push the time of the push, `rate` a second, evenly, on one connection; returns how many."""
    sent, begun = 0, time.perf_counter()
    key = queue.encode() + b"/x"
    with connect(port) as sock:
        sock.setblocking(False)
        while (now := time.perf_counter() - begun) < seconds:
            due = int(now * rate) - sent
            if due > 0:
                stamp = b"%.6f" % time.time()
                sock.setblocking(True)
                sock.sendall(packed(b"LPUSH", key, stamp) * due)
                sock.setblocking(False)
                sent += due
            try:
                sock.recv(1 << 16)  # the answers are not looked at here; PHP's own count says what arrived
            except BlockingIOError:
                pass
            time.sleep(max(0.001, (sent + 1) / rate - (time.perf_counter() - begun)))
        sock.settimeout(1)
        time.sleep(0.1)
        try:
            sock.recv(1 << 20)
        except TimeoutError:
            pass
    return sent


def kept_ahead(port: int, queue: str, done: Callable[[], int], ahead: int, seconds: float) -> float:
    """Push as `paced` does, as many as are done, so that `ahead` jobs wait; jobs a second of the later half."""
    key, sent, halfway = queue.encode() + b"/x", 0, None
    first, begun = done(), time.perf_counter()
    with connect(port) as sock:
        while (now := time.perf_counter() - begun) < seconds:
            ended = done() - first
            if halfway is None and now >= seconds / 2:
                halfway = (now, ended)
            due = max(0, ended + ahead - sent)
            sock.sendall(packed(b"LPUSH", key, b"%.6f" % time.time()) * due)
            sent += due
            while due > 0:
                if not (answers := sock.recv(1 << 20)):
                    raise SystemExit(f"bench: push to {queue}: closed, {due} pushes unanswered")
                due -= answers.count(b"}\r\n")
            time.sleep(0.005)  # a look at the counters costs those who are measured
    assert halfway
    wait_until(lambda: done() >= first + sent, 30, f"{queue} is empty again")
    return (ended - halfway[1]) / (now - halfway[0])


def percentile(values: list[float], q: float) -> float:
    """The q-quantile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * q))]
