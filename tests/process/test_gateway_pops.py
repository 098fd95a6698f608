"""Pops that lease: what they answer, what settles a job, what gives it back, and how a client waits."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pepperbus import stats
from tests.fixtures.redis import Redis
from tests.process.gateway_running import Running, Wire, pack, running, spec

LEASED = {"run": "pull", "pop": "leased", "backoff": 0.05, "attempts": 3}
QUEUES = {
    "mail": {"open": True, "password": "x", "topics": {"t": LEASED}},
    "json": {"open": True, "password": "x", "reply": "json", "topics": {"t": LEASED}},
    "text": {"open": True, "password": "x", "reply": "redis", "topics": {"t": LEASED}},
    "once": {"open": True, "password": "x", "topics": {"t": {"run": "pull"}}},
    "low": {"open": True, "password": "x", "topics": {"t": LEASED}},
    "two": {"open": True, "password": "x", "topics": {"a": LEASED, "b": LEASED}},
    "fed": {"open": True, "password": "x", "topics": {"t": {}}},
    "shut": {"password": "pw", "topics": {"t": {**LEASED, "password": "tp"}}},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    where = tmp_path_factory.mktemp("pops")
    logins = {"all": {"password": "pw", "push": True, "pop": True, "queues": ["*"]}}
    with running(
        spec(where, queues=QUEUES, durability="process", storages={"local": {"type": "embedded"}}, logins=logins)
    ) as one:
        yield one


@pytest.fixture
def wire(gateway: Running) -> Iterator[Wire]:
    one = gateway.connect()
    yield one
    one.close()


@pytest.fixture
def other(gateway: Running) -> Iterator[Wire]:
    one = gateway.connect()
    yield one
    one.close()


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


def popped(key: str, value: str) -> bytes:
    return b"*2\r\n" + bulk(key) + bulk(value)


def facts(wire: Wire, key: str) -> dict[str, str]:
    lines = wire.ask("HGETALL", key).decode().split("\r\n")[2::2]
    return dict(zip(lines[::2], lines[1::2], strict=False))


def until(look: Callable[[], object], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def counted(gateway: Running, topic: str) -> stats.Totals:
    return stats.read_all(Path(gateway.spec["dir"]) / "run" / "stats", (topic,))[topic]


def test_what_a_pop_answers(wire: Wire) -> None:
    """Bare content where a plain list would answer so, else the JSON of RPOP."""
    wire.ask("LPUSH", "mail", "a", "b", "c", "d", "e")
    assert wire.ask("RPOP", "mail") == bulk("a")
    assert wire.ask("BRPOP", "mail", "1") == popped("mail", "b")
    assert wire.ask("LPOP", "mail", "2") == b"*2\r\n" + bulk("c") + bulk("d")
    job = json.loads(wire.ask("RPOP", "mail/t").split(b"\r\n")[1])["jobs"][0]
    assert (job["content"], job["RetryTimes"]) == ("e", 1)
    assert wire.ask("RPOP", "mail") == b"$-1\r\n"
    assert wire.ask("LPOP", "mail", "2") == b"*-1\r\n"
    wire.ask("LPUSH", "text", "a", "b")
    assert wire.ask("BLPOP", "text/t", "0") == popped("text/t", "a")
    assert wire.ask("RPOP", "text/t") == bulk("b")
    wire.ask("LPUSH", "json/x", "a")
    assert b'{"jobs":[{"id":"' in wire.ask("BRPOP", "json/t", "1")
    assert wire.ask("BRPOP", "json/t", "0.05") == b"*-1\r\n"
    wire.ask("HELLO", "3")
    assert wire.ask("BRPOP", "json/t", "0.05") == b"_\r\n"
    assert wire.ask("RPOP", "mail") == b"_\r\n"


def test_who_waits_is_woken(wire: Wire, other: Wire) -> None:
    wire.send(pack("BRPOP", "low", "mail", "0") + pack("PING"))
    other.ask("LPUSH", "mail", "x")
    assert wire.reply() == popped("mail", "x")
    assert wire.reply() == b"+PONG\r\n", "what was sent behind it waited"
    wire.send(pack("BRPOP", "low", "mail", "0"))
    other.ask("ZADD", "low", "+0.2", "later")
    assert wire.reply() == popped("low", "later"), "one that becomes due wakes too"
    assert wire.ask("BRPOP", "low", "0.05") == b"*-1\r\n"
    assert facts(other, "low/t")["leased"] == "0"


def test_a_plain_pop_sees_what_is_due(wire: Wire) -> None:
    """No worker looks after a topic that is pulled."""
    wire.send(pack("ZADD", "once", "+1", "later") + pack("RPOP", "once/t"))
    assert wire.reply() == b":1\r\n"
    assert wire.reply() == b"$-1\r\n"
    until(lambda: b'"content":"later"' in wire.ask("RPOP", "once/t"))
    until(lambda: facts(wire, "once/t")["leased"] == "0")


def test_first_come_first_served(gateway: Running, other: Wire) -> None:
    wires = [gateway.connect() for _ in range(3)]
    for number, one in enumerate(wires):
        one.send(pack("BRPOP", "low", "0"))
        until(lambda n=number: f"blocked_clients:{n + 1}\r\n".encode() in other.ask("INFO"))
    other.ask("LPUSH", "low", "1", "2", "3")
    assert [one.reply() for one in wires] == [popped("low", n) for n in "123"]
    for one in wires:
        one.ask("QUIT")
        one.close()


def test_what_says_that_a_job_is_done(gateway: Running, wire: Wire, other: Wire) -> None:
    before = counted(gateway, "mail/t")["done"]
    wire.ask("LPUSH", "mail", *"abcde")
    assert wire.ask("RPOP", "mail") == bulk("a")
    assert facts(other, "mail/t")["leased"] == "1"
    assert wire.ask("RPOP", "mail") == bulk("b")
    assert facts(other, "mail/t")["leased"] == "1", "the next pop settles the one before"
    assert wire.ask("LREM", "mail", "1", "b") == b":1\r\n", "by its content, as reliable queues do"
    assert facts(other, "mail/t")["leased"] == "0"
    job = json.loads(wire.ask("RPOP", "mail/t").split(b"\r\n")[1])["jobs"][0]
    assert wire.ask("LREM", "mail/t", "0", job["id"]) == b":1\r\n"
    assert wire.ask("LREM", "mail/t", "0", job["id"]) == b":0\r\n"
    assert wire.ask("RPOP", "mail") == bulk("d")
    assert wire.ask("QUIT") == b"+OK\r\n"
    until(lambda: counted(gateway, "mail/t")["done"] == before + 4)
    assert other.ask("RPOP", "mail") == bulk("e")
    assert other.ask("RPOP", "mail") == b"$-1\r\n"
    until(lambda: counted(gateway, "mail/t")["in_flight"] == 0)


def test_reliable_queues_of_two_lists(gateway: Running, wire: Wire, other: Wire) -> None:
    """BRPOPLPUSH to a list of one's own, LREM there when done: several at a time, and nothing else settles them."""
    assert wire.ask("RPOPLPUSH", "low", "low:mine") == b"$-1\r\n"
    wire.send(pack("BRPOPLPUSH", "low", "low:mine", "0"))
    other.ask("LPUSH", "low", "a", "b", "c")
    assert wire.reply() == bulk("a")
    assert wire.ask("RPOPLPUSH", "low", "low:mine") == bulk("b")
    assert wire.ask("LMOVE", "low", "low:mine", "RIGHT", "LEFT") == bulk("c")
    assert wire.ask("BLMOVE", "low", "low:mine", "RIGHT", "LEFT", "0.05") == b"$-1\r\n"
    assert facts(other, "low/t")["leased"] == "3"
    assert wire.ask("LREM", "low:mine", "1", "b") == b":1\r\n"
    assert wire.ask("LREM", "low:mine", "1", "c") == b":1\r\n"
    assert facts(other, "low/t")["leased"] == "1"
    wire.ask("QUIT")
    assert other.ask("BRPOP", "low", "20") == popped("low", "a"), "it was not said to be done"
    assert other.ask("LREM", "low", "1", "a") == b":1\r\n"


