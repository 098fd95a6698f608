"""What the gateway knows of one client: login, protocol, name, an open MULTI. And what all sessions share.

Knows no socket: a `Session` turns into replies through `commands.execute`; the connection decides when they are sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from pepperbus.gateway import replies
from pepperbus.gateway.circle import Circle
from pepperbus.gateway.express import Express
from pepperbus.gateway.handful import Handful
from pepperbus.gateway.handout import Handout
from pepperbus.gateway.logins import Login, Passwords, Throttle, still_valid
from pepperbus.gateway.process import Process
from pepperbus.gateway.route import QueueRoute, Target
from pepperbus.gateway.routes import Routes
from pepperbus.gateway.submission import Submission, Waiter
from pepperbus.gateway.taken import Taken
from pepperbus.job import Stamp
from pepperbus.storage.contract import Push


@dataclass(eq=False)
class Front:
    """What all sessions of this process share. `routes` is replaced at a reload; nothing else is."""

    process: Process
    routes: Routes
    handout: Handout
    circle: Circle
    passwords: Passwords = field(default_factory=Passwords)
    throttle: Throttle = field(default_factory=Throttle)
    numbers: count[int] = field(default_factory=lambda: count(1))
    started: float = 0.0
    clients: Callable[[], int] = lambda: 0


@dataclass(slots=True)
class Later:
    """An answer that needs a storage: `run` is called in a greenlet once all earlier replies are known.

    `after(written)` is called once the reply is in the socket's hands (True) or can no longer get there.
    """

    run: Callable[[], bytes]
    after: Callable[[bool], None] | None = None


@dataclass(slots=True)
class Block:
    """An answer that may take for ever: `run`, in a greenlet as with `Later`, knows it, or calls its argument with it later.

    `stop` is called when the client goes away meanwhile; `after` as with `Later`.
    """

    run: Callable[[Callable[[bytes], None]], bytes | None]
    stop: Callable[[], None]
    after: Callable[[bool], None]


@dataclass(slots=True)
class Wait:
    """An answer that is held back for some seconds; the client's later commands wait behind it."""

    seconds: float
    reply: bytes


@dataclass(slots=True)
class Goodbye:
    """The last answer: the connection closes behind it."""

    reply: bytes


Answer = bytes | Submission | Handful | Later | Block | Wait | Goodbye


class Transaction:
    """What stands between MULTI and EXEC."""

    __slots__ = ("named", "pushes", "refused", "replies", "routes", "size")

    def __init__(self) -> None:
        self.pushes: list[tuple[QueueRoute, list[Push]]] = []
        self.replies: list[bytes] = []
        self.named: list[tuple[list[int], bytes] | None] = []  # ids and trace of each reply that tells them
        self.refused = False
        self.size = 0

    def refuse(self) -> None:
        """It will not run: EXEC says so, and what it held is let go."""
        self.refused = True
        self.pushes.clear()
        self.replies.clear()
        self.named.clear()


class Session:
    """One client. `local`: it came over loopback or a unix socket."""

    __slots__ = (
        "_checked",
        "_login",
        "arrived",
        "client",
        "express",
        "front",
        "granted",
        "holding",
        "left",
        "local",
        "name",
        "number",
        "one_job",
        "process",
        "protocol",
        "stamp",
        "trace_tail",
        "traceparent",
        "transaction",
        "unacked",
        "waiter",
    )

    def __init__(self, front: Front, waiter: Waiter, client: str, local: bool, trace_tail: bytes) -> None:
        self.front = front
        self.process = front.process
        self.waiter = waiter
        self.client = client.encode()[:255]
        self.local = local
        self.trace_tail = trace_tail
        self.number = next(front.numbers)
        self.protocol = 2
        self.name = b""
        self.arrived = 0.0  # monotonic, when the bytes being worked on came
        self.traceparent = b""  # what its jobs get as inTraceId instead of one of ours
        self.transaction: Transaction | None = None
        self.granted: QueueRoute | None = None  # the queue this client was last allowed to push to
        self.express: Express | None = None  # the quick way to where it last pushed
        self.holding: list[Taken] = []  # what it popped and has not said to be done
        self.left = False  # its connection is closed
        self.unacked = 0  # what it read and nobody has acknowledged
        self.stamp = Stamp(trace_tail, self.client)
        self.one_job = replies.one_job_form(trace_tail)
        self._login: Login | None = None
        self._checked = front.routes

    @property
    def login(self) -> Login | None:
        """The login as the present configuration sees it."""
        if self._checked is not self.front.routes:
            self._checked = self.front.routes
            if self._login is not None:
                self._login = still_valid(self.front.routes.config, self._login)
        return self._login

    @login.setter
    def login(self, login: Login | None) -> None:
        self._login = login
        self.granted = self.express = None

    @property
    def trusted(self) -> bool:
        """Logged in, or in no need of it."""
        return self.login is not None or (self.local and self.front.routes.any_open)

    def gone(self) -> None:
        """The connection is closed, or as new: what it popped was not done."""
        if self.holding:
            had, self.holding = self.holding, []
            self.front.handout.fail(
                had, f"{self.client.decode()} closed its connection before it said that it was done"
            )

    def reset(self) -> None:
        self.gone()
        self.login = None
        self.protocol = 2
        self.name = self.traceparent = b""
        self.transaction = None

    def express_for(self, data: bytes) -> Express | None:
        """The quick way for the plain push that `data` begins with; None: not that, or not for this client."""
        express = self.express
        if express is not None and express.routes is self.front.routes and data.startswith(express.head):
            return express
        express = self.front.routes.express_for(data)
        if express is None or not self.may_push(express.target):
            return None
        self.express = express
        return express

    def may_push(self, target: Target) -> bool:
        route, login = target.route, self.login
        if route is not None and self.local and route.queue.open:
            return True
        return login is not None and login.may_push(target.queue)

    def may_pop(self, target: Target) -> bool:
        route, login = target.route, self.login
        if route is not None and self.local and route.queue.open:
            return True
        return login is not None and login.may_pop(target.queue, target.topic)
