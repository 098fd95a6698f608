"""The demo behind scripts/demo: a real bus, a real php-fpm if there is one, jobs pushed with an ordinary Redis client."""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qs

import demo_seed
import redis
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from pepperbus import stats

ROOT = Path(__file__).resolve().parent.parent
VAR = Path(os.environ.get("PEPPERBUS_DEMO_DIR", ROOT / "var" / "demo"))
TOPICS = ("orders/mail", "orders/audit")
out = Console(highlight=False, soft_wrap=True)


def find_fpm() -> str | None:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    names = ["php-fpm", *(f"php-fpm{version}" for version in ("8.4", "8.3", "8.2", "8.1", "8.0", "7.4"))]
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def free_port(wanted: int) -> int:
    """`wanted` when nobody has it, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise SystemExit("demo: no free port on 127.0.0.1")


def start_fpm(binary: str) -> subprocess.Popen[bytes]:
    """A php-fpm of our own: four children on a socket in var/demo, ended with us."""
    config = VAR / "php-fpm.conf"
    lines = [
        "[global]",
        f"error_log = {VAR}/php-fpm.log",
        "daemonize = no",
        "[demo]",
        f"listen = {VAR}/php.sock",
        "pm = static",
        "pm.max_children = 4",
        f"pm.status_listen = {VAR}/status.sock",
        "pm.status_path = /status",
        "php_admin_value[post_max_size] = 64M",
    ]
    if os.geteuid() == 0:
        lines += ["user = root", "group = root"]
    config.write_text("\n".join(lines) + "\n")
    command = [binary, "-F", "-y", str(config), *(["-R"] if os.geteuid() == 0 else [])]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("php-fpm", lambda: connects(VAR / "php.sock"), process, VAR / "php-fpm.log")
    return process


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(path))
        return True
    return False


class HttpConsumer(http.server.BaseHTTPRequestHandler):
    """What the demo uses where there is no php-fpm: the same contract over HTTP, with the same failures."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        code = 200
        if form["type"] == ["data"]:
            job = json.loads(form["jobs"][0])[0]
            content = json.loads(job["content"])
            n = content.get("order", 1)
            if form["queue"] == ["orders"] and (n % 500 == 0 or (n % 50 == 0 and job["RetryTimes"] == 1)):
                code = 500
            if content.get("currency") == "CHF":
                code = 500
            if form["queue"] == ["pictures"]:
                time.sleep(0.3)
        self.send_response(200)
        self.send_header("Code", str(code))
        self.send_header("Consume-Topics", ",".join(TOPICS + demo_seed.MORE_TOPICS))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Quiet: the bus keeps the record of every attempt."""


def write_config(gateway: int, web: int, consumer_port: int, names: Iterable[str]) -> Path:
    """A copy of etc/demo.conf and of these queues' files with the addresses of this run."""
    (VAR / "demo.d").mkdir(parents=True, exist_ok=True)
    text = (ROOT / "etc" / "demo.conf").read_text()
    text = text.replace("../var/demo/", f"{VAR}/").replace(":12017", f":{gateway}").replace(":19840", f":{web}")
    for name in names:
        queue = (ROOT / "etc" / "demo.d" / f"{name}.conf").read_text()
        if consumer_port:
            queue = re.sub(r" *pool = php\n", "", queue.replace("run = fastcgi", "run = http"))
            queue = re.sub(r"script = /pepperbus-demo/\S+", f"url = http://127.0.0.1:{consumer_port}/", queue)
        for there, here in (("consume.php", "demo.php"), ("more.php", "demo-more.php")):
            queue = queue.replace(f"/pepperbus-demo/{there}", str(ROOT / "sdk/php/examples" / here))
        (VAR / "demo.d" / f"{name}.conf").write_text(queue)
    if not consumer_port:
        text = text.replace(
            "        max_connections", f"        status = unix:{VAR}/status.sock/status\n        max_connections"
        )
    (VAR / "demo.conf").write_text(text)
    return VAR / "demo.conf"


def start_bus(config: Path, gateway: int) -> subprocess.Popen[bytes]:
    with (VAR / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pepperbus.cli", "-c", str(config), "serve"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=ROOT,
        )

    def answers() -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(redis.Redis(port=gateway, username="orders", password="demo", retry=None).ping())
        return False

    wait_for("the bus", answers, process, VAR / "serve.log")
    return process


def make_account(config: Path) -> str:
    """The account `demo` of the dashboard, with a new password at every start; the password."""
    for words in (("add", "demo", "--role", "admin"), ("reset", "demo")):
        command = [sys.executable, "-m", "pepperbus.cli", "-c", str(config), "--json", "user", *words]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if made.returncode == 0:
            return str(json.loads(made.stdout)["password"])
    raise SystemExit(f"demo: no account could be made: {made.stderr}")


def wait_for(what: str, ready, process: subprocess.Popen[bytes], log: Path) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + 30
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            text = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise SystemExit(f"demo: {what} did not start (see {log})\n{text}")
        time.sleep(0.02)


