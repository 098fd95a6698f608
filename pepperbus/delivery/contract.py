"""The delivery contract: how a worker hands jobs to a consumer and what it hears back.

Floor 2: knows floor 0 only. A back end (`delivery.fastcgi`, `delivery.http`) turns one `Request` into one `Answer` and
judges nothing: what the answer means is `delivery.verdict`'s alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from pepperbus.job import Job
from pepperbus.log import Log


class Transport(Enum):
    """How far the exchange came; the first table of docs/CONSUME.md. Up to BUSY nothing can have run."""

    ANSWERED = "answered"  # a complete answer was read
    NO_LISTENER = "no listener"  # ENOENT, ECONNREFUSED, name not found
    FORBIDDEN = "forbidden"  # EACCES and the like: the address will not work until a person acts
    BUSY = "busy"  # EAGAIN, connect timeout, FCGI_OVERLOADED, FCGI_CANT_MPX_CONN: refused before it began
    CUT = "cut after sending"  # EOF, reset, no END_REQUEST, bad framing, protocol status: may have run
    TIMEOUT = "timeout"  # ours; may have run and may still run
    UNSENDABLE = "unsendable"  # our own rules refuse it (NUL in a param …): can never work


class Delivered(NamedTuple):
    """One job of a request and the number of this attempt (1 first)."""

    job: Job
    attempt: int
    first_due_ms: int = 0


class Request(NamedTuple):
    """One exchange: a data call with its jobs (one, unless `chunk`), or a ping (`jobs` empty, `ping` True)."""

    queue: str
    topic: str
    trace: str  # outTraceId of this attempt
    jobs: tuple[Delivered, ...] = ()
    ping: bool = False
    deadline_s: float = 3600.0  # seconds this attempt may take, all in all
    now_ms: int = 0  # wall time when it was made


@dataclass(slots=True)
class Answer:
    """What came back. `headers` have lower-case names; `status` is HTTP's (FastCGI: `Status:`, 200 if absent)."""

    transport: Transport
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stderr: bytes = b""
    detail: str = ""  # for people: what failed, with address and errno text
    connect_ms: float = 0.0
    total_ms: float = 0.0
    reconnected: bool = False  # a kept connection was found closed before sending and replaced


class Consumer(Protocol):
    """The way to one topic's consumer, in one process. Bounded by the topic's slots; never judges, never retries."""

    address: str  # for people: unix:/run/php/php-fpm.sock, http://…
    dedicated: bool  # the target serves the bus alone (php-fpm: `dedicated = yes`; HTTP: True)

    def pack(self, request: Request) -> object:
        """What `start` would make of the request before it sends anything; made ahead, many at a time. Never raises."""

    def start(self, request: Request, done: Callable[[Answer], None], packed: object = None) -> None:
        """Begin an exchange and return at once. `done` is called exactly once, later, in the hub or a greenlet.

        `packed` is what `pack` gave for this request, or None.
        `done` must not block. The exchange ends by `request.deadline_s` at the latest (Transport.TIMEOUT).
        """

    def call(self, request: Request) -> Answer:
        """The same, waiting in the calling greenlet; for pings, the test console and the command line."""

    def reachable(self) -> bool:
        """Whether a connection can be made now; sends nothing. Waits in the calling greenlet, at most a second or two."""

    def close(self) -> None:
        """Let go of idle connections; exchanges under way are cut and report CUT."""


class Sender(Protocol):
    """Who has a request to send. Of `hand_on` and `answered` one is called, once, when it has ended."""

    @property
    def request(self) -> Request: ...

    @property
    def packed(self) -> object:
        """What `pack` gave for it."""

    def hand_on(self, answer: Answer) -> Sender | None:
        """Offered an answer that came before, byte for byte: takes it and gives whose turn it is in its place.

        That one is to be sent at once. None: it did not take it, and `answered` is to be called. Must not block.
        """

    def answered(self, answer: Answer) -> None:
        """The end. Must not block."""


@runtime_checkable
class Relay(Protocol):
    """A `Consumer` in which one request can follow another on its way, without a start of its own."""

    def relay(self, sender: Sender) -> None:
        """As `Consumer.start`, and those that follow."""


@runtime_checkable
class Staff(Protocol):
    """Processes that a worker keeps for one topic (`run = command`), with or without being its `Consumer`."""

    address: str  # for people: the command

    def keep(self, seats: Path, wanted: Callable[[], int], log: Log) -> None:
        """See from now on that `wanted()` of them live; `seats`: the file by which the node's workers share their number."""

    def facts(self) -> dict[str, Any]:
        """restarts, why, next_start_s, processes: pid, state, uptime_s, tasks, memory (bytes), why, said."""

    def leave(self) -> None:
        """Start none any more; who is not at work goes. Returns at once."""

    def end(self, grace_s: float) -> None:
        """All are to go: SIGINT, `grace_s` seconds, SIGKILL. Returns at once."""

    def gone(self, timeout: float) -> bool:
        """Wait in the calling greenlet until none is left; whether that came true."""


class Act(Enum):
    """What the pump does with the jobs of an exchange."""

    DONE = "done"
    RETRY = "retry"  # by the topic's schedule (or `after_s`), or dead when the budget is used up
    DEAD = "dead"  # at once
    BACK = "back"  # refused: not started, no attempt spent
    UNREGISTERED = "unregistered"  # 404 under `sdk`: ping decides


class TargetEffect(Enum):
    """What the exchange says about the target, apart from the job."""

    FINE = "fine"  # it answered: window may grow
    BUSY = "busy"  # full: window halves, no breaker
    DOWN = "down"  # nobody listens: breaker opens, probe
    STOPPED = (
        "stopped"  # misconfigured (script path, access, 401/403, no Code): topic stops, says why, resumes by itself
    )
    PROBE = "probe"  # 404/410 under `status`: topic probes until it is back
    STRAINED = "strained"  # timeout or cut: window halves, counts towards the breaker
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on one exchange. `code` and `error_code` go to the journal; `reason` is one line for people."""

    act: Act
    effect: TargetEffect
    spent: bool  # whether the attempt counts
    code: int
    error_code: str = ""
    reason: str = ""
    after_s: float | None = None  # Retry-After, seconds
    zombie: bool = False  # the script may still run: keep the slot, no retry before zombie_grace
    pause: bool = False  # the consumer asked to pause the topic (X-Pepperbus-Verdict: pause)
    failed_ids: frozenset[int] = frozenset()  # with chunk: only these failed