def test_a_closed_connection_gives_back_and_attempts_end(gateway: Running, other: Wire) -> None:
    before = counted(gateway, "text/t")
    other.ask("LPUSH", "text", "poison")
    for _ in range(3):
        one = gateway.connect()
        assert one.ask("BRPOP", "text", "20") == popped("text", "poison")
        one.close()
    until(lambda: facts(other, "text/t")["dead"] == "1")
    until(lambda: counted(gateway, "text/t")["failed"] - before["failed"] >= 3)
    now = counted(gateway, "text/t")
    assert (now["failed"] - before["failed"], now["retried"] - before["retried"]) == (3, 2)
    assert "closed its connection before it said that it was done" in gateway.log


def test_who_left_while_waiting_costs_nothing(gateway: Running, other: Wire) -> None:
    gone = gateway.connect()
    gone.send(pack("BRPOP", "low", "0"))
    until(lambda: b"blocked_clients:1\r\n" in other.ask("INFO"))
    gone.close()
    until(lambda: b"blocked_clients:0\r\n" in other.ask("INFO"))
    other.ask("LPUSH", "low", "x")
    job = json.loads(other.ask("RPOP", "low/t").split(b"\r\n")[1])["jobs"][0]
    assert job["RetryTimes"] == 1


def test_refusals_never_come_at_once(gateway: Running, wire: Wire) -> None:
    """A loop around a refused blocking pop would spin thousands of times a second."""
    cases = [
        (("BRPOP", "fed/t", "1"), b"-NOPERM the jobs of fed/t are brought to their consumer; to pop them, set pop"),
        (("BRPOP", "none", "1"), b"-NOQUEUE queue or Topic not exist none"),
        (("BRPOP", "two", "1"), b"-ERR two has several topics to pop from: name one, such as two/a"),
        (("BRPOP", "shut", "1"), b"-NOPERM to take jobs log in as AUTH shut/t:password"),
        (("BLPOP", "mail", "-1"), b"-ERR timeout is negative"),
        (("BLPOP", "mail", "x"), b"-ERR timeout is not a float or out of range"),
    ]
    wires = [gateway.connect() for _ in cases]
    started = time.monotonic()
    for one, (words, _) in zip(wires, cases, strict=True):
        one.send(pack(*words))
    for one, (_, answer) in zip(wires, cases, strict=True):
        assert one.reply().startswith(answer)
        one.close()
    assert time.monotonic() - started > 0.9
    assert wire.ask("RPOP", "fed/t").startswith(b"$-1"), "pop = once is as ever"
    assert wire.ask("LPOP", "fed/t").startswith(b"-NOPERM")
    assert wire.ask("RPOP", "shut/t") == b"-NOAUTH Authentication required.\r\n"
    assert wire.ask("AUTH", "shut/t:tp") == b"+OK\r\n"
    assert wire.ask("RPOP", "shut/t") == b"$-1\r\n"
    assert wire.ask("RPOP", "two/a", "x") == b"-ERR value is out of range\r\n"


