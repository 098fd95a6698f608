"""What operations answer: plain structs that are the same in `--json` and in the API.

Floor 4. Times end in `_ms` and are wall time in ms (0 = does not apply), durations in `_s`. Job ids are strings: 64 bits do
not fit into JSON numbers. Bytes are text; where they are not UTF-8 they are base64 and `encoding` says so.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec


class Result(msgspec.Struct):
    """Anything an operation returns."""


def to_json(result: Any, indent: int = 0) -> bytes:
    """The one way a result becomes JSON."""
    data = msgspec.json.encode(result)
    return msgspec.json.format(data, indent=indent) if indent else data


def to_text(data: bytes) -> tuple[str, str]:
    """Bytes as (text, encoding): encoding is "" or "base64"."""
    try:
        return data.decode(), ""
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), "base64"


class Percentiles(Result):
    """Of one histogram since the bus started, in seconds."""

    count: int = 0
    p50_s: float = 0.0
    p90_s: float = 0.0
    p99_s: float = 0.0


class CanaryStatus(Result):
    """A topic's second consumer: its share (0 to 1) of the jobs; how many it was given, did, or left to the first one."""

    target: str
    share: float
    tried: int = 0
    served: int = 0
    fell_back: int = 0
    run_time: Percentiles = msgspec.field(default_factory=Percentiles)


class TopicStatus(Result):
    """One topic: where its jobs are, what happened since the bus started, rates per second of the last interval.

    `state`: idle, feeding, paused, stopped, down, probing, or detached (in no configuration any more); `why`: what
    closed its target, as a worker says. `error` is set when its storage did not answer; the depths then mean nothing.
    `standing`: where `concurrency` stands in its range, and why; `staff`: the processes of its command, worker by worker.
    `closed`: whether it gets no new jobs any more: "", yes, or remove: and goes once it is empty.
    """

    name: str
    storage: str
    run: str = ""
    target: str = ""
    state: str = "idle"
    paused: bool = False
    ready: int = 0
    delayed: int = 0
    leased: int = 0
    dead: int = 0
    oldest_ms: int = 0
    pushed: int = 0
    popped: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    died: int = 0
    returned: int = 0
    in_flight: int = 0
    window: int = 0
    in_rate: float = 0.0
    out_rate: float = 0.0
    wait: Percentiles = msgspec.field(default_factory=Percentiles)
    run_time: Percentiles = msgspec.field(default_factory=Percentiles)
    why: str = ""
    error: str = ""
    standing: str = ""
    staff: list[dict[str, Any]] = msgspec.field(default_factory=list)
    canary: CanaryStatus | None = None
    closed: str = ""


class IntakeStatus(Result):
    """A list that a queue takes from. `moved` since this node's ticker started, `rate` a second; `waiting` in the list;
    `refused`: elements that are no jobs. `holder`: another that takes instead of us. `error`: what keeps it."""

    name: str
    key: str
    moved: int = 0
    rate: float = 0.0
    waiting: int = 0
    refused: int = 0
    holder: str = ""
    error: str = ""


class QueueStatus(Result):
    """`closed`: whether it takes no pushes any more: "", yes, or remove: and goes once it is empty.

    `standing`: where `workers` stands in its range, and why.
    """

    name: str
    system: str = ""
    tags: tuple[str, ...] = ()
    durability: str = ""
    pushed: int = 0
    refused: int = 0
    unknown: int = 0
    in_rate: float = 0.0
    push: Percentiles = msgspec.field(default_factory=Percentiles)
    topics: list[TopicStatus] = msgspec.field(default_factory=list)
    intakes: list[IntakeStatus] = msgspec.field(default_factory=list)
    closed: str = ""
    standing: str = ""


class StorageStatus(Result):
    """`used`, `limit` in bytes. `operations`: so far; `ops_s` of the last interval: commands of a Redis, commits of an
    embedded one; `clients`: who has it open; `latency_ms`: how long it took to say all this."""

    name: str
    type: str
    alive: bool
    version: str = ""
    durability: str = ""
    used: int = 0
    limit: int = 0
    detail: str = ""
    operations: int = 0
    clients: int = 0
    ops_s: float = 0.0
    latency_ms: float = 0.0


class NodeStatus(Result):
    """Another node, as the storages know it that it shares with this one. `silent_s`: since it last said that it lives."""

    name: str
    alive: bool
    silent_s: float
    storages: list[str]


class Status(Result):
    """A node at one moment. `running`: its master answered; `processes` as the master tells. `problems`: first things
    first, empty when all is well. `detached`: topics with jobs that no queue file names. `nodes`: the others."""

    node: str
    at_ms: int
    running: bool
    problems: list[str] = msgspec.field(default_factory=list)
    master: dict[str, Any] = msgspec.field(default_factory=dict)
    processes: list[dict[str, Any]] = msgspec.field(default_factory=list)
    queues: list[QueueStatus] = msgspec.field(default_factory=list)
    storages: list[StorageStatus] = msgspec.field(default_factory=list)
    detached: list[TopicStatus] = msgspec.field(default_factory=list)
    nodes: list[NodeStatus] = msgspec.field(default_factory=list)