def push(gateway: int, jobs: int, progress: Progress) -> int:
    """Push `jobs` orders, ten a command, with an ordinary Redis client; returns how many were accepted."""
    client = redis.Redis(port=gateway, username="orders", password="demo")
    accepted = 0
    task = progress.add_task("pushed", total=jobs)
    for first in range(1, jobs + 1, 10):
        orders = [json.dumps({"order": n, "item": "pepper"}) for n in range(first, min(first + 10, jobs + 1))]
        client.lpush("orders", *orders)
        accepted += len(orders)
        progress.update(task, completed=accepted)
    return accepted


def totals() -> dict[str, stats.Totals]:
    found = stats.read_all(VAR / "run" / "stats", TOPICS)
    return {name: found.get(name, stats.Totals()) for name in TOPICS}


def settled() -> int:
    return sum(t["done"] + t["dead"] for t in totals().values())


def summary(accepted: int, seconds: float, once: bool) -> None:
    found = totals()
    wait, run = stats.Histogram(), stats.Histogram()
    for t in found.values():
        wait.add(t.histograms["wait"])
        run.add(t.histograms["run"])
    done, dead = (sum(t[key] for t in found.values()) for key in ("done", "dead"))
    retried = sum(t["retried"] for t in found.values())
    out.print(f"accepted  {accepted} orders, {accepted * len(TOPICS)} jobs (one for each of {len(TOPICS)} topics)")
    out.print(f"done      {done}")
    out.print(f"retried   {retried} attempts that failed and ran again")
    program = Path(sys.executable).with_name("pepperbus")
    look = "" if once else f" for you to look at: {program} -c {VAR}/demo.conf jobs orders/mail"
    out.print(f"dead      {dead} kept{look}")
    out.print(f"rate      {done / max(seconds, 0.001):.0f} jobs/s, first push to last answer {seconds:.1f} s")
    for name, histogram in (("waited", wait), ("ran", run)):
        p50, p99 = (histogram.percentile(q) * 1000 for q in (0.5, 0.99))
        out.print(f"{name:9} p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--once", action="store_true", help="wait for the last job, print, clean up, exit")
    parser.add_argument("--jobs", type=int, default=2000, help="orders to push (default 2000)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    shutil.rmtree(VAR, ignore_errors=True)
    VAR.mkdir(parents=True)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        return show(given.once, given.jobs, processes)
    except KeyboardInterrupt:
        out.print("\nstopping")
        return 0
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if given.once:
            shutil.rmtree(VAR, ignore_errors=True)


def show(once: bool, jobs: int, processes: list[subprocess.Popen[bytes]]) -> int:
    binary, consumer_port = find_fpm(), 0
    if binary:
        processes.append(start_fpm(binary))
        out.print(f"consumer  sdk/php/examples/demo.php under {binary}, four children")
    else:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HttpConsumer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        consumer_port = server.server_port
        out.print(f"consumer  no php-fpm here, so a small HTTP consumer on port {consumer_port} takes its place")
    gateway, web = free_port(12017), free_port(19840)
    queues = ("orders",) if once else demo_seed.QUEUES
    processes.append(start_bus(write_config(gateway, web, consumer_port, queues), gateway))
    out.print(f"bus       Redis protocol on 127.0.0.1:{gateway} (AUTH orders:demo), page on http://127.0.0.1:{web}/")
    begin = time.monotonic()
    columns = (*Progress.get_default_columns()[:3], TimeElapsedColumn())
    with Progress(*columns, console=out, transient=not out.is_terminal) as progress:
        accepted = push(gateway, jobs, progress)
        task = progress.add_task("settled", total=accepted * len(TOPICS))
        end = time.monotonic() + 300
        while (now := settled()) < accepted * len(TOPICS):
            progress.update(task, completed=now)
            if time.monotonic() > end or processes[-1].poll() is not None:
                out.print(f"demo: only {now} of {accepted * len(TOPICS)} jobs settled; see {VAR}/pepperbus.log")
                return 1
            time.sleep(0.05)
        progress.update(task, completed=now)
    summary(accepted, time.monotonic() - begin, once)
    if not once:
        password = make_account(VAR / "demo.conf")
        demo_seed.seed(VAR / "demo.conf", gateway)
        demo_seed.trickle(gateway)
        out.print(
            "\nFour more queues are at work: invoices is well, pictures slow, newsletter paused, payouts fails now and then."
        )
        out.print(
            f"The bus stays up: open http://127.0.0.1:{web}/ (log in as demo, password {password}), push more with"
        )
        out.print(f"  redis-cli -p {gateway} --user orders --pass demo lpush orders '{{\"order\": 7}}'")
        out.print("kill -9 any of its processes and watch; Ctrl-C ends it.")
        while True:
            status = processes[-1].wait()
            out.print(f"the bus ended ({status}); starting it again, as systemd would")
            processes[-1] = start_bus(VAR / "demo.conf", gateway)
    return 0


if __name__ == "__main__":
    sys.exit(main())
