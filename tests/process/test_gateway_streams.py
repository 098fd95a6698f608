"""Topics read as streams: beside a real Redis, through redis-py and phpredis, and what becomes of what nobody acknowledges."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.fixtures.redis import Redis
from tests.process.gateway_running import Running, Wire, pack, running, spec
from tests.process.test_gateway_pops import counted, facts, until

PULL = {"run": "pull", "backoff": 0.05, "attempts": 4}
QUEUES = {
    "q": {"open": True, "password": "x", "topics": {"t": PULL}},
    "php": {"open": True, "password": "x", "topics": {"t": PULL}},
    "slow": {"open": True, "password": "x", "topics": {"t": {**PULL, "lease": 0.2}}},
    "late": {"open": True, "password": "x", "topics": {"t": {**PULL, "lease": 0.2, "backoff": 3600.0}}},
    "fed": {"open": True, "password": "x", "topics": {"t": {}}},
    "shut": {"password": "pw", "topics": {"t": {**PULL, "password": "tp"}}},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    where = tmp_path_factory.mktemp("streams")
    with running(spec(where, queues=QUEUES, durability="process", storages={"local": {"type": "embedded"}})) as one:
        yield one


@pytest.fixture
def wire(gateway: Running) -> Iterator[Wire]:
    one = gateway.connect()
    yield one
    one.close()


# -- the shapes, beside a real Redis -----------------------------------------------------------------------------------


class Beside:
    """The same commands to the gateway and to a real Redis with one stream `q/t` and its group `t`; ids become numbers."""

    def __init__(self, bus: Wire, real: Wire) -> None:
        self.wires = (bus, real)
        self.ids: tuple[list[bytes], list[bytes]] = ([], [])

    def push(self, *values: str) -> None:
        bus, real = self.wires
        bus.ask("LPUSH", "q", *values)
        seen = bus.ask("XRANGE", "q/t", "-", "+")
        self.ids[0][:] = re.findall(rb"\r\n(\d+-\d+)\r\n", seen)
        for value in values:
            words = ("id", "1" * 20, "inTraceId", "t", "content", value, "attempt", "1")
            self.ids[1].append(real.ask("XADD", "q/t", "*", *words).split(b"\r\n")[1])

    def ask(self, *words: str | int) -> tuple[bytes, bytes]:
        """A number among the words is the id of that entry."""
        answers = []
        for wire, ids in zip(self.wires, self.ids, strict=True):
            answer = wire.ask(*(word if isinstance(word, str) else ids[word] for word in words))
            answers.append(self._shape(answer, ids))
        return answers[0], answers[1]

    def _shape(self, answer: bytes, ids: list[bytes]) -> bytes:
        for number, entry in enumerate(ids):
            answer = answer.replace(entry, b"ID%d" % number)
        answer = re.sub(rb"\$\d+\r\n", b"$\r\n", answer)
        answer = re.sub(rb"(inTraceId\r\n\$\r\n)[0-9t-]+", rb"\1TRACE", answer)
        answer = re.sub(rb"(attempt\r\n\$\r\n)\d+", rb"\1N", answer)
        return re.sub(rb"(\$\r\nid\r\n\$\r\n)\d+", rb"\1JOB", answer)


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_shapes_are_those_of_redis(gateway: Running, wire: Wire, redis_server: Redis, protocol: int) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(redis_server.path))
    real = Wire(sock)
    real.ask("FLUSHALL")
    for one in (wire, real):
        one.ask("HELLO", str(protocol))
        assert one.ask("XGROUP", "CREATE", "q/t", "t", "$", "MKSTREAM") == b"+OK\r\n"
    both = Beside(wire, real)
    name = f"c{protocol}"
    group = ("GROUP", "t", name)
    both.push("a", "b", "c", "d")
    for words in (
        ("XPENDING", "q/t", "t"),
        ("XPENDING", "q/t", "t", "-", "+", "9"),
        ("XREADGROUP", *group, "COUNT", "2", "STREAMS", "q/t", ">"),
        ("XREADGROUP", *group, "COUNT", "2", "BLOCK", "1", "STREAMS", "q/t", ">"),
        ("XREADGROUP", *group, "BLOCK", "1", "STREAMS", "q/t", ">"),
        ("XREADGROUP", *group, "STREAMS", "q/t", ">"),
        ("XREADGROUP", *group, "COUNT", "3", "STREAMS", "q/t", "0"),
        ("XREADGROUP", *group, "STREAMS", "q/t", 2),
        ("XREADGROUP", *group, "STREAMS", "q/t", 3),
        ("XREADGROUP", "GROUP", "t", "nobody", "STREAMS", "q/t", "0"),
        ("XPENDING", "q/t", "t"),
        ("XPENDING", "q/t", "t", "IDLE", "99999", "-", "+", "9"),
        ("XPENDING", "q/t", "t", "-", "+", "9", "nobody"),
        ("XCLAIM", "q/t", "t", "else", "0", 0, "JUSTID"),
        ("XCLAIM", "q/t", "t", "else", "999999", 0),
        ("XCLAIM", "q/t", "t", "else", "0", 1),
        ("XAUTOCLAIM", "q/t", "t", "else", "0", "0", "COUNT", "2", "JUSTID"),
        ("XAUTOCLAIM", "q/t", "t", "else", "0", 2, "COUNT", "1"),
        ("XAUTOCLAIM", "q/t", "t", "else", "999999", "-"),
        ("XGROUP", "CREATECONSUMER", "q/t", "t", f"new{protocol}"),
        ("XGROUP", "CREATECONSUMER", "q/t", "t", f"new{protocol}"),
        ("XLEN", "q/t"),
        ("XRANGE", "q/t", "-", "+"),
        ("XRANGE", "q/t", 0, 1),
        ("XRANGE", "q/t", "-", "+", "COUNT", "1"),
        ("XREVRANGE", "q/t", "+", "-", "COUNT", "2"),
        ("XACK", "q/t", "t", 0, 1),
        ("XACK", "q/t", "t", 0, "1-1"),
        ("XACK", "q/t", "nogroup", 2),
        ("XACK", "q/t", "t", "x"),
        ("XACK", "q/t", "t", 2, 3),
        ("XPENDING", "q/t", "t"),
        ("XREADGROUP", *group, "STREAMS", "q/t"),
        ("XREADGROUP", "x", "t", "c", "STREAMS", "q/t", ">", "y"),
        ("XREADGROUP", *group, "BLOCK", "-1", "STREAMS", "q/t", ">"),
        ("XREADGROUP", *group, "COUNT", "x", "STREAMS", "q/t", ">"),
        ("XREADGROUP", *group, "STREAMS", "q/t", "x"),
        ("XPENDING", "q/t"),
        ("XACK", "q/t", "t"),
        ("XAUTOCLAIM", "q/t", "t", "c", "x", "0"),
        ("XCLAIM", "q/t", "t", "c", "x", "0-1"),
        ("XINFO", "CONSUMERS"),
    ):
        ours, theirs = both.ask(*words)
        if words[0] == "XREADGROUP" and ours.startswith(b"-"):
            assert ours.split(b" ")[0] == theirs.split(b" ")[0], words
        else:
            assert ours == theirs, words
    for what in (("STREAM", "q/t"), ("GROUPS", "q/t"), ("CONSUMERS", "q/t", "t")):
        ours, theirs = both.ask("XINFO", *what)
        words = rb"\$\r\n([a-z-]+)\r\n"
        assert re.findall(words, ours)[:3] == re.findall(words, theirs)[:3]
        assert ours.split(b"\r\n")[1] == theirs.split(b"\r\n")[1], what
    real.close()


def test_what_is_refused(gateway: Running, wire: Wire) -> None:
    group = ("GROUP", "t", "c")
    cases = [
        (("XREADGROUP", *group, "NOACK", "STREAMS", "q/t", ">"), b"-ERR NOACK is not offered"),
        (
            ("XREADGROUP", "GROUP", "x", "c", "STREAMS", "q/t", ">"),
            b"-NOGROUP q/t has one consumer group, its topic: t",
        ),
        (
            ("XREADGROUP", *group, "STREAMS", "fed/t", ">"),
            b"-NOPERM this bus brings the jobs of fed/t to their consumer",
        ),
        (("XREADGROUP", *group, "STREAMS", "q/t", "$"), b"-ERR The $ ID is meaningless in the context of XREADGROUP"),
        (("XREADGROUP", *group, "STREAMS", "none/t", ">"), b"-NOGROUP No such key 'none/t'"),
        (("XREADGROUP", *group, "STREAMS", "shut/t", ">"), b"-NOPERM to read it log in as AUTH shut/t:password"),
        (("XREAD", "STREAMS", "q/t", "0"), b"-NOPERM"),
    ]
    wires = [gateway.connect() for _ in cases]
    for one, (words, _) in zip(wires, cases, strict=True):
        one.send(b"".join((b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words))))
    for one, (_, answer) in zip(wires, cases, strict=True):
        assert one.reply().startswith(answer)
        one.close()
    assert wire.ask("XGROUP", "DESTROY", "q/t", "t").startswith(b"-NOPERM the group of q/t is the topic itself")
    assert wire.ask("XLEN", "shut/t").startswith(b"-NOPERM")
    assert wire.ask("XINFO", "STREAM", "q/t", "FULL").startswith(b"-ERR XINFO STREAM")


# -- clients at their defaults ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [None, 2])
def test_redis_py_at_its_defaults(gateway: Running, protocol: int | None) -> None:
    words = {} if protocol is None else {"protocol": protocol}
    client = redis.Redis(port=gateway.port, **words)
    client.lpush("q", "a", "b", "c")
    read = client.xreadgroup("t", "w1", {"q/t": ">"}, count=2, block=1000)
    [entries] = read.values() if isinstance(read, dict) else [entries for _, entries in read]
    entries = entries[0] if isinstance(entries[0], list) else entries  # RESP3: wrapped once more
    assert [fields[b"content"] for _, fields in entries] == [b"a", b"b"]
    assert entries[0][1][b"attempt"] == b"1"
    assert client.xpending("q/t", "t")["pending"] == 2
    assert client.xpending_range("q/t", "t", "-", "+", 10)[0]["consumer"] == b"w1"
    assert client.xinfo_stream("q/t")["length"] == 3
    assert client.xinfo_groups("q/t")[0]["pending"] == 2
    assert any(one["name"] == b"w1" for one in client.xinfo_consumers("q/t", "t"))
    claimed = client.xautoclaim("q/t", "t", "w2", 0)
    assert [fields[b"attempt"] for _, fields in claimed[1]] == [b"2", b"2"]
    assert client.xack("q/t", "t", *(entry for entry, _ in entries)) == 2
    assert client.xdel("q/t", client.xrange("q/t")[0][0]) == 1
    assert not client.xreadgroup("t", "w1", {"q/t": ">"}, block=20)
    assert client.xlen("q/t") == 0
    client.close()


PHP = """<?php
$r = new Redis(); $r->connect('127.0.0.1', (int) $argv[1]);
$r->lPush('php', 'a', 'b', 'c');
$out = [$r->xGroup('CREATE', 'php/t', 't', '0', true)];
$got = $r->xReadGroup('t', 'w1', ['php/t' => '>'], 2, 1000);
$ids = array_keys($got['php/t']);
$out[] = array_column($got['php/t'], 'content');
$out[] = count($r->xReadGroup('t', 'w1', ['php/t' => '0'])['php/t']);
$out[] = $r->xPending('php/t', 't')[0];
$out[] = $r->xPending('php/t', 't', '-', '+', 9, 'w1')[1][3];
$out[] = count($r->xClaim('php/t', 't', 'w2', 0, [$ids[0]]));
$out[] = $r->xAck('php/t', 't', $ids);
$out[] = $r->xInfo('GROUPS', 'php/t')[0]['name'];
$out[] = $r->xLen('php/t');
$got = $r->xReadGroup('t', 'w1', ['php/t' => '>']);
$out[] = $r->xAck('php/t', 't', array_keys($got['php/t']));
$out[] = $r->xReadGroup('t', 'w1', ['php/t' => '>'], 1, 20);
$out[] = $r->getLastError();
echo json_encode($out);
"""


@pytest.mark.skipif(not shutil.which("php"), reason="php-cli is not installed")
def test_phpredis(gateway: Running, tmp_path: Path) -> None:
    script = tmp_path / "read.php"
    script.write_text(PHP)
    done = subprocess.run(["php", str(script), str(gateway.port)], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == [True, ["a", "b"], 2, 2, 2, 1, 2, "t", 1, 1, [], None], done.stdout + done.stderr


# -- what nobody acknowledges ------------------------------------------------------------------------------------------------


def test_a_lease_that_ends_comes_back_and_attempts_end(gateway: Running, wire: Wire) -> None:
    wire.ask("LPUSH", "slow", "x")
    for attempt in (1, 2, 4):
        first = pack("XREADGROUP", "GROUP", "t", f"c{attempt}", "BLOCK", "18000", "STREAMS", "slow/t", ">")
        if attempt == 2:  # read again by who has it: an attempt, too. In one go, before its lease is over
            first += pack("XREADGROUP", "GROUP", "t", "c2", "STREAMS", "slow/t", "0")
            first += pack("XGROUP", "DELCONSUMER", "slow/t", "t", "c2")
        wire.send(first)
        assert b"$7\r\nattempt\r\n$1\r\n%d\r\n" % attempt in wire.reply()
        if attempt == 2:
            assert b"$7\r\nattempt\r\n$1\r\n3\r\n" in wire.reply()
            assert wire.reply() == b":1\r\n"
    until(lambda: facts(wire, "slow/t")["dead"] == "1")
    assert "not acknowledged within 0.2 s" in gateway.log


def test_an_acknowledgement_is_never_too_late(gateway: Running, wire: Wire) -> None:
    """The lease is over and the job waits for its next attempt: it was done all the same."""
    wire.ask("LPUSH", "late", "x")
    answer = wire.ask("XREADGROUP", "GROUP", "t", "c", "STREAMS", "late/t", ">")
    entry = re.findall(rb"\r\n(\d+-\d+)\r\n", answer)[0]
    until(lambda: facts(wire, "late/t")["delayed"] == "1")
    assert wire.ask("XACK", "late/t", "t", entry) == b":1\r\n"
    assert facts(wire, "late/t")["delayed"] == "0"
    assert wire.ask("XACK", "late/t", "t", entry) == b":0\r\n"


def test_leaving_gives_back_and_any_gateway_takes_the_acknowledgement(tmp_path: Path) -> None:
    """Two gateways of one storage: what one handed out the other can settle, also after the first has left."""
    queues = {"q": {**QUEUES["q"], "topics": {"t": {**PULL, "backoff": 3600.0}}}}
    storages = {"local": {"type": "embedded"}}
    what = spec(tmp_path, queues=queues, durability="process", storages=storages)
    with running(what) as one:
        wire = one.connect()
        wire.ask("LPUSH", "q", "a", "b")
        answer = wire.ask("XREADGROUP", "GROUP", "t", "c", "STREAMS", "q/t", ">")
        first, second = re.findall(rb"\r\n(\d+-\d+)\r\n", answer)
        other = tmp_path / "other"
        other.mkdir()
        with running({**what, "dir": str(tmp_path), "index": 1, "log": str(other / "log")}) as two:
            assert two.connect().ask("XACK", "q/t", "t", first) == b":1\r\n"
            one.tell({"drain": 0.5})
            assert one.process.wait(40) == 0
            back = two.connect()
            until(lambda: facts(back, "q/t")["delayed"] == "1")
            assert back.ask("XACK", "q/t", "t", second) == b":1\r\n"
            assert back.ask("XLEN", "q/t") == b":0\r\n"
            until(lambda: counted(two, "q/t")["done"] == 2)
            assert counted(two, "q/t")["failed"] == 1, "what another gateway heard to be done did not fail"


# -- several gateways of one node --------------------------------------------------------------------------------------------

OTHER_PHP = """<?php
[$one, $two] = array_map(function ($port) { $r = new Redis(); $r->connect('127.0.0.1', (int) $port); return $r; },
    array_slice($argv, 1));
