"""What needs no conversation: addresses, packed commands, what follows from a server's facts. And TLS, which needs one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hiredis
import pytest

from pepperbus.config.model import StorageConfig
from pepperbus.config.secret import Secret
from pepperbus.errors import ConfigError, StorageRefused, StorageUnavailable
from pepperbus.storage.contract import Push
from pepperbus.storage.redis import RedisStorage
from pepperbus.storage.redis_facts import Facts
from pepperbus.storage.redis_keys import Record, is_good, pointer, pointer_of
from pepperbus.storage.redis_pack import each, many, pack, repeated
from pepperbus.storage.redis_url import Address, parse_url
from tests.fixtures.ports import free_port
from tests.fixtures.redis import Redis, pika_commands

ID = 1 << 63


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://127.0.0.1:6379/0", Address()),
        ("redis://db.example", Address(host="db.example")),
        ("redis://:secret@h:1/3", Address("h", 1, database=3, password="secret")),
        ("redis://joe:s%40e%3Ac@h:1", Address("h", 1, user="joe", password="s@e:c")),
        ("redis://[::1]:7000/2", Address("::1", 7000, database=2)),
        ("unix:///run/redis/redis.sock", Address(path="/run/redis/redis.sock")),
        ("unix:///r.sock?db=4", Address(path="/r.sock", database=4)),
        ("unix://joe:pw@/r.sock", Address(path="/r.sock", user="joe", password="pw")),
        ("rediss://h:1?ca=/etc/ca.pem", Address("h", 1, tls=True, ca="/etc/ca.pem")),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert parse_url("main", url) == replace(address, host=address.host if not address.path else "127.0.0.1")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "does not begin with"),
        ("http://h", "does not begin with"),
        ("h:6379", "does not begin with"),
        ("unix://", "path is missing"),
        ("redis://h:port/0", "Port"),
        ("redis://h:99999", "[Pp]ort"),
        ("redis://h/first", "'first' is no number"),
        ("redis://h/0?timeout=3", "'timeout' is not known"),
        ("redis://joe@h", "user without a password"),
    ],
)
def test_bad_addresses_name_the_storage_and_the_forms(url: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        parse_url("main", url)
    assert str(caught.value).startswith("storage main: url: ")
    assert "unix:///path?db=0" in str(caught.value)


def test_an_address_never_shows_its_password() -> None:
    address = parse_url("main", "redis://joe:secret@h:1")
    assert "secret" not in f"{address} {address!r}"


def _words(data: bytes) -> list[list[bytes]]:
    reader = hiredis.Reader()
    reader.feed(data)
    return list(iter(reader.gets, False))


@pytest.mark.parametrize("items", [[b"1" * 20], [b"1" * 20, b"2" * 20, b"\r\n" * 10], [b"", b"a", b"bc"]])
def test_packed_commands_are_what_they_stand_for(items: list[bytes]) -> None:
    one, all_, twice = each((b"LREM", b"k", 0), items), many((b"HDEL", b"k"), items), repeated((b"PING",), 2)
    data, count = pack([(b"GET", "ü"), one, all_, twice, each((b"X",), [])])
    expected = [[b"GET", "ü".encode()], *[[b"LREM", b"k", b"0", item] for item in items], [b"HDEL", b"k", *items]]
    assert _words(data) == [*expected, [b"PING"], [b"PING"]]
    assert count == len(expected) + 2


def test_only_the_pointer_of_the_push_that_stored_the_body_is_good() -> None:
    stored = b"abcdefbody"
    assert is_good(pointer(ID, b"abcdef"), stored)
    assert pointer_of(b"%020d" % ID, stored) == pointer(ID, b"abcdef")
    assert not is_good(pointer(ID, b"fedcba"), stored)
    assert not is_good(pointer(ID, b"abcdef"), None)
    assert not is_good(b"rubbish", stored)
    assert pointer_of(b"%020d" % ID, None) == b""


def test_records() -> None:
    assert Record.decode(None) == (0, 0, 0)
    assert Record.decode(Record(3, 1, 1_800_000_000_000).encode()) == (3, 1, 1_800_000_000_000)


REDIS = Facts("7.0.15", False, False, True, "everysec", "noeviction", 0, 0)
PIKA = Facts("3.5.5", True, False, False, "", "", 0, 0)


@pytest.mark.parametrize(
    ("facts", "mode", "text"),
    [
        (replace(REDIS, version="4.0.14"), "redis", "version 4.0.14 is too old; 5.0.0"),
        (replace(REDIS, cluster=True), "redis", "Redis Cluster"),
        (replace(REDIS, limit=1, policy="volatile-lru"), "redis", "CONFIG SET maxmemory-policy noeviction"),
        (PIKA, "redis", "set `mode = pika`"),
        (replace(PIKA, version="3.4.0"), "pika", "version 3.4.0 is too old; 3.5.2"),
    ],
)
def test_servers_that_are_refused(facts: Facts, mode: str, text: str) -> None:
    with pytest.raises(StorageRefused, match=text):
        facts.check("main", mode)


def test_servers_that_are_taken() -> None:
    REDIS.check("main", "redis")
    REDIS.check("main", "pika")
    PIKA.check("main", "pika")
    replace(REDIS, limit=0, policy="allkeys-lru").check("main", "redis")  # no limit: nothing is ever evicted
    replace(PIKA, version="4.0.1-rc2").check("main", "pika")


def test_what_pika_gives_and_what_to_type() -> None:
    assert PIKA.durability() == "process"
    assert PIKA.advice("process") == ""
    assert "another storage" in PIKA.advice("power")


def test_the_list_of_pikas_commands_is_there_and_lacks_what_pika_lacks() -> None:
    assert len(pika_commands()) == 191
    assert not pika_commands() & {"lmove", "blmove", "brpoplpush", "eval", "getdel", "xack", "zmscore", "memory"}


def test_pikas_user_is_refused_what_pika_has_not(redis_server: Redis) -> None:
    denied = redis_server.ask("ACL", "DRYRUN", "pika", "LMOVE", "a", "b", "LEFT", "RIGHT")
    assert b"no permissions" in denied
    assert redis_server.ask("ACL", "DRYRUN", "pika", "RPOPLPUSH", "a", "b") == b"OK"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "cert.pem"


def test_tls_is_verified(start_redis: Callable[..., Redis], certificate: Path) -> None:
    port = free_port()
    server = start_redis(
        tls_port=str(port),
        tls_cert_file=str(certificate),
        tls_key_file=str(certificate.with_name("key.pem")),
        tls_auth_clients="no",
    )
    storage = RedisStorage(StorageConfig("main", "redis", Secret(f"rediss://localhost:{port}/0?ca={certificate}")))
    storage.open()
    for n in range(3):
        storage.push([Push(ID + n, b"x" * 100_000, ("orders/mail",))])
    assert len(storage.lease("orders/mail", 5, "n/w/b")) == 3
    before = server.ask("INFO", "stats").partition(b"total_connections_received:")[2].split()[0]
    assert storage.depth("orders/mail").leased == 3
    after = server.ask("INFO", "stats").partition(b"total_connections_received:")[2].split()[0]
    assert int(after) - int(before) == 1, "the storage connected anew"  # the other INFO's own is the one
    storage.close()
    with pytest.raises(StorageUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        RedisStorage(StorageConfig("main", "redis", Secret(f"rediss://localhost:{port}/0"))).open()
