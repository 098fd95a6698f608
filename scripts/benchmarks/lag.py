"""Rows about waiting: from the push to the first line of PHP."""

from __future__ import annotations

import time
from pathlib import Path

from scripts.benchmarks import bare, work
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.load import connect, paced, packed, percentile, read_reply
from scripts.benchmarks.servers import wait_until
from scripts.benchmarks.stage import CHILDREN
from scripts.benchmarks.table import Side


def idle_ms(engine: str, q: float) -> Side:
    """The q-quantile in ms with an idle topic: 100 pushes a second on one connection."""

    def lag(bench: Bench) -> float:
        file, queue, pushes = _empty(bench), f"lag-{engine}", bench.n(500, 200)
        with connect(bench.usual.gateway) as sock:
            for _ in range(pushes):
                sock.sendall(packed(b"LPUSH", queue.encode() + b"/x", b"%.6f" % time.time()))
                read_reply(sock, queue)
                time.sleep(0.01)  # the topic shall be idle again before the next
        return _quantile(file, pushes, q)

    return lag


def busy_ms(engine: str, q: float) -> Side:
    """The same at half of the rate that this script and machine reach, measured just before."""

    def lag(bench: Bench) -> float:
        queue = f"lag-{engine}"
        full = _full_rate(bench, queue)
        file = _empty(bench)
        sent = paced(bench.usual.gateway, queue, full / 2, 4 * max(bench.size, 0.25))
        return _quantile(file, sent, q)

    return lag


def _full_rate(bench: Bench, queue: str) -> float:
    return work.through(bench.usual, queue, bench.n(10_000, 2000)).rate


def _empty(bench: Bench) -> Path:
    """A fresh file, and every child of php-fpm free: other rows keep connections, which hold children for a second."""
    bare.loop(str(bench.fpm.socket), bench.fpm.script("work.php"), CHILDREN, CHILDREN, keep=False)
    file = bench.fpm.scripts / "lag.txt"
    file.unlink(missing_ok=True)
    return file


def _quantile(file: Path, lags: int, q: float) -> float:
    wait_until(lambda: file.exists() and file.read_bytes().count(b"\n") >= lags, 30, f"{lags} lags", 0.05)
    found = sorted(float(line) for line in file.read_text().splitlines())
    return percentile(found, q) * 1000