$one->lPush('q', 'd', 'e');
$got = $one->xReadGroup('t', 'p1', ['q/t' => '>'], 2, 1000)['q/t'];
$ids = array_keys($got);
$out = [array_column($two->xReadGroup('t', 'p1', ['q/t' => '0'])['q/t'], 'attempt')];
$out[] = $two->xPending('q/t', 't')[0];
$out[] = $two->xPending('q/t', 't', '-', '+', 9, 'p1')[1][3];
$out[] = count($two->xClaim('q/t', 't', 'p2', 0, [$ids[1]]));
$out[] = array_column($one->xInfo('CONSUMERS', 'q/t', 't'), 'pending', 'name');
$out[] = $two->xAck('q/t', 't', $ids);
$out[] = $one->xPending('q/t', 't')[0];
echo json_encode($out);
"""


def test_every_gateway_of_a_node_tells_of_all(tmp_path: Path) -> None:
    queues = {"q": {**QUEUES["q"], "topics": {"t": {**PULL, "attempts": 9}}}}
    what = spec(tmp_path, queues=queues, durability="process", storages={"local": {"type": "embedded"}})
    with running(what) as one, running({**what, "index": 1, "log": str(tmp_path / "log.1")}) as two:
        first, second = (redis.Redis(port=gateway.port, protocol=2, decode_responses=True) for gateway in (one, two))
        first.lpush("q", "a", "b", "c")
        [[_, [(entry_a, _), (entry_b, _)]]] = first.xreadgroup("t", "w1", {"q/t": ">"}, count=2)
        [[_, [(entry_c, _)]]] = second.xreadgroup("t", "w2", {"q/t": ">"}, count=2)
        for asked in (first, second):
            seen = asked.xpending("q/t", "t")
            assert (seen["pending"], seen["min"], seen["max"]) == (3, entry_a, entry_c)
            assert seen["consumers"] == [{"name": "w1", "pending": 2}, {"name": "w2", "pending": 1}]
            rows = asked.xpending_range("q/t", "t", "-", "+", 10)
            assert [(row["message_id"], row["consumer"]) for row in rows] == [
                (entry_a, "w1"),
                (entry_b, "w1"),
                (entry_c, "w2"),
            ]
            assert [row["message_id"] for row in asked.xpending_range("q/t", "t", "-", "+", 2)] == [entry_a, entry_b]
            assert [row["name"] for row in asked.xinfo_consumers("q/t", "t")] == ["w1", "w2"]
            [group] = asked.xinfo_groups("q/t")
            assert (group["consumers"], group["last-delivered-id"]) == (2, entry_c)
            assert asked.xgroup_createconsumer("q/t", "t", "w1") == 0, "it is there, wherever it reads"
        # w1 comes back through the other gateway and reads what it had
        [[_, again]] = second.xreadgroup("t", "w1", {"q/t": "0"})
        assert [(entry, fields["content"], fields["attempt"]) for entry, fields in again] == [
            (entry_a, "a", "2"),
            (entry_b, "b", "2"),
        ]
        # w2 takes what w1 has, half of it here and half there
        cursor, claimed, _ = second.xautoclaim("q/t", "t", "w3", 0, count=2)
        assert (cursor, [entry for entry, _ in claimed]) == (entry_c, [entry_a, entry_b])
        assert [entry for entry, _ in first.xclaim("q/t", "t", "w4", 0, [entry_c, entry_b])] == [entry_c, entry_b]
        assert first.xpending("q/t", "t")["consumers"] == [{"name": "w3", "pending": 1}, {"name": "w4", "pending": 2}]
        assert not first.xclaim("q/t", "t", "w5", 3_600_000, [entry_a]), "not idle for so long"
        # done through the other gateway: the one that handed it out knows, before its lease is over
        assert second.xack("q/t", "t", entry_a) == 1
        assert first.xpending("q/t", "t")["pending"] == 2
        until(lambda: counted(one, "q/t")["in_flight"] == 2)
        assert second.xgroup_delconsumer("q/t", "t", "w4") == 2
        until(lambda: first.xinfo_groups("q/t")[0]["lag"] == 2)
        if shutil.which("php"):
            first.xack("q/t", "t", *_read_soon(first, 2))
            script = tmp_path / "two.php"
            script.write_text(OTHER_PHP)
            words = ["php", str(script), str(one.port), str(two.port)]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60)
            expected = [["2", "2"], 2, 2, 1, {"p1": 1, "p2": 1}, 2, 0]
            found = json.loads(done.stdout)
            found[4] = {name: n for name, n in found[4].items() if name.startswith("p")}
            assert found == expected, done.stdout + done.stderr
        # one that died is not missed
        one.process.kill()
        one.process.wait(20)
        assert second.xpending("q/t", "t")["pending"] == 0


def _read_soon(client: redis.Redis, n: int) -> list[str]:
    """The entries that were given back, once they are due again."""
    found: list[str] = []

    def read() -> bool:
        for _, entries in client.xreadgroup("t", "x", {"q/t": ">"}, count=n):
            found.extend(entry for entry, _ in entries)
        return len(found) == n

    until(read)
    return found
