"""What every forked child is given, and how it hears from and answers to the master.

Floor 4's ground: gateways, workers, the ticker and the web sidecar are all started as `main(child)` of their package,
in a process that is already patched by gevent, with one `Child`. They know nothing of the mold or of the master's loop.

A main must: set its callbacks, call `child.start()` once, then run until it decides to leave and return normally
(exit status 0). It leaves after `on_drain` was called and its work is finished or the grace is over.
A `BootError` raised before `start()` says that trying again will not help; its text is shown to the operator.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import gevent
import gevent.event
import gevent.lock
from setproctitle import setproctitle

from pepperbus.config.model import Config
from pepperbus.errors import NotReachable, PepperbusError
from pepperbus.family import beats
from pepperbus.family.channel import Inbox, Outbox, pack_up, unpack_down
from pepperbus.family.spec import ORPHAN_S
from pepperbus.log import Log

_TITLE_EVERY_S = 3.0


class Line:
    """The child's end of the family: the socketpair to the master and the slot it beats in."""

    def __init__(self, sock: socket.socket, page: beats.Beats, slot: int) -> None:
        self.sock = sock
        self._page = page
        self._slot = slot
        self._inbox = Inbox()
        self._writing = gevent.lock.RLock()  # a message must not be cut by another greenlet's

    def beat(self) -> None:
        self._page.promise(self._slot)

    def tell(self, message: dict[str, Any]) -> None:
        """Send one message up. A dead master is noticed by the reader, not here."""
        box = Outbox()
        box.put(pack_up(message))
        try:
            with self._writing:
                box.flush(self.sock)
        except OSError:
            pass

    def hear(self) -> list[dict[str, Any]] | None:
        """The next messages from the master; None when it is gone."""
        try:
            if not self._inbox.read(self.sock):
                return None
        except OSError:
            return None
        return [unpack_down(body) for body in self._inbox.bodies()]

    def take_fds(self, n: int) -> list[int]:
        return self._inbox.take_fds(n)


