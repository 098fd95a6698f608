"""Failpoints: `serve --chaos` lets a process be killed, hang or raise at exactly one named step of a job's life.

    PEPPERBUS_FAILPOINTS="worker.answered=kill@3, gateway.stored=hang" pepperbus serve --chaos

`STEP=ACTION[@N][!]`: at the N-th passing (default 1) through the step in one process; once in the life of the run
directory, which keeps a mark, or with `!` in every process that gets that far. `kill` is kill -9, `hang` stops the whole
process with all its threads as SIGSTOP does, `raise` raises `Injected` from there.

Off, this costs nothing: no line of the bus calls it. Armed, it wraps the functions named in `STEPS` in the process that is
about to run its role. It must not import what it wraps before that: master and mold read the text alone.
Floor 0.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pepperbus.errors import BootError

VARIABLE = "PEPPERBUS_FAILPOINTS"
ACTIONS = ("kill", "hang", "raise")
_WRITTEN = re.compile(r"([a-z.]+)=([a-z]+)(?:@([1-9]\d{0,8}))?(!?)")


class Injected(Exception):
    """What a failpoint raises: an error that nobody can have foreseen."""


@dataclass(frozen=True)
class Step:
    """`places`: "before", "after" or "halfway" (through the bytes it is given), and the function as "module:Class.name".

    `within`: only while one of these runs. `only`: calls of a storage's settle with one of this `outcome`, or "found":
    calls that return something.
    """

    roles: tuple[str, ...]
    places: tuple[str, ...]
    what: str
    within: tuple[str, ...] = ()
    only: str = ""


def _storage(method: str, at: str = "") -> tuple[str, ...]:
    engines = (f"pepperbus.storage.{name}.{method}" for name in ("embedded:EmbeddedStorage", "redis:RedisStorage"))
    return tuple(f"{at} {engine}".strip() for engine in engines)


#: Inside a storage's operation: embedded has made the changes and not committed them, redis has sent them and read no answer.
_INSIDE = (
    "after pepperbus.storage.embedded_work:Work.finish",
    "before pepperbus.storage.redis_wire:Connection._receive",
)
_ALONG = _storage("settle_and_lease", "after")
_GATEWAY, _WORKER, _BOTH, _MASTER = ("gateway",), ("worker",), ("worker", "ticker"), ("master",)
_READ = "pepperbus.gateway.connection:Connection.received"
_SEND = "pepperbus.delivery.fastcgi_exchange:Exchange._write"
_BEGIN = "pepperbus.worker.inflight:InFlight.begin"
_HAND_ON = "pepperbus.worker.pump:Pump.hand_on"
_JUDGE, _BORN = "pepperbus.worker.exchange:judge", "pepperbus.master.births:Births.start"
_EXEC, _RESUME = "pepperbus.master.upgrade:Upgrade._take_over", "pepperbus.master.upgrade:Upgrade.resume"
_REPLACED = "pepperbus.master.replacing:Replacing._finish"
_TICKER, _SOURCE = ("ticker",), "pepperbus.ticker.intake_source:Source"
_STORE = "pepperbus.ticker.intake_store:Store.store"

STEPS: dict[str, Step] = {
    "gateway.read": Step(_GATEWAY, (f"before {_READ}",), "bytes are read, not parsed"),
    "gateway.numbered": Step(_GATEWAY, _storage("push", "before"), "ids given, nothing stored"),
    "gateway.storing": Step(
        _GATEWAY, _INSIDE, "a push is with the storage, which has not confirmed it", _storage("push")
    ),
    "gateway.stored": Step(_GATEWAY, _storage("push", "after"), "stored, the reply not sent"),
    "worker.looking": Step(_WORKER, _storage("lease", "before"), "about to lease"),
    "worker.claiming": Step(
        _WORKER, _INSIDE, "a lease is with the storage, which has not confirmed it", _storage("lease")
    ),
    "worker.claimed": Step(_WORKER, _storage("lease", "after") + _ALONG, "leased, not begun", only="found"),
    "worker.marked": Step(_WORKER, (f"after {_BEGIN}",), "marked as begun, not sent"),
    "worker.sending": Step(_WORKER, (f"halfway {_SEND}",), "half of a request is sent"),
    "worker.waiting": Step(_WORKER, (f"after {_SEND}",), "a request is sent"),
    "worker.answered": Step(_WORKER, (f"before {_HAND_ON}", f"before {_JUDGE}"), "answered, nothing of it stored"),
    "worker.failed": Step(
        _WORKER,
        _storage("settle", "before") + _storage("settle_and_lease", "before"),
        "failed, the retry not stored",
        only="retry",
    ),
    "worker.settling": Step(
        _WORKER,
        _INSIDE,
        "a verdict is with the storage, which has not confirmed it",
        _storage("settle") + _storage("settle_and_lease"),
    ),
    "worker.settled": Step(_WORKER, _storage("settle", "after") + _ALONG, "settled, its in-flight mark still there"),
    "reclaim.begun": Step(_BOTH, _storage("release", "before"), "about to take back what a dead process held"),
    "reclaim.storing": Step(_BOTH, _INSIDE, "taking back, the storage has not confirmed it", _storage("release")),
    "reclaim.stored": Step(_BOTH, _storage("release", "after"), "taken back, not journalled"),
    "intake.moved": Step(
        _TICKER,
        (f"after {_SOURCE}._move", f"after {_SOURCE}._copy"),
        "elements left their list, not noted",
        only="found",
    ),
    "intake.noted": Step(_TICKER, (f"after {_SOURCE}.begin",), "noted as a batch, nothing stored"),
    "intake.storing": Step(
        _TICKER, _INSIDE, "a batch is with the storage, which has not confirmed it", _storage("swap")
    ),
    "intake.stored": Step(_TICKER, _storage("swap", "after"), "a batch is stored, not taken off", (_STORE,)),
    "intake.done": Step(_TICKER, (f"after {_SOURCE}.done",), "a batch is stored and taken off"),
    "schedule.due": Step(_TICKER, _storage("swap", "before"), "a firing is due, nothing is written"),
    "schedule.storing": Step(
        _TICKER, _INSIDE, "a firing is with the storage, which has not confirmed it", _storage("swap")
    ),
    "schedule.stored": Step(_TICKER, _storage("swap", "after"), "a firing is stored, nobody is woken"),
    "master.forked": Step(_MASTER, (f"after {_BORN}",), "a child is asked for, its pid unknown"),
    "upgrade.exec": Step(_MASTER, (f"before {_EXEC}",), "the trial was good, the old code still runs"),
    "upgrade.resumed": Step(_MASTER, (f"after {_RESUME}",), "the new code runs, nobody is replaced"),
    "upgrade.replacing": Step(_MASTER, (f"after {_REPLACED}",), "the first old process was told to go"),
}


@dataclass(frozen=True)
class Order:
    """One failpoint as it was written."""

    step: str
    action: str
    passing: int = 1
    always: bool = False


def asked(environ: Mapping[str, str], chaos: bool) -> str:
    """The failpoints of this start, checked; "" for none. Raises BootError when they are wrong, or not allowed."""
    text = environ.get(VARIABLE, "").strip()
    if text and not chaos:
        raise BootError(f"${VARIABLE} is set, but failpoints need `pepperbus serve --chaos`: unset it, or add --chaos")
    orders(text)
    return text


def orders(text: str) -> list[Order]:
    """What is written there. Raises BootError that names the wrong word and the right ones."""
    found = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        match = _WRITTEN.fullmatch(part)
        if match is None:
            raise BootError(f"${VARIABLE}: {part!r} is no failpoint: write STEP={'|'.join(ACTIONS)}[@N][!]")
        step, action, passing, always = match.groups()
        if step not in STEPS:
            near = difflib.get_close_matches(step, STEPS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(STEPS)}"
            raise BootError(f"${VARIABLE}: no step {step!r}; {hint}")
        if action not in ACTIONS:
            raise BootError(f"${VARIABLE}: {part!r}: no action {action!r}; there are {', '.join(ACTIONS)}")
        found.append(Order(step, action, int(passing or 1), bool(always)))
    return found


def arm(text: str, role: str, run_dir: Path) -> None:
    """Wrap what the failpoints of `role` name, in this process. Call it before anything of the role runs."""
    for order in orders(text):
        step = STEPS[order.step]
        if role in step.roles:
            _wrap(step, Failpoint(order, run_dir))


class Failpoint:
    """One armed failpoint of this process."""

    def __init__(self, order: Order, run_dir: Path) -> None:
        self._order = order
        self._mark = run_dir / "failpoints" / order.step
        self._passed = 0

    def pass_by(self) -> None:
        """The step was reached. Strikes when it is its turn."""
        self._passed += 1
        order = self._order
        if self._passed != order.passing or not self._is_first():
            return
        os.write(2, f"pepperbus: failpoint {order.step}: {order.action}, pid {os.getpid()}\n".encode())
        if order.action == "raise":
            raise Injected(f"failpoint {order.step}")
        signal.raise_signal(
            signal.SIGKILL if order.action == "kill" else signal.SIGSTOP
        )  # this thread goes no line further

    def _is_first(self) -> bool:
        """Leave a mark with time and pid; False when it struck before and shall not again."""
        self._mark.parent.mkdir(exist_ok=True)
        kind = os.O_APPEND if self._order.always else os.O_EXCL
        try:
            fd = os.open(self._mark, os.O_WRONLY | os.O_CREAT | kind, 0o640)
        except FileExistsError:
            return False
        os.write(fd, b"%.6f %d\n" % (time.time(), os.getpid()))
        os.close(fd)
        return True


class _Depth:
    """How many calls of the enclosing functions are under way."""

    now = 0


def _wrap(step: Step, point: Failpoint) -> None:
    depth = _Depth()
    for place in step.within:
        _replace(place, functools.partial(_counted, depth))
    for written in step.places:
        at, _, place = written.partition(" ")
        _replace(place, functools.partial(_with_point, step, at, point, depth))


def _with_point(step: Step, at: str, point: Failpoint, depth: _Depth, real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def before(*args: Any, **more: Any) -> Any:
        if (not step.within or depth.now) and (not step.only or _any_outcome(args[2], step.only)):
            point.pass_by()
        return real(*args, **more)

    @functools.wraps(real)
    def after(*args: Any, **more: Any) -> Any:
        result = real(*args, **more)
        found = result[-1] if isinstance(result, tuple) else result
        if (not step.within or depth.now) and (found or not step.only):
            point.pass_by()
        return result

    @functools.wraps(real)
    def halfway(self: Any, data: bytes) -> Any:
        half = len(data) // 2
        result = real(self, data[:half])
        point.pass_by()  # who comes through sends the rest
        real(self, data[half:])
        return result

    return {"before": before, "after": after, "halfway": halfway}[at]


def _any_outcome(outcomes: Iterable[Any], name: str) -> bool:
    return any(one.outcome.value == name for one in outcomes)


def _counted(depth: _Depth, real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def counted(*args: Any, **more: Any) -> Any:
        depth.now += 1
        try:
            return real(*args, **more)
        finally:
            depth.now -= 1

    return counted


def _replace(place: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    owner, name = find(place)
    setattr(owner, name, wrap(getattr(owner, name)))


def find(place: str) -> tuple[Any, str]:
    """The owner of the function at "module:name" or "module:Class.name", and its name there. AttributeError if it is gone."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for one in classes:
        owner = getattr(owner, one)
    getattr(owner, name)
    return owner, name
