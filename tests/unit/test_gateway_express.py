"""The quick way of plain pushes against the usual one: the same bytes, however cut, bring the same replies and the same jobs.

The usual way is had by a limit on values below what the quick one is ready to take.
"""

import socket
import time
from _socket import socket as PlainSocket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pepperbus.clock import ManualClock, SystemClock
from pepperbus.config.model import Bus, Config, Gateway, Journal, Login, Queue, StorageConfig, Topic, Web
from pepperbus.config.model import Log as LogConfig
from pepperbus.config.secret import Secret
from pepperbus.errors import StorageUnavailable, StorageUnknown
from pepperbus.gateway.commit import Lane
from pepperbus.gateway.connection import Connection
from pepperbus.gateway.process import Process
from pepperbus.gateway.routes import Routes
from pepperbus.gateway.session import Front
from pepperbus.ids import IdGenerator
from pepperbus.job import State
from pepperbus.log import Log
from pepperbus.stats import Writer, read_all
from pepperbus.storage.memory import MemoryStorage
from pepperbus.wire import plain_push, resp
from tests.unit.test_resp import pack

LOG = Log("gateway.0", "/dev/null")
QUICK = resp.Limits()
USUAL = resp.Limits(max_bulk=plain_push.MAX_VALUE - 1)
TOPICS = ("json/a", "json/b", "plain/a", "limited/a", "two/a", "two/b")