class JobView(Result):
    """A job as it lies in one topic. `content` may be its beginning only: `size` is the whole length in bytes."""

    id: str
    topic: str
    state: str
    attempts: int = 0
    crashes: int = 0
    accepted_ms: int = 0
    due_ms: int = 0
    dead_ms: int = 0
    reason: str = ""
    owner: str = ""
    client: str = ""
    trace: str = ""
    content: str = ""
    encoding: str = ""
    size: int = 0


class TopicPage(Result):
    """A piece of a list of `found` topics. `cursor`: asks for those behind it, `before`: for those ahead; "" for none."""

    topics: list[TopicStatus]
    found: int
    cursor: str = ""
    before: str = ""


class QueuePage(Result):
    """A piece of a list of `found` queues, by name. `cursor`: asks for those behind it, `before`: for those ahead."""

    queues: list[QueueInfo]
    found: int
    cursor: str = ""
    before: str = ""


class JobPage(Result):
    """A piece of a listing; `cursor` "" means there is no more. `looked_at`: jobs that the filter saw."""

    jobs: list[JobView]
    cursor: str = ""
    looked_at: int = 0


class Event(Result):
    """One journal row. `php_file` and `php_line`: where PHP's last message on stderr points."""

    event: str
    id: str
    topic: str
    at_ms: int
    attempt: int = 0
    node: str = ""
    process: str = ""
    outcome: str = ""
    code: int = 0
    error_code: str = ""
    reason: str = ""
    out_trace: str = ""
    in_trace: str = ""
    client: str = ""
    accepted_ms: int = 0
    wait_ms: float = 0.0
    run_ms: float = 0.0
    body: str = ""
    stderr: str = ""
    content: str = ""
    encoding: str = ""
    php_file: str = ""
    php_line: int = 0
    fields: tuple[str, ...] = ()


class EventPage(Result):
    """Newest first. `complete` False: the look stopped after 2 s; it had come back to `reached_ms`."""

    events: list[Event]
    complete: bool = True
    reached_ms: int = 0


class TopicLife(Result):
    """One job in one topic. `state`: ready, delayed, leased, dead, or what became of it: done, popped, removed, gone.

    `now` is that in words.
    """

    topic: str
    state: str
    now: str = ""
    job: JobView | None = None
    events: list[Event] = msgspec.field(default_factory=list)


class Life(Result):
    id: str
    accepted_ms: int
    client: str = ""
    trace: str = ""
    content: str = ""
    encoding: str = ""
    size: int = 0  # 0: only the journal's beginning of the content is left
    topics: list[TopicLife] = msgspec.field(default_factory=list)
    errors: list[str] = msgspec.field(default_factory=list)  # storages that did not answer


class Pushed(Result):
    """`ids`: the first 100 (empty where the queue answers integers). `unknown`: may or may not be stored."""

    queue: str
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    ids: list[str] = msgspec.field(default_factory=list)
    seconds: float = 0.0
    error: str = ""
    interrupted: bool = False


class Purged(Result):
    matched: int = 0
    removed: int = 0
    dry_run: bool = False
    stopped: str = ""


class Paused(Result):
    topics: list[str]
    paused: bool


class Pinged(Result):
    """`registered`: the consumer would take this topic's jobs; `reason` says why (not). `command`: the same from a shell;
    `node`: where it was called from."""

    topic: str
    address: str
    registered: bool
    reason: str
    transport: str
    status: int = 0
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: str = ""
    stderr: str = ""
    connect_ms: float = 0.0
    total_ms: float = 0.0
    command: str = ""
    node: str = ""


class Sent(Result):
    """One job straight to the consumer; nothing was stored and nothing counted. `act`: done, retry, dead, back …

    `command`: the same request from a shell, without its secrets; `node`: where it was called from.
    """

    topic: str
    address: str
    id: str
    act: str
    code: int
    error_code: str
    reason: str
    transport: str
    status: int = 0
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: str = ""
    stderr: str = ""
    connect_ms: float = 0.0
    total_ms: float = 0.0
    command: str = ""
    node: str = ""


class Checked(Result):
    ok: bool
    file: str = ""
    queues: int = 0
    topics: int = 0
    storages: int = 0
    mistakes: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)


class Steered(Result):
    """What the master answered to a request (`op`)."""

    op: str
    ok: bool
    message: str = ""
    answer: dict[str, Any] = msgspec.field(default_factory=dict)


class QueueFile(Result):
    """A queue's file after a change (`created`, `changed`, `removed`, `unchanged`).

    `reloaded`: the running bus took it. Else `reload` says why not; `refused`: it runs and would not.
    """

    name: str
    file: str
    what: str
    reloaded: bool = False
    refused: bool = False
    reload: str = ""


class TopicInfo(Result):
    """What a topic is set to. Passwords and signing secrets never appear."""

    name: str
    storage: str
    run: str
    target: str
    settings: dict[str, Any]


class QueueInfo(Result):
    name: str
    file: str
    settings: dict[str, Any]
    topics: list[TopicInfo]