def test_reload_and_leaving(tmp_path: Path) -> None:
    what = spec(tmp_path, queues={"q": QUEUES["mail"], "gone": QUEUES["low"]}, durability="memory")
    with running(what) as one:
        waits, left, has = one.connect(), one.connect(), one.connect()
        waits.send(pack("BRPOP", "q", "0"))
        left.send(pack("BRPOP", "gone", "0"))
        until(lambda: b"blocked_clients:2\r\n" in has.ask("INFO"))
        one.tell({"config": {**what, "queues": {"q": {**what["queues"]["q"], "system": "shop"}}}})
        assert left.reply() == b"*-1\r\n", "nothing will ever come from a queue that is gone"
        has.ask("LPUSH", "q", "x", "y")
        assert waits.reply() == popped("q", "x"), "a reload disturbs nobody else"
        assert has.ask("RPOP", "q") == bulk("y")
        changed = one.connect()
        changed.ask("LPUSH", "q", "z")
        assert b'"content":"z"' in changed.ask("RPOP", "q/t")
        leased = what["queues"]["q"]
        one.tell({"config": {**what, "queues": {"q": {**leased, "topics": {"t": {"run": "pull"}}}}}})
        assert changed.ask("RPOP", "q/t") == b"$-1\r\n"
        changed.close()
        one.tell({"config": {**what, "queues": {"q": leased}}})
        until(lambda: b"connected_clients:3\r\n" in has.ask("INFO"))
        lie = [facts(has, "q/t")[state] for state in ("ready", "delayed", "leased")]
        assert lie == ["0", "0", "2"], "what it had popped before is done; the others have theirs"
        waits.send(pack("BRPOP", "q", "0"))
        until(lambda: b"blocked_clients:1\r\n" in has.ask("INFO"))
        one.tell({"drain": 60.0})
        assert waits.reply() == b"*-1\r\n"
        with contextlib.suppress(OSError):
            while waits.ask("BRPOP", "q", "0") == b"*-1\r\n":
                pass  # as daemons do: this must not keep the gateway
        assert has.ask("PING") == b"+PONG\r\n", "who has a job may finish it"
        assert has.ask("RPOP", "q") == b"$-1\r\n"
        assert has.rest() == b"", "and is then sent home"
        assert one.process.wait(20) == 0
        assert counted(one, "q/t")["done"] == 3


def test_pushes_of_another_node_wake(tmp_path: Path, start_redis: Callable[..., Redis]) -> None:
    """Through a shared Redis: its pub/sub, and a look now and then."""
    redis = start_redis()
    with running(_node(tmp_path / "a", redis.url)) as one, running(_node(tmp_path / "b", redis.url, index=1)) as two:
        waits, pushes = one.connect(), two.connect()
        for value in "xy":
            waits.send(pack("BRPOP", "mail", "0"))
            pushes.ask("LPUSH", "mail", value)
            assert waits.reply() == popped("mail", value)


def _node(where: Path, url: str, **more: int) -> dict:
    where.mkdir()
    storages = {"local": {"type": "redis", "url": url}}
    return spec(where, queues={"mail": QUEUES["mail"]}, storages=storages, **more)
