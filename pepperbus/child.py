"""What every forked child is given, and how it hears from and answers to the master.

Floor 4's ground: gateways, workers, the ticker and the web sidecar are all started as `main(child)` of their package,
in a process that is already patched by gevent, with one `Child`. They know nothing of the mold or of the master's loop.

A main must: set its callbacks, call `child.start()` once, then run until it decides to leave and return normally
(exit status 0). It leaves after `on_drain` was called and its work is finished or the grace is over.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pepperbus.config.model import Config
from pepperbus.log import Log


@dataclass
class Child:
    """One child's place in the family. Everything is ready to use when `main(child)` is called.

    `name` is the slot (`gateway.0`, `worker.orders.1`, `ticker`, `web`): the same over restarts, unique while alive.
    `boot` is new for every start of the process; `owner` = names.owner_name(node, name, boot) holds its leases.
    `bus_boot` is new for every start of the master and is the first part of `boot` (`<bus_boot>.<n>`).
    `listeners`: the role's inherited listening sockets by address, as written in the configuration.
    `wakes`: worker group -> eventfd; gateways write 1 after a push, workers of that group watch it.
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

    def start(self) -> None:
        """Begin to beat from the hub, to read the control channel and to watch the master's life. Returns at once."""
        raise NotImplementedError

    def ask_master(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request to the master (status, reload …) from a greenlet; its answer."""
        raise NotImplementedError
