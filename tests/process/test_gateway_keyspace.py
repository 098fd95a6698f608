"""Topics as keys: what tools that look into a Redis see, and that each login sees its own only."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest
import redis

from pepperbus.gateway.keyspace import matcher
from tests.process.gateway_running import Running, Wire, running, spec

PULL = {"run": "pull"}
QUEUES = {
    "a": {"open": True, "password": "x", "topics": {"fed": {}, "read": PULL, "popped": {**PULL, "pop": "leased"}}},
    "b": {"password": "pw", "topics": {"t": {"password": "tp"}}},
    "c": {"password": "pw", "topics": {f"t{n}": {} for n in range(30)}},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    logins = {"look": {"password": "pw", "push": False, "pop": True, "queues": ["*"]}}
    with running(spec(tmp_path_factory.mktemp("keys"), queues=QUEUES, logins=logins)) as one:
        yield one


@pytest.fixture
def wire(gateway: Running) -> Iterator[Wire]:
    one = gateway.connect()
    yield one
    one.close()


def test_each_login_sees_its_own(gateway: Running, wire: Wire) -> None:
    def seen(*login: str) -> set[str]:
        with redis.Redis(port=gateway.port, **dict(zip(("username", "password"), login, strict=False))) as client:
            found = {key.decode() for key in client.scan_iter(count=7)}
            assert found == {key.decode() for key in client.keys("*")}
            assert len(found) == client.dbsize() == client.info()["db0"]["keys"]
            return found

    nearby = {"a/fed", "a/popped", "a/read"}
    assert seen() == nearby
    assert seen("b", "pw") == seen("b/t", "tp") == nearby | {"b/t"}
    assert len(seen("look", "pw")) == 34
    assert wire.ask("EXISTS", "b/t", "a/fed", "a/none", "none") == b":1\r\n"
    assert wire.ask("TYPE", "b/t") == b"+none\r\n"
    assert wire.ask("MEMORY", "USAGE", "b/t") == b"$-1\r\n"


def test_a_topic_as_a_key(gateway: Running, wire: Wire) -> None:
    wire.ask("LPUSH", "a", "x" * 1000, "y" * 1000)
    assert [wire.ask("TYPE", f"a/{topic}") for topic in ("fed", "popped", "read", "none")] == [
        b"+list\r\n", b"+list\r\n", b"+stream\r\n", b"+none\r\n",
    ]  # fmt: skip
    assert wire.ask("TTL", "a/fed") == wire.ask("PTTL", "a/read") == b":-1\r\n"
    assert wire.ask("TTL", "a/none") == b":-2\r\n"
    assert wire.ask("OBJECT", "ENCODING", "a/read") == b"$6\r\nstream\r\n"
    assert int(wire.ask("MEMORY", "USAGE", "a/fed", "SAMPLES", "0")[1:]) > 2000
    assert b'"content":"xxx' in wire.ask("LINDEX", "a/fed", "0")
    assert b'"content":"yyy' in wire.ask("LINDEX", "a/fed", "-1")
    assert wire.ask("LINDEX", "a/fed", "9") == b"$-1\r\n"
    assert wire.ask("XLEN", "a/read") == b":2\r\n"
    assert wire.ask("STRLEN", "a/fed").startswith(b"-WRONGTYPE")
    assert wire.ask("GET", "other").startswith(b"-ERR unknown command 'GET': this is a job bus")
    assert wire.ask("CONFIG", "GET", "databases") == b"*2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n"
    assert wire.ask("CONFIG", "SET", "x", "y").startswith(b"-ERR CONFIG is not offered")
    for words in (
        ("DEL", "a/fed"),
        ("FLUSHALL",),
        ("RENAME", "a/fed", "z"),
        ("EXPIRE", "a/fed", "1"),
        ("LTRIM", "a/fed", "1", "0"),
    ):
        assert wire.ask(*words).startswith(b"-ERR unknown command"), words


def test_scan_is_redis_own(gateway: Running, wire: Wire) -> None:
    assert wire.ask("SCAN", "0", "MATCH", "a/[p-r]*", "COUNT", "99") == (
        b"*2\r\n$1\r\n0\r\n*2\r\n$8\r\na/popped\r\n$6\r\na/read\r\n"
    )
    assert wire.ask("SCAN", "0", "TYPE", "stream", "COUNT", "99").endswith(b"*1\r\n$6\r\na/read\r\n")
    assert wire.ask("SCAN", "0", "COUNT", "2").startswith(b"*2\r\n$1\r\n2\r\n*2\r\n")
    assert wire.ask("SCAN", "99") == b"*2\r\n$1\r\n0\r\n*0\r\n"
    assert wire.ask("SCAN", "x") == b"-ERR invalid cursor\r\n"
    assert wire.ask("SCAN", "0", "COUNT", "0").startswith(b"-ERR")
    assert wire.ask("SCAN", "0", "SIZE", "1") == b"-ERR syntax error\r\n"
    assert wire.ask("KEYS", "*" * 2000).startswith(b"-ERR the pattern is too long")


@pytest.mark.parametrize(
    ("pattern", "matches", "fails"),
    [
        ("*", "a/b", None),
        ("a?c", "abc", "ac"),
        ("[^a]b", "xb", "ab"),
        ("[a-c]b", "bb", "db"),
        (r"a\*", "a*", "ab"),
        (r"\[x", "[x", "x"),
        ("a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", "a" * 20 + "b", "a" * 200),
    ],
)
def test_patterns(pattern: str, matches: str, fails: str | None) -> None:
    found = matcher(pattern.encode())
    assert found is not None
    assert found.match(matches)
    assert fails is None or not found.match(fails)


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="redis-cli is not installed")
def test_redis_cli_looks_around(gateway: Running) -> None:
    def cli(*words: str) -> str:
        command = ["redis-cli", "-p", str(gateway.port), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    assert cli("--scan").split() == ["a/fed", "a/popped", "a/read"]
    assert "Biggest stream found '\"a/read\"'" in cli("--bigkeys")
    assert "Sampled 3 keys in the keyspace!" in cli("--memkeys")
