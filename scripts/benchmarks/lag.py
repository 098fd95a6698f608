"""Rows about waiting: from the push to the first line of PHP."""

from __future__ import annotations

import time
from pathlib import Path

from scripts.benchmarks import bare
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.load import connect, kept_ahead, paced, packed, percentile, read_reply
from scripts.benchmarks.servers import wait_until
from scripts.benchmarks.stage import CHILDREN
from scripts.benchmarks.table import Side

_AHEAD = 200  #: jobs that wait while the full rate is looked for: enough that nobody idles between two looks


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
    """The same at half of the rate at which this machine can push and run this script at once, measured just before."""

    def lag(bench: Bench) -> float:
        stage, queue, seconds = bench.usual, f"lag-{engine}", max(3, 4 * bench.size)
        full = kept_ahead(stage.gateway, queue, lambda: stage.count(f"{queue}/t", "done"), _AHEAD, seconds)
        file = _empty(bench)
        sent = paced(stage.gateway, queue, full / 2, seconds)
        return _quantile(file, sent, q)

    return lag


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