class House:
    """One gateway's parts over two memory storages; its clock stands still, so that ids repeat."""

    max_unread = 1 << 20

    def __init__(self, where: Path, limits: resp.Limits) -> None:
        self.stats = where
        self.limits = limits
        clock = ManualClock()
        self.storages, self.lanes = {}, {}
        for name in ("s1", "s2"):
            config = StorageConfig(name, "memory", store_timeout=60)
            self.storages[name] = MemoryStorage(config, clock)
            lane = Lane(self.storages[name], config, SystemClock(), LOG, lambda: None)
            lane.keep_open(lambda storage: None)
            self.lanes[name] = lane
        self.config = make_config(where)
        self.writer = Writer(where, "gateway.0")
        ids = IdGenerator(2, 0, clock.now_ms)
        routes = Routes.build(self.config, self.lanes, self.writer, {})
        process = Process("gateway.0", "n", "o", clock, ids, LOG, journal=None)  # type: ignore[arg-type]
        self.front = Front(process, routes, handout=None, circle=None)  # type: ignore[arg-type]
        process.turn_ms = clock.now_ms()
        self.deadlines: list[float | None] = []

    def leave(self, connection: Connection) -> None:
        pass

    def deadline(self, connection: Connection, seconds: float | None) -> None:
        self.deadlines.append(seconds)

    def reload(self) -> None:
        self.front.routes = Routes.build(self.config, self.lanes, self.writer, {})

    def client(self) -> tuple[Connection, socket.socket]:
        """A connection that nobody reads for: the test hands it the bytes. And the client's end."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        plain = PlainSocket(ours.family, ours.type, 0, fileno=ours.detach())
        return Connection(self, plain, "10.0.0.1:1", False, b"-1-2", self.limits), theirs

    def settle(self) -> None:
        while any(lane.busy for lane in self.lanes.values()):
            gevent.sleep(0)
        gevent.sleep(0)

    def jobs(self) -> list[tuple[str, int, bytes]]:
        both = [storage.peek(t, state) for storage in self.storages.values() for t in TOPICS for state in State]
        return [(job.topic, job.job_id, job.body) for page in both for job in page.jobs]

    def counts(self) -> dict[str, list[int]]:
        return {name: totals.counters for name, totals in read_all(self.stats).items()}

    def close(self) -> None:
        for lane in self.lanes.values():
            lane.close()
        self.writer.close()
        gevent.sleep(0)  # the lanes' writers end


def make_config(where: Path) -> Config:
    def queue(name: str, topics: dict[str, str], **words: object) -> Queue:
        most = words.pop("max_length", 0)
        made = {t: Topic(name, t, storage=s, run="fastcgi", max_length=most) for t, s in topics.items()}  # type: ignore[arg-type]
        return Queue(name, password=Secret("pw"), storage="s1", durability="memory", topics=made, **words)  # type: ignore[arg-type]

    queues = (
        queue("json", {"a": "s1", "b": "s1"}),
        queue("plain", {"a": "s2"}, reply="redis"),
        queue("limited", {"a": "s1"}, max_length=2),
        queue("two", {"a": "s1", "b": "s2"}),
    )
    return Config(
        file=where / "x",
        queue_files="",
        bus=Bus(node="n", data_dir=where, run_dir=where),
        gateway=Gateway(),
        web=Web(),
        log=LogConfig(),
        journal=Journal(),
        storages={},
        pools={},
        logins={
            "all": Login("all", Secret("pw"), True, False, ("*",)),
            "one": Login("one", Secret("pw"), True, False, ("json",)),
        },
        queues={q.name: q for q in queues},
    )


def say(limits: resp.Limits, pieces: list[bytes], reload_at: int = -1) -> tuple[bytes, object, object]:
    """Everything a client hears that sends `pieces`, what is stored then, and the counters."""
    with TemporaryDirectory() as where:
        house = House(Path(where), limits)
        try:
            connection, theirs = house.client()
            connection.received(pack(b"AUTH", b"all", b"pw") + b"".join(pack(b"LPUSH", key, b"first") for key in KEYS))
            heard = bytearray()
            for i, piece in enumerate(pieces):
                if i == reload_at:
                    house.reload()
                connection.received(piece)
                house.settle()
                heard += drained(theirs)
            connection.close()
            theirs.close()
            return bytes(heard), house.jobs(), house.counts()
        finally:
            house.close()


def drained(sock: socket.socket) -> bytes:
    data = bytearray()
    while True:
        try:
            more = sock.recv(1 << 20)
        except BlockingIOError:
            return bytes(data)
        if not more:
            return bytes(data) + b"<end>"
        data += more


KEYS = (b"json/x", b"json", b"plain/y", b"plain", b"limited/x", b"two/x")
VALUE = st.one_of(
    st.binary(max_size=20), st.sampled_from([b"", b"\r\n", plain_push.head_of(b"LPUSH", b"json/x") + b"1\r\n"])
)
PLAIN = st.builds(lambda v, k, x: pack(v, k, x), st.sampled_from([b"LPUSH", b"lpush"]), st.sampled_from(KEYS), VALUE)
OTHER = st.sampled_from(
    [
        pack(b"PING"),
        pack(b"LPUSH", b"json/x", b"two", b"values"),
        pack(b"RPUSH", b"json/x", b"ahead"),
        pack(b"ZADD", b"plain/y", b"+60", b"later"),
        pack(b"LPUSH", b"nobody/x", b"value"),
        pack(b"LPUSH", b"json/x"),
        pack(b"MULTI"),
        pack(b"EXEC"),
        pack(b"AUTH", b"one", b"pw"),
        pack(b"AUTH", b"all", b"pw"),
        pack(b"LLEN", b"json/a"),
        pack(b"RESET"),
        pack(b"QUIT"),
        b"PING\r\n",
        b"*3\r\n$5\r\nLPUSH\r\n$6\r\njson/x\r\n$03\r\nabc\r\n",
        b"*3\r\n$5\r\nLPUSH\r\n$6\r\njson/x\r\n$3\r\nabcd\r\n",
    ]
)
SPEECH = st.lists(st.one_of(PLAIN, PLAIN, PLAIN, OTHER), min_size=1, max_size=12)


def test_in_multi_a_push_waits_for_exec(house: House) -> None:
    connection, theirs = pushing(house)
    for said, heard in ((b"MULTI", b"+OK\r\n"), (b"LPUSH json/x a", b"+QUEUED\r\n"), (b"DISCARD", b"+OK\r\n")):
        connection.received(pack(*said.split()))
        house.settle()
        assert drained(theirs) == heard
    assert len(house.jobs()) == 4  # of the two pushes before, in two topics


def test_a_new_configuration_is_asked_again(house: House) -> None:
    connection, theirs = pushing(house)
    house.config = replace(house.config, queues={})
    house.reload()
    connection.received(pack(b"LPUSH", b"json/x", b"gone"))
    house.settle()
    assert b"queue or Topic not exist json" in drained(theirs)


@settings(max_examples=150, deadline=None)
@given(SPEECH, st.lists(st.integers(0), max_size=5), st.integers(-1, 5))
def test_both_ways_say_and_store_the_same(speech: list[bytes], cuts: list[int], reload_at: int) -> None:
    data = b"".join(speech)
    at = sorted(cut % (len(data) + 1) for cut in cuts)
    pieces = [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True) if a != b]
    assert say(QUICK, pieces, reload_at) == say(USUAL, pieces, reload_at)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, QUICK)
    yield house
    house.close()


def pushing(house: House) -> tuple[Connection, socket.socket]:
    """A client that went the usual way once and the quick way once."""
    connection, theirs = house.client()
    connection.received(pack(b"AUTH", b"json:pw") + pack(b"LPUSH", b"json/x", b"first"))
    connection.received(pack(b"LPUSH", b"json/x", b"second"))
    house.settle()
    assert drained(theirs).startswith(b"+OK")
    return connection, theirs


def test_the_quick_way_is_taken(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or all the rest here would hold for nothing."""
    connection, theirs = pushing(house)
    monkeypatch.setattr(
        connection.parser, "receive_data", lambda data: pytest.fail("left to the parser"), raising=False
    )
    connection.received(pack(b"LPUSH", b"json/x", b"a") * 3 + pack(b"LPUSH", b"json/x", b"b")[:40])
    house.settle()
    connection.received(pack(b"LPUSH", b"json/x", b"b")[40:])
    house.settle()
    assert drained(theirs).count(b'"error":""') == 4


