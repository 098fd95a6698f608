"""What 200 open live pages cost: many short slices, with and without them by turns.

Rates depend on whatever else the machine does, so each slice is held against its neighbour and the middle of many ratios
counts; the CPU that sidecar and gateways took, by the clocks the kernel keeps for each process, hardly depends on others.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from scripts.benchmarks import processes
from scripts.benchmarks.load import VALUE, redis_benchmark
from scripts.benchmarks.stage import Stage

LIVE = 200
_PATIENCE_S = 30.0
_ALONE_S, _BESIDE_S = 0.5, 5.0  # before a slice; right after their first events the pages rest
_FEWEST = 2000  # pushes of a slice


@dataclass(frozen=True)
class Slice:
    """`rate`: pushes a second. `sidecar`, `gateway`: ms of CPU a second; `push`: µs of the gateways' CPU for each push."""

    rate: float
    sidecar: float
    gateway: float
    push: float


@dataclass
class Pairs:
    """Slices next to each other, one without and one with the pages."""

    seconds: float = 0.0
    alone: list[Slice] = field(default_factory=list)
    beside: list[Slice] = field(default_factory=list)
    events: list[int] = field(default_factory=list)  # that came in each slice with the pages
    sidecar_mb: float = 0.0
    trouble: list[str] = field(default_factory=list)


class Live:
    """Live pages held open, read and thrown away."""

    def __init__(self, stage: Stage, cookie: str, paths: Sequence[str], count: int = LIVE) -> None:
        self._selector = selectors.DefaultSelector()
        self._ended = False
        self.events = 0
        self.begun: set[int] = set()
        self.refused = 0
        self._socks = [self._open(stage, cookie, paths[n % len(paths)]) for n in range(count)]
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _open(self, stage: Stage, cookie: str, path: str) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", stage.web), 30)
        head = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: pepperbus={cookie}\r\nAccept: text/event-stream\r\n\r\n"
        )
        sock.sendall(head.encode())
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ)
        return sock

    def _read(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(0.2):
                with contextlib.suppress(BlockingIOError, ConnectionResetError):
                    data = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
                    self.events += data.count(b"\n\n")
                    self.refused += data.startswith(b"HTTP/1.1 503 ")
                    if b"data: " in data:
                        self.begun.add(key.fd)
                    if not data:
                        self._selector.unregister(key.fileobj)

    def wait(self) -> bool:
        """Until every page has had its first event."""
        until = time.monotonic() + _PATIENCE_S
        while len(self.begun) < len(self._socks) and time.monotonic() < until:
            time.sleep(0.05)
        return len(self.begun) == len(self._socks)

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        for sock in self._socks:
            sock.close()


def measure(stage: Stage, cookie: str, paths: Sequence[str], topic: str, pairs: int, seconds: float) -> Pairs:
    """`pairs` times two slices of about so many seconds. The topic is paused: the delivery of one slice's jobs would weigh on
    the next."""
    found = Pairs(seconds)
    stage.pepperbus("pause", topic)
    key = f"{topic.partition('/')[0]}/x"
    web, gateways = (processes.named(stage.pids, f"pepperbus: {role}") for role in ("web", "gateway"))

    def push(count: int) -> Slice:
        began, before = time.perf_counter(), (processes.cpu_s(web), processes.cpu_s(gateways))
        rate = redis_benchmark(stage.gateway, "pusher", count, ["lpush", key, VALUE]).rate
        passed = time.perf_counter() - began
        sidecar, gateway = processes.cpu_s(web) - before[0], processes.cpu_s(gateways) - before[1]
        return Slice(rate, sidecar / passed * 1e3, gateway / passed * 1e3, gateway / count * 1e6)

    count = max(_FEWEST, int(push(_FEWEST).rate * seconds))
    for number in range(pairs):
        for beside in (
            number % 2 == 0,
            number % 2 == 1,
        ):  # who goes first takes turns: a drifting machine drifts for both
            if not beside:
                time.sleep(_ALONE_S)
                found.alone.append(push(count))
            elif not _beside(found, lambda: Live(stage, cookie, paths), lambda: push(count)):
                return found
        found.sidecar_mb = max(found.sidecar_mb, processes.memory(web).rss / 1e6)
    return found


def _beside(found: Pairs, connect: Callable[[], Live], push: Callable[[], Slice]) -> bool:
    live = connect()
    try:
        if not live.wait():
            begun, refused = len(live.begun), live.refused
            found.trouble.append(
                f"live pages: {begun} of {LIVE} had an event in {_PATIENCE_S:.0f} s, {refused} refused"
            )
            del found.alone[len(found.beside) :]
            return False
        time.sleep(_BESIDE_S)
        before = live.events
        found.beside.append(push())
        found.events.append(live.events - before)
    finally:
        live.close()
    return True


def text(found: Pairs) -> Iterator[str]:
    """As it stands in docs/PERFORMANCE.md: medians, and of the paired figures the middle half and all."""
    if not found.alone:
        return
    pairs = len(found.alone)
    events = statistics.mean(found.events)
    yield f"{LIVE} live pages, {pairs} pairs of slices of {found.seconds:g} s; {events:.0f} events came in a slice"
    yield ""
    yield "| median | without | with | with / without, or the difference | middle half | all |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for what, name, ratio in (
        ("pushes a second", "rate", True),
        ("gateways: µs of CPU a push", "push", True),
        ("gateways: ms of CPU a second", "gateway", True),
        ("sidecar: ms of CPU a second", "sidecar", False),
    ):
        alone, beside = ([getattr(one, name) for one in side] for side in (found.alone, found.beside))
        yield _line(what, alone, beside, ratio)


def _line(what: str, alone: list[float], beside: list[float], ratio: bool) -> str:
    paired = sorted(b / a if ratio else b - a for a, b in zip(alone, beside, strict=True))
    low, _, high = statistics.quantiles(paired, n=4) if len(paired) > 1 else (paired[0],) * 3
    show = "{:.2f}".format if ratio else "{:+.1f}".format
    spread = (
        f"{show(statistics.median(paired))} | {show(low)} to {show(high)} | {show(paired[0])} to {show(paired[-1])}"
    )
    return f"| {what} | {statistics.median(alone):,.1f} | {statistics.median(beside):,.1f} | {spread} |"
