"""The configuration as the rest of the program sees it: frozen, complete, already validated.

Floor 1. Made only by `config.load`; nobody else ever touches a ConfigObj. Durations are seconds, sizes are bytes.
Two equal values mean "nothing to reload": a HUP compares these dataclasses field by field.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from pepperbus.config.alarm_settings import Alarms, Limits
from pepperbus.config.backoff import DEFAULT, Backoff
from pepperbus.config.canary import Canary
from pepperbus.config.joboptions import Halt, Quiet, Rate, Unique
from pepperbus.config.secret import Secret
from pepperbus.config.signon_settings import Ldap, Oidc
from pepperbus.config.timing import Schedule
from pepperbus.names import topic_name

MOST_GATEWAYS = 16  # gateway processes of one node; as many as ids have slots


def gateway_wake(index: int) -> str:
    """How the eventfd of a gateway is called among those of worker sets."""
    return f"@gateway.{index}"


@dataclass(frozen=True)
class Bus:
    node: str
    shard: int = 2
    tags: tuple[str, ...] = ()
    data_dir: Path = Path("var/data")
    run_dir: Path = Path("var/run")
    grace: float = 30.0
    user: str = ""
    group: str = ""
    memory_limit: int = 512 << 20  # bytes, per child; 0 = none
    consumer: bool = True


@dataclass(frozen=True)
class Gateway:
    listen: tuple[str, ...] = ("127.0.0.1:12017",)  # host:port, [v6]:port or unix:/path
    processes: int = 1
    cert: Path | None = None
    key: Path | None = None
    public: bool = False
    max_clients: int = 10_000
    max_inline: int = 64 << 10
    max_bulk: int = 8 << 20
    max_args: int = 65_536
    max_unread: int = 64 << 20


@dataclass(frozen=True)
class Web:
    listen: tuple[str, ...] = ("127.0.0.1:19840",)
    public: bool = False
    cert: Path | None = None
    key: Path | None = None
    hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    session_idle: float = 12 * 3600.0
    session_longest: float = 7 * 86400.0
    legacy_loopback: bool = False  # the Go system's admin addresses without a login, from loopback


@dataclass(frozen=True)
class Log:
    file: str = "-"  # "-" = standard error
    level: str = "info"
    format: str = "text"
    errors: str = ""  # a second file that gets warnings and worse only


@dataclass(frozen=True)
class Journal:
    keep: float = 14 * 86400.0
    max_bytes: int = 2 << 30
    content: int = 1024


@dataclass(frozen=True)
class StorageConfig:
    name: str
    type: str  # embedded | redis
    url: Secret = Secret()  # redis://[user:password@]host:port/db, unix:///path?db=0; may hold a password
    mode: str = "redis"  # redis | pika
    store_timeout: float = 3.0
    path: Path | None = None  # embedded: where its files lie (data_dir/<name>)


@dataclass(frozen=True)
class FastcgiPool:
    name: str
    address: str  # unix:/path or host:port
    max_connections: int = 4
    dedicated: bool = False
    keepalive: bool = False
    guard: str = "auto"  # auto | always | off
    status: str = ""  # php-fpm's pm.status_listen: address/path
    connect_timeout: float = 1.0
    script_root: tuple[str, ...] = ()


@dataclass(frozen=True)
class Http:
    """Where HTTP consumers may be; what the words mean is `config.reach`'s."""

    allow: tuple[str, ...] = ()  # empty = everywhere that is not denied
    deny: tuple[str, ...] = ()
    own: tuple[int, ...] = ()  # the ports this bus itself listens at


@dataclass(frozen=True)
class Login:
    name: str
    password: Secret
    push: bool
    pop: bool
    queues: tuple[str, ...]  # fnmatch patterns


@dataclass(frozen=True)
class Span:
    """A number, or a range between whose ends the bus moves."""

    least: int
    most: int


@dataclass(frozen=True)
class Topic:
    queue: str
    name: str
    storage: str
    run: str  # fastcgi | http | pull | command
    pool: str = ""
    script: str = ""
    urls: tuple[str, ...] = ()
    body: str = "form"  # form | raw
    contract: str = "sdk"  # sdk | status
    ping: bool = True
    host: str = ""
    sign: Secret = Secret()
    concurrency: int = 4  # the most; of run = command: of its children
    least: int = 0  # where `concurrency` is a range: its lower end, else 0
    timeout: float = 3600.0
    attempts: int = 20
    backoff: Backoff = DEFAULT
    max_age: float = 3 * 86400.0
    zombie_grace: float = 60.0
    chunk: int = 1
    max_length: int = 0  # 0 = no limit
    password: Secret = Secret()
    tags: tuple[str, ...] = ()
    paused: bool = False
    closed: str = "no"  # no | yes: gets no new jobs | remove: and goes once it is empty
    consumer: bool = True
    dead_on: tuple[int, ...] = (400, 413, 415, 422)
    canary: Canary | None = None
    unique: Unique | None = None
    order_by: str = ""  # path into the job's JSON
    rate: Rate | None = None
    quiet: Quiet | None = None
    halt: Halt | None = None
    pop: str = "once"  # once | leased
    lease: float = 60.0
    params: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    feed: str = "stdin"  # stdin | exec | pull | none
    max_task: int = 1000  # 0 = no limit
    max_memory: int = 0  # bytes, 0 = no limit
    entry: str = ""
    directory: str = "/"
    user: str = ""  # "" = that of the bus
    environment: tuple[tuple[str, str], ...] = ()
    hidden: tuple[str, ...] = ()  # params, headers and variables whose values came by reference and are not shown
    alarms: Limits = field(default=(), compare=False)  # not compared: no worker is replaced because of them

    @property
    def full_name(self) -> str:
        return topic_name(self.queue, self.name)

    def second(self) -> Topic:
        """The topic as its canary serves it. Only where there is one."""
        assert self.canary is not None
        if self.canary.url:
            return replace(self, run="http", urls=(self.canary.url,), pool="", script="", host="", canary=None)
        return replace(self, run="fastcgi", pool=self.canary.pool, script=self.canary.script, urls=(), canary=None)

    @property
    def pulled(self) -> bool:
        """Its consumers come to the gateway for jobs."""
        return self.run == "pull"

    @property
    def taken(self) -> bool:
        """Clients of the gateways may wait for its jobs, or nobody else looks after those that become due."""
        return self.pulled or self.kept or self.pop == "leased"

    @property
    def kept(self) -> bool:
        """The bus only keeps its processes alive; they find their work themselves."""
        return self.run == "command" and self.feed in ("pull", "none")

    @property
    def scaled(self) -> bool:
        """`concurrency` or `children` is a range."""
        return 0 < self.least < self.concurrency


