"""The front door byte for byte: what the clients of the Go system rely on, and what was added in Redis' words."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from pepperbus.ids import id_time_ms
from tests.process.gateway_running import Running, Wire, pack, running, spec

ID = rb"1\d{19}"
TRACE = rb"(?:" + ID + rb"-\d+-\d+)"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(spec(tmp_path_factory.mktemp("gateway"))) as one:
        yield one


@pytest.fixture
def wire(gateway: Running) -> Iterator[Wire]:
    one = gateway.connect()
    yield one
    one.close()


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


def json_bulk(reply: bytes) -> dict:
    head, _, body = reply.partition(b"\r\n")
    assert head == b"$%d" % (len(body) - 2)
    return json.loads(body)


NOAUTH = b"-NOAUTH Authentication required.\r\n"
OLD_ERROR = rb'\$\d+\r\n\{"jobs":null,"inTraceId":"%b","error":"%b"\}\r\n'

#: (what was sent before, what is sent, the reply as a pattern)
EXCHANGES = [
    ([], ["PING"], re.escape(NOAUTH)),
    ([["AUTH", "old:pw"]], ["PING"], rb"\+PONG\r\n"),
    ([["AUTH", "old:pw"]], ["ping", "extra"], rb"\+PONG\r\n"),
    ([["AUTH", "old/t:tp"]], ["PING"], rb"\+PONG\r\n"),
    ([], ["AUTH"], rb"-ERR wrong number of arguments for 'AUTH' command\r\n"),
    ([], ["AUTH", "orders:pw:1"], rb"\+OK\r\n"),
    ([], ["AUTH", "orders", "pw:1"], rb"\+OK\r\n"),
    ([], ["AUTH", "default", "orders:pw:1"], rb"\+OK\r\n"),
    ([], ["AUTH", "", "old/t:tp"], rb"\+OK\r\n"),
    ([], ["AUTH", "web", "webpw"], rb"\+OK\r\n"),
    ([["AUTH", "old:pw"]], ["LPUSH", "old/anything", "v"],
     rb'\$9\d\r\n\{"jobs":\["%b"\],"inTraceId":"%b","error":""\}\r\n' % (ID, TRACE)),
    ([["AUTH", "old:pw"]], ["LPUSH", "old/", "1", "2"],
     rb'\$\d+\r\n\{"jobs":\["%b","%b"\],"inTraceId":"%b","error":""\}\r\n' % (ID, ID, TRACE)),
    ([], ["LPUSH", "old/x", "v"], OLD_ERROR % (TRACE, rb"NOAUTH Authentication required\.")),
    ([["AUTH", "new:pw"]], ["LPUSH", "old/x", "v"], OLD_ERROR % (TRACE, rb"NOAUTH Authentication required\.")),
    ([["AUTH", "old/t:tp"]], ["LPUSH", "old/x", "v"], OLD_ERROR % (TRACE, rb"NOAUTH Authentication required\.")),
    ([["AUTH", "old:pw"]], ["LPUSH"], OLD_ERROR % (b"", b"Invalid Args")),
    ([], ["LPUSH", "old", "v"], OLD_ERROR % (b"", b"ParseJob fail: invalid job meta info: old")),
    ([["AUTH", "old:pw"]], ["LPUSH", "old/x"], OLD_ERROR % (TRACE, b"empty jobs")),
    ([["AUTH", "empty:pw"]], ["LPUSH", "empty/x", "v"], OLD_ERROR % (TRACE, b"queue or Topic not exist empty")),
    ([], ["RPOP", "old/t"], re.escape(NOAUTH)),
    ([["AUTH", "old:pw"]], ["RPOP", "old/t"], re.escape(NOAUTH)),
    ([["AUTH", "orders/mail:tp"]], ["RPOP", "old/t"], re.escape(NOAUTH)),
    ([["AUTH", "new/t:tp"]], ["RPOP"], re.escape(bulk(b"Invalid Args"))),
    ([["AUTH", "new/t:tp"]], ["RPOP", "q"], re.escape(bulk(b"ParseJob fail: invalid job meta info: q"))),
    ([["AUTH", "small/t:tp"]], ["RPOP", "small/t"], rb"\$-1\r\n"),
    ([], ["NoSuch", "x"], rb"-ERR unknown command 'NoSuch'\r\n"),
    # in Redis' words
    ([["AUTH", "orders:pw:1"]], ["LPUSH", "orders", "a", "b"], rb":2\r\n"),
    ([["AUTH", "orders:pw:1"]], ["LPUSH", "app:orders", "a"], rb":1\r\n"),
    ([["AUTH", "new:pw"]], ["LPUSH", "new/x", "a"], rb":1\r\n"),
    ([["AUTH", "web", "webpw"]], ["LPUSH", "new", "a"], rb":1\r\n"),
    ([], ["LPUSH", "orders", "a"], re.escape(NOAUTH)),
    ([["AUTH", "new:pw"]], ["LPUSH", "orders", "a"], rb"-NOPERM .*orders\r\n"),
    ([["AUTH", "new:pw"]], ["LPUSH", "nowhere", "a"], rb"-NOQUEUE queue or Topic not exist nowhere\r\n"),
    ([["AUTH", "small:pw"]], ["LPUSH", "small", "a", "b", "c", "d"], rb"-OOM queue full\r\n"),
    ([["AUTH", "small:pw"]], ["LPUSH", "small/x", "a", "b", "c", "d"], OLD_ERROR % (TRACE, b"queue full")),
    ([], ["SELECT", "0"], rb"\+OK\r\n"),
    ([], ["SELECT", "1"], rb"-ERR DB index is out of range.*\r\n"),
    ([], ["ECHO", "\x00\r\n"], re.escape(bulk(b"\x00\r\n"))),
    ([], ["CLIENT", "SETNAME", "me"], rb"\+OK\r\n"),
    ([["CLIENT", "SETNAME", "me"]], ["CLIENT", "GETNAME"], rb"\$2\r\nme\r\n"),
    ([], ["CLIENT", "GETNAME"], rb"\$-1\r\n"),
    ([["HELLO", "3"]], ["CLIENT", "GETNAME"], rb"_\r\n"),
    ([], ["CLIENT", "ID"], rb":\d+\r\n"),
    ([], ["CLIENT", "SETINFO", "LIB-NAME", "x"], rb"\+OK\r\n"),
    ([], ["CLIENT", "KILL", "x"], rb"-ERR unknown subcommand.*\r\n"),
    ([], ["COMMAND", "DOCS"], rb"\*0\r\n"),
    ([["HELLO", "3"]], ["COMMAND", "DOCS"], rb"%0\r\n"),
    ([], ["RESET"], rb"\+RESET\r\n"),
    ([], ["HELLO", "4"], rb"-NOPROTO unsupported protocol version\r\n"),
    ([], ["HELLO", "x"], rb"-ERR Protocol version is not an integer or out of range\r\n"),
    ([], ["HELLO", "3", "AUTH", "old", "pw", "SETNAME", "me"], rb"%7\r\n.*\$5\r\nproto\r\n:3\r\n.*"),
    ([], ["HELLO"], rb"\*14\r\n.*\$5\r\nproto\r\n:2\r\n.*"),
    ([["AUTH", "new:pw"]], ["SET", "a", "b"], rb"-ERR unknown command 'SET': this is a job bus.*\r\n"),
    ([["AUTH", "new:pw"]], ["ZADD", "new", "+60", "a", "4102444800.5", "a"], rb":2\r\n"),
    ([["AUTH", "new:pw"]], ["ZADD", "new", "1700000000000", "a"], rb"-ERR .*milliseconds.*\r\n"),
    ([["AUTH", "new:pw"]], ["ZADD", "new", "60", "a"], rb"-ERR .*before the year 2000.*\+60.*\r\n"),
    ([["AUTH", "new:pw"]], ["ZADD", "new", "nan", "a"], rb"-ERR .*not a time.*\r\n"),
    ([["AUTH", "new:pw"]], ["ZADD", "new", "NX", "1700000000", "a"], rb"-ERR ZADD takes no options.*\r\n"),
    ([["AUTH", "new:pw"]], ["ZADD", "new", "1700000000"], rb"-ERR .*pairs\r\n"),
    ([["AUTH", "new:pw"]], ["LRANGE", "new/t", "0", "1"], rb"-NOPERM .*\r\n"),
    ([["AUTH", "old:pw"]], ["LLEN", "new"], rb"-NOPERM .*\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "sent", "pattern"), EXCHANGES, ids=[" ".join(e[1])[:40] for e in EXCHANGES])
def test_exchange(wire: Wire, before: list[list[str]], sent: list[str], pattern: bytes) -> None:
    for args in before:
        assert wire.ask(*args)[:1] in b"+*%"
    reply = wire.ask(*sent)
    assert re.fullmatch(pattern, reply, re.DOTALL), reply
    assert wire.ask("ECHO", "still here") == bulk(b"still here")


def test_one_reply_to_each_of_many_in_order(wire: Wire) -> None:
    """Pushes wait for the storage, the rest does not: the order of the replies must not show it."""
    wire.ask("AUTH", "new:pw")
    commands = []
    for i in range(1000):
        commands.append(pack("LPUSH", "new", *["v"] * (i % 3 + 1)))
        commands.append(pack("ECHO", str(i)))
    wire.send(b"".join(commands) + pack("LLEN", "nowhere"))
    for i in range(1000):
        assert wire.reply() == b":%d\r\n" % (i % 3 + 1)
        assert wire.reply() == bulk(b"%d" % i)
    assert wire.reply().startswith(b"-NOPERM")


def test_a_failed_login_is_slow_and_drops_the_earlier_one(gateway: Running) -> None:
    """From an address of its own: failures of others must not matter."""
    wire = gateway.connect(source="127.0.0.77")
    assert wire.ask("AUTH", "old:pw") == b"+OK\r\n"
    for name in ("foo", "nowhere:x", "orders/none:x", "old:wrong", "empty/:x"):
        began = time.monotonic()
        assert wire.ask("AUTH", name) == b"-ERR invalid password\r\n"
        assert time.monotonic() - began >= 0.09
    assert wire.ask("PING") == NOAUTH
    took: list[float] = []
    while not took or took[-1] >= 0.4:
        assert len(took) < 10, took  # a machine under load is slow at times, a punishment always
        other = gateway.connect(source="127.0.0.77")
        began = time.monotonic()
        assert other.ask("AUTH", "old:pw") == b"+OK\r\n"
        took.append(time.monotonic() - began)
    assert "wrong" not in gateway.log
    wire.close()
    other.close()


def test_a_job_is_stored_as_sent_and_leaves_with_rpop(gateway: Running, wire: Wire) -> None:
    before = int(time.time() * 1000)
    wire.ask("AUTH", "orders:pw:1")
    nasty = bytes(range(256)) * 2 + b"\r\n$-1\r\n"
    pushed = json_bulk(wire.ask("LPUSH", "orders/x", "", nasty, "中文"))
    assert list(pushed) == ["jobs", "inTraceId", "error"]
    assert pushed["jobs"] == sorted(pushed["jobs"])
    assert before <= id_time_ms(int(pushed["jobs"][0])) <= int(time.time() * 1000) + 1
    wire.ask("AUTH", "orders/mail:tp")
    ours = []
    while len(ours) < 3:
        reply = wire.ask("RPOP", "orders/mail")
        job = json_bulk(reply)["jobs"][0]
        if job["id"] in pushed["jobs"]:
            ours.append(job)
    assert [job["id"] for job in ours] == pushed["jobs"]
    assert [job["inTraceId"] for job in ours] == [pushed["inTraceId"]] * 3
    assert ours[0]["content"] == ""
    assert ours[1]["encoding"] == "base64"
    assert ours[2]["content"] == "中文"
    keys = [
        "id",
        "inTraceId",
        "content",
        "retrying",
        "RetryTimes",
        "RetryTime",
        "IsRetry",
        "BeginRetry",
        "RetryResidueTime",
    ]
    assert list(ours[0]) == keys


def test_rpush_runs_first_and_zadd_waits(tmp_path: object, gateway: Running, wire: Wire) -> None:
    wire.ask("AUTH", "small:pw")
    assert wire.ask("LPUSH", "small", "later") == b":1\r\n"
    assert wire.ask("RPUSH", "small", "a", "b") == b":2\r\n"
    assert wire.ask("ZADD", "small", "+3600", "c") == b"-OOM queue full\r\n"
    assert wire.ask("LLEN", "small") == b":3\r\n"
    wire.ask("AUTH", "small/t:tp")
    looked = wire.ask("LRANGE", "small/t", "0", "-1")
    assert re.findall(rb'"content":"(\w+)"', looked) == [b"b", b"a", b"later"]
    number = re.findall(rb'"id":"(\d+)"', looked)[1]
    assert wire.ask("LREM", "small/t", "0", number) == b":1\r\n"
    assert wire.ask("LREM", "small/t", "0", number) == b":0\r\n"
    assert wire.ask("LREM", "small/t", "0", "12").startswith(b"-ERR '12' is not a job id")
    assert b"ready\r\n$1\r\n2\r\n" in wire.ask("HGETALL", "small/t")
    assert [json_bulk(wire.ask("RPOP", "small/t"))["jobs"][0]["content"] for _ in range(2)] == ["b", "later"]
    assert wire.ask("RPOP", "small/t") == b"$-1\r\n"


def test_multi_is_one_batch_or_nothing(gateway: Running, wire: Wire) -> None:
    def length() -> bytes:
        return wire.ask("LLEN", "orders/audit")

    wire.ask("AUTH", "orders:pw:1")
    began = length()
    assert [wire.ask(*c) for c in (["MULTI"], ["LPUSH", "orders", "a"], ["RPUSH", "orders", "b", "c"])] == [
        b"+OK\r\n",
        b"+QUEUED\r\n",
        b"+QUEUED\r\n",
    ]
    assert length().startswith(b"-ERR LLEN is not allowed in MULTI")
    assert wire.ask("EXEC").startswith(b"-EXECABORT")
    assert length() == began
    wire.send(pack("MULTI") + pack("LPUSH", "orders", "a") + pack("LPUSH", "orders/x", "b") + pack("EXEC"))
    assert [wire.reply() for _ in range(3)] == [b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n"]
    assert re.fullmatch(rb'\*2\r\n:1\r\n\$9\d\r\n\{"jobs":\["%b"\].*' % ID, wire.reply(), re.DOTALL)
    assert int(length()[1:]) == int(began[1:]) + 2
    wire.ask("MULTI")
    assert wire.ask("LPUSH", "new", "x").startswith(b"-NOPERM")
    assert wire.ask("EXEC").startswith(b"-EXECABORT")
    assert wire.ask("EXEC") == b"-ERR EXEC without MULTI\r\n"
    wire.ask("MULTI")
    assert wire.ask("LPUSH", "orders", "x") == b"+QUEUED\r\n"
    assert wire.ask("DISCARD") == b"+OK\r\n"
    assert int(length()[1:]) == int(began[1:]) + 2


def test_a_blocking_pop_is_refused_but_never_at_once(wire: Wire) -> None:
    wire.ask("AUTH", "new/t:tp")
    began = time.monotonic()
    assert wire.ask("BRPOP", "new/t", "0").startswith(b"-NOPERM")
    assert time.monotonic() - began > 0.9


def test_info_is_quick_and_says_ready(wire: Wire) -> None:
    began = time.monotonic()
    assert b"loading:0" in wire.ask("INFO")
    assert time.monotonic() - began < 15


def test_quit_and_a_half_closed_client(gateway: Running, wire: Wire) -> None:
    wire.send(b"PING\r\nQUIT\r\nPING\r\n")
    assert wire.rest() == NOAUTH + b"+OK\r\n"
    other = gateway.connect()
    other.send(pack("AUTH", "new:pw") + pack("LPUSH", "new", "x") + pack("LLEN", "new"))
    other.sock.shutdown(1)
    assert re.fullmatch(rb"\+OK\r\n:1\r\n:\d+\r\n", other.rest())
    other.close()


def test_the_log_keeps_the_old_words(gateway: Running, wire: Wire) -> None:
    wire.ask("AUTH", "old:pw")
    wire.ask("LPUSH", "old", "v")
    assert "ParseJob fail" in gateway.log