def test_a_trickled_push_does_not_renew_its_deadline(house: House) -> None:
    connection, theirs = pushing(house)
    house.deadlines.clear()
    data = pack(b"LPUSH", b"json/x", b"slow")
    for i in range(len(data) - 1):
        connection.received(data[i : i + 1])
    assert [seconds for seconds in house.deadlines if seconds] == [60.0]
    connection.received(data[-1:])
    house.settle()
    assert house.deadlines[-1] is None
    assert b'"error":""' in drained(theirs)


def test_leaving_answers_all_that_was_read(house: House) -> None:
    connection, theirs = pushing(house)
    connection.received(pack(b"PING") * 150)
    until = time.monotonic() + 20
    while not (connection._closing or connection.closed) and time.monotonic() < until:
        connection.drain()
        gevent.sleep(0)
    assert drained(theirs) == b"+PONG\r\n" * 150 + b"<end>"


def test_what_is_not_answered_stops_the_reading(house: House) -> None:
    connection, theirs = pushing(house)
    stored = house.storages["s1"].push
    go = gevent.event.Event()
    house.storages["s1"].push = lambda *args: go.wait() and stored(*args)  # type: ignore[method-assign]
    chunk = pack(b"LPUSH", b"json/x", b"x" * 1000) * 60
    for _ in range(20):
        connection.received(chunk)
        gevent.sleep(0)
    assert not connection._stream.reading
    go.set()
    house.settle()
    assert connection._stream.reading
    theirs.close()


@pytest.mark.parametrize(
    ("error", "text"),
    [(StorageUnavailable("away"), b"storage unavailable"), (StorageUnknown("cut"), b"UNKNOWN no answer")],
)
def test_a_failure_is_said_for_each_push_with_its_trace(house: House, error: Exception, text: bytes) -> None:
    connection, theirs = pushing(house)

    def push(*_: object) -> object:
        raise error

    house.storages["s1"].push = push  # type: ignore[method-assign,assignment]
    connection.received(pack(b"LPUSH", b"json/x", b"a") * 3)
    house.settle()
    heard = drained(theirs)
    assert heard.count(b'"jobs":null') == heard.count(b'"error":"' + text) == 3
    assert len(set(heard.split(b'"inTraceId":"')[1:])) == 3


def test_a_key_that_others_push_to_is_not_open_to_all(house: House) -> None:
    connection, theirs = pushing(house)
    other = pack(b"LPUSH", b"plain/y", b"x")
    everyone, ear = house.client()
    everyone.received(pack(b"AUTH", b"all", b"pw") + other)
    house.settle()
    assert drained(ear) == b"+OK\r\n:1\r\n"
    connection.received(other)  # known as a key by now, but not open to this client
    house.settle()
    assert drained(theirs).startswith(b"-NOPERM")
    assert [topic for topic, _, _ in house.jobs()].count("plain/a") == 1