@dataclass(frozen=True)
class Intake:
    """A list of somebody else's Redis whose elements become jobs of a queue."""

    name: str
    url: Secret
    key: str
    format: str = "raw"  # raw | pepperbus
    end: str = "right"  # right | left
    topic: str = ""  # "" = all of the queue
    failed: bool = False
    mode: str = "auto"  # auto | redis | pika


@dataclass(frozen=True)
class Queue:
    name: str
    password: Secret
    topics: dict[str, Topic]
    storage: str
    open: bool = False  # open = loopback
    keys: tuple[str, ...] = ()
    system: str = ""
    tags: tuple[str, ...] = ()
    durability: str = "process"
    reply: str = "auto"  # auto | json | redis
    rpush: str = "front"  # front | normal
    process_group: str = ""  # "" = a group of its own
    closed: str = "no"  # no | yes: takes no pushes | remove: and goes once it is empty
    history: float = 0.0  # s; the content of finished jobs is kept so long
    workers: int = 1  # the most
    least_workers: int = 0  # where `workers` is a range: its lower end, else 0
    index: tuple[str, ...] = ()  # paths into a job's JSON
    schedule: dict[str, Schedule] = field(default_factory=dict)
    file: Path | None = None
    intakes: tuple[Intake, ...] = ()

    @property
    def group(self) -> str:
        """The worker set that serves this queue."""
        return self.process_group or self.name

    @property
    def takers(self) -> tuple[Topic, ...]:
        """The topics that new jobs are copied to; none while the queue, or every one of them, is closed."""
        if self.closed != "no":
            return ()
        return tuple(topic for topic in self.topics.values() if topic.closed == "no")


@dataclass(frozen=True)
class Tracing:
    """Where spans of traced jobs go; no endpoint = nowhere."""

    endpoint: str = ""
    service: str = "pepperbus"


@dataclass(frozen=True)
class Config:
    """Everything. `generation` counts accepted configurations of one master."""

    file: Path
    queue_files: str
    bus: Bus
    gateway: Gateway
    web: Web
    log: Log
    journal: Journal
    storages: dict[str, StorageConfig]
    pools: dict[str, FastcgiPool]
    logins: dict[str, Login]
    queues: dict[str, Queue]
    oidc: Oidc = Oidc()
    ldap: Ldap = Ldap()
    generation: int = 0
    http: Http = Http()
    tracing: Tracing = Tracing()
    alarms: Alarms = Alarms()
    secret_files: tuple[Path, ...] = ()  # what `file:` named

    def topic(self, full_name: str) -> Topic | None:
        """`queue/topic` -> its Topic, None when there is none."""
        queue, _, name = full_name.partition("/")
        found = self.queues.get(queue)
        return found.topics.get(name) if found else None

    def takes(self, full_name: str) -> bool:
        """Whether `queue/topic` gets new jobs."""
        topic = self.topic(full_name)
        return topic is not None and topic in self.queues[topic.queue].takers

    def consumes(self, topic: Topic) -> bool:
        """Whether this node feeds that topic's consumer (tags, `consumer` switches); who pulls is fed by nobody."""
        if not (self.bus.consumer and topic.consumer) or topic.pulled:
            return False
        return not self.bus.tags or not topic.tags or bool(set(self.bus.tags) & set(topic.tags))

    def sleepers(self) -> list[str]:
        """Who sleeps until there is a push: worker sets, and gateways once clients may wait for jobs there."""
        taken = any(topic.taken for queue in self.queues.values() for topic in queue.topics.values())
        return [*self.groups(), *(gateway_wake(index) for index in range(MOST_GATEWAYS) if taken)]

    def groups(self) -> dict[str, list[Queue]]:
        """Worker set -> the queues it serves; only queues with a topic this node consumes."""
        groups: dict[str, list[Queue]] = {}
        for queue in self.queues.values():
            if any(self.consumes(topic) for topic in queue.topics.values()):
                groups.setdefault(queue.group, []).append(queue)
        return groups
