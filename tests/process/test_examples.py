"""examples/: each producer pushes into a real bus, each consumer gets what it pushed.

Clients for Node, Go and Java are fetched once, and Go and Java compiled once, into a directory of the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures.bus import ROOT, Bus, Buses
from tests.fixtures.ports import free_port
from tests.process.bus_rig import until

EXAMPLES = ROOT / "examples"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pepperbus-tests"
Commands = tuple[list[str], list[str]]


def python() -> Commands:
    here = EXAMPLES / "python"
    return [sys.executable, "-u", str(here / "consumer.py")], [sys.executable, str(here / "producer.py")]


def node() -> Commands:
    here = prepared("node", "npm", "install", "--no-audit", "--no-fund", "--silent", made="node_modules")
    return ["node", str(here / "consumer.js")], ["node", str(here / "producer.js")]


def go() -> Commands:
    here = prepared("go", "go", "build", "-o", "bin/", "./...", made="bin")
    return [str(here / "bin" / "consumer")], [str(here / "bin" / "producer")]


def java() -> Commands:
    here = prepared("java", "mvn", "-q", "-B", "package", "dependency:copy-dependencies", made="target/dependency")
    start = ["java", "-cp", f"{here}/target/*:{here}/target/dependency/*"]
    return [*start, "Consumer"], [*start, "Producer"]


def prepared(language: str, *command: str, made: str) -> Path:
    """A copy of the example in the cache, built there once for these very files. Skips where that is impossible."""
    runtime = "java" if language == "java" else language
    for tool in (runtime, command[0]):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    files = sorted(
        path for path in (EXAMPLES / language).rglob("*") if path.is_file() and "node_modules" not in path.parts
    )
    digest = hashlib.sha1(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    here = CACHE / f"{language}-{digest}"
    if not (here / made).exists():
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(EXAMPLES / language, here, ignore=shutil.ignore_patterns("node_modules"))
        try:
            built = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=240, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{' '.join(command)}: no packages within 240 s")
        if built.returncode:
            shutil.rmtree(here / made, ignore_errors=True)
            errors = [line for line in (built.stderr + built.stdout).splitlines() if "rror" in line]
            pytest.skip(f"{' '.join(command)}: {(errors or ['failed'])[0]}")
    return here


@contextlib.contextmanager
def consuming(command: list[str], port: int) -> Iterator[list[str]]:
    """What the consumer prints, line by line, once it listens."""
    lines: list[str] = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PORT": str(port)})
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reader.start()
    try:
        until(lambda: listens(port) or process.poll() is not None, bool, seconds=60.0)
        assert process.poll() is None
        yield lines
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
        reader.join(20)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def counts(bus: Bus) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = bus.client("orders/mail", "secret").hgetall("orders/mail")
    return found


@pytest.mark.timeout(400)
@pytest.mark.parametrize("language", [python, node, go, java], ids=lambda made: made.__name__)
def test_an_example(buses: Buses, language: Callable[[], Commands]) -> None:
    consumer, producer = language()
    port = free_port()
    text = f"password = secret\n[topics]\n[[mail]]\nrun = http\nurl = http://127.0.0.1:{port}/jobs\nbody = raw\n"
    bus = buses.start(queues={"orders": text})
    bus.client("orders", "secret").lpush("orders", "no json")
    with consuming(consumer, port) as lines:
        run = subprocess.run(
            producer,
            env={**os.environ, "PEPPERBUS": f"127.0.0.1:{bus.port}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith("pushed "), run.stdout
        assert run.stdout.endswith("and two more\n")
        until(lambda: sorted(lines), lambda seen: len(seen) == 3, bus, 60.0)
        assert sorted(lines) == ["order 1\n", "order 2\n", "order 3\n"]
        until(lambda: counts(bus), lambda found: found[b"dead"] == b"1", bus)