@dataclass
class Child:
    """One child's place in the family. Everything is ready to use when `main(child)` is called.

    `name` is the slot (`gateway.0`, `worker.orders.1`, `ticker`, `web`): the same over restarts, unique while alive.
    `boot` is new for every start of the process; `owner` = names.owner_name(node, name, boot) holds its leases.
    `bus_boot` is new for every start of the master and is the first part of `boot` (`<bus_boot>.<n>`).
    `listeners`: the role's inherited listening sockets by address, as written in the configuration.
    `wakes`: worker group -> eventfd; gateways write 1 after a push, workers of that group watch it.
    `line` is None only in a child that a test made by hand: such a child has no master and `start` does nothing.
    """

    role: str
    name: str
    index: int
    group: str
    boot: str
    bus_boot: str
    owner: str
    config: Config
    log: Log
    listeners: dict[str, socket.socket] = field(default_factory=dict)
    wakes: dict[str, int] = field(default_factory=dict)
    on_config: Callable[[Config], None] = lambda config: (
        None
    )  # new configuration, taken in place; `wakes` already updated
    on_drain: Callable[[float], None] = lambda grace: (
        None
    )  # stop accepting/leasing, finish within `grace` seconds, leave
    on_command: Callable[[dict[str, Any]], dict[str, Any]] = (
        lambda command: {}
    )  # a relayed request; the answer goes back
    title: Callable[[], str] = lambda: ""  # what `ps` shows after the name; asked every few seconds
    line: Line | None = None
    started: bool = False

    def start(self) -> None:
        """Begin to beat from the hub, to read the control channel and to watch the master's life. Returns at once."""
        self.started = True
        if self.line is None:
            return
        self._asked: dict[int, gevent.event.AsyncResult[dict[str, Any]]] = {}
        self._numbers = count(1)
        self.line.beat()
        for forever in (self._beat_forever, self._hear_forever):
            # Deaf or without a heart it must not go on; gevent has printed the traceback.
            gevent.spawn(forever, self.line).link_exception(lambda _: os._exit(1))
        gevent.signal_handler(signal.SIGTERM, self._drain, self.config.bus.grace)
        if self.role == "worker":
            self._distrust_surprises()
        self.line.tell({"op": "ready", "generation": self.config.generation})

    def ask_master(self, request: dict[str, Any], timeout: float = 30.0) -> dict[str, Any]:
        """One request to the master (status, reload …) from a greenlet; its answer.

        Raises NotReachable when it does not come within `timeout` seconds.
        """
        if self.line is None or not self.started:
            raise NotReachable("this process has no master")
        number = next(self._numbers)
        result = self._asked[number] = gevent.event.AsyncResult()
        try:
            self.line.tell({"op": "ask", "id": number, "request": request})
            answer: dict[str, Any] | None = result.get(timeout=timeout)
        except gevent.Timeout:
            raise NotReachable(f"the master did not answer {request.get('op')!r} within {timeout:g} s") from None
        finally:
            del self._asked[number]
        return answer or {}

    def _distrust_surprises(self) -> None:
        """After an error that nobody caught a worker may hold a job that it does not know of, for as long as it lives.

        So it drains and leaves, and its successor takes back what it left. Refusals by the world outside are no surprise.
        """
        hub = gevent.get_hub()
        report = hub.handle_error

        def surprised(context: Any, kind: Any, error: Any, trace: Any) -> None:
            report(context, kind, error, trace)
            if not issubclass(kind, (*hub.NOT_ERROR, OSError, PepperbusError)):
                self.log.error("surprised", f"{kind.__name__}: {error}; leaving, so that nothing it holds is forgotten")
                self._drain(self.config.bus.grace)

        hub.handle_error = surprised  # type: ignore[assignment,method-assign]

    def _beat_forever(self, line: Line) -> None:
        waited = _TITLE_EVERY_S
        while True:
            line.beat()
            if waited >= _TITLE_EVERY_S:
                waited = 0.0
                setproctitle(f"pepperbus: {self.name} {self._safe_title()}".rstrip())
            gevent.sleep(beats.EVERY_S)
            waited += beats.EVERY_S

    def _safe_title(self) -> str:
        try:
            return self.title()
        except Exception as error:  # a title is no reason to die
            return f"(title: {error})"

    def _hear_forever(self, line: Line) -> None:
        while (messages := line.hear()) is not None:
            for message in messages:
                self._obey(line, message)
        self.log.warning("master_gone", f"the master is gone; leaving within {ORPHAN_S:g} s")
        gevent.spawn_later(ORPHAN_S, os._exit, 1)
        self._drain(ORPHAN_S / 2)

    def _obey(self, line: Line, message: dict[str, Any]) -> None:
        match message["op"]:
            case "wakes":
                groups = message["groups"]
                self.wakes.update(zip(groups, line.take_fds(len(groups)), strict=True))
            case "config":
                self._take_config(line, message["config"])
            case "generation":
                self.config = replace(self.config, generation=message["generation"])
                line.tell({"op": "generation", "generation": message["generation"], "error": ""})
            case "drain":
                self._drain(message["grace"])
            case "reopen":
                self.log.reopen()
            case "command":
                gevent.spawn(self._answer, line, message["id"], message["command"])
            case "answer":
                if waiting := self._asked.get(message["id"]):
                    waiting.set(message["answer"])

    def _take_config(self, line: Line, config: Config) -> None:
        self.config = config
        error = ""
        try:
            self.on_config(config)
        except Exception as failure:  # the master then replaces this process instead
            error = f"{type(failure).__name__}: {failure}"
            self.log.error("config_refused", error)
        line.tell({"op": "generation", "generation": config.generation, "error": error})

    def _drain(self, grace: float) -> None:
        gevent.spawn(self.on_drain, grace)

    def _answer(self, line: Line, number: int, command: dict[str, Any]) -> None:
        try:
            answer = self.on_command(command)
        except Exception as error:
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        line.tell({"op": "answer", "id": number, "answer": answer})
