"""Whole bus: what a producer pushed is what PHP or an HTTP server gets, on both engines."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

import pytest
import redis as redis_py

from tests.fixtures.bus import Bus, Buses
from tests.fixtures.fpm import Fpm
from tests.fixtures.http import answering, raw_server
from tests.fixtures.redis import ALWAYS, Redis, running
from tests.process.bus_rig import begun, ended, let_go, node, push, queue, until, until_count

WIRE = "wire.php"
RAW = """<?php
$body = file_get_contents('php://input');
$line = implode(' ', ['E', $_SERVER['PEPPERBUS_JOB_ID'], $_SERVER['PEPPERBUS_ATTEMPT'],
    $_SERVER['PEPPERBUS_QUEUE'] . '/' . $_SERVER['HTTP_X_PEPPERBUS_TOPIC'], microtime(true), getmypid(), strlen($body),
    sha1($body), $_SERVER['PEPPERBUS_LENGTH'], $_SERVER['PEPPERBUS_SHA256']]);
file_put_contents(__DIR__ . '/ledger.txt', "$line\\n", FILE_APPEND | LOCK_EX);
"""
CONTENTS = (b"", b"plain", "grüße 辣椒".encode(), b"\x00\xff\xfe\r\n\x80&=%+;", bytes(range(256)) * 4, b"x" * (8 << 20))


@pytest.fixture(params=["embedded", "redis"])
def engine(request: pytest.FixtureRequest) -> Iterator[Redis | None]:
    if request.param == "embedded":
        yield None
        return
    with running(ALWAYS) as server:
        yield server


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def test_every_content_arrives_as_sent_in_every_topic(
    buses: Buses, fpm: Callable[..., Fpm], engine: Redis | None
) -> None:
    """Two topics by form under `sdk`, one raw under `status`: the same id everywhere, the bytes as they were pushed."""
    php = fpm()
    raw = php.script("raw.php", RAW)
    text = queue(php.script(WIRE), topics=("mail", "audit"))
    text += f"[[raw]]\nrun = fastcgi\npool = php\nscript = {raw}\nbody = raw\n"
    bus = buses.start(node(php, engine), {"orders": text})
    ids = push(bus, *CONTENTS[:5]) + push(bus, CONTENTS[5])
    wanted = {(job_id, sha1(content)) for job_id, content in zip(ids, CONTENTS, strict=True)}
    until(lambda: ended(php), lambda lines: len(lines) == 3 * len(CONTENTS), bus)
    for topic in ("mail", "audit", "raw"):
        lines = [line for line in ended(php) if line.topic == f"orders/{topic}"]
        assert {(line.id, line.sha1) for line in lines} == wanted
        assert [line.attempt for line in lines] == [1] * len(CONTENTS)
        until_count(bus, f"orders/{topic}", done=len(CONTENTS))
    for line in ended(php):
        if line.topic == "orders/raw":
            said, digest = line.in_trace, line.out_trace  # PEPPERBUS_LENGTH and PEPPERBUS_SHA256
            content = dict(zip(ids, CONTENTS, strict=True))[line.id]
            assert (int(said), digest) == (len(content), hashlib.sha256(content).hexdigest())
    traces = {(line.in_trace, line.out_trace) for line in ended(php) if line.topic != "orders/raw"}
    assert len({trace for trace, _ in traces}) == 2, "one inTraceId a command"
    assert len({trace for _, trace in traces}) == 2 * len(CONTENTS), "one outTraceId an attempt"


def test_a_consumer_without_sdk_is_judged_by_its_status(
    buses: Buses, fpm: Callable[..., Fpm], engine: Redis | None
) -> None:
    """`contract = status`: a bare script, never pinged; its HTTP status decides and an empty answer is a success."""
    php = fpm()
    script = php.script(
        "bare.php",
        "<?php $job = json_decode($_POST['jobs'], true)[0];"
        "file_put_contents(__DIR__ . '/ledger.txt', $_POST['type'] . ' ' . $job['content'] . ' ' ."
        " $job['RetryTimes'] . \"\\n\", FILE_APPEND | LOCK_EX);"
        "if ($job['content'] === 'bad' && $job['RetryTimes'] < 3) { http_response_code(500); echo 'not today'; }"
        "if ($job['content'] === 'invalid') { http_response_code(422); }",
    )
    text = queue(script, "contract = status\nbackoff = fixed 50ms")
    bus = buses.start(node(php, engine), {"orders": text})
    push(bus, "good", "bad", "invalid")
    until_count(bus, done=2, dead=1, retried=2)
    assert sorted(php.ledger()) == ["data bad 1", "data bad 2", "data bad 3", "data good 1", "data invalid 1"]


@pytest.mark.parametrize("body", ["form", "raw"])
def test_an_http_consumer_gets_form_or_raw(buses: Buses, body: str) -> None:
    done = b"HTTP/1.1 200 OK\r\nCode: 200\r\nConsume-Topics: orders/mail\r\nContent-Length: 0\r\n\r\n"
    content = b"\xff\x00 binary & more"
    with raw_server(answering(done)) as server:
        bus = buses.start(queues={"orders": queue(topic=f"url = {server.url}\nbody = {body}", run="http")})
        (job_id,) = push(bus, content)
        until_count(bus, done=1)
        seen = server.requests[-1]
        assert seen.headers["is-pepper-bus-request"] == seen.headers["is_pepper_bus_request"] == "true"
        if body == "raw":
            assert len(server.requests) == 1, "nothing is invented under contract = status"
            assert seen.body == content
            assert (seen.headers["x-pepperbus-job-id"], seen.headers["ce-id"]) == (job_id, job_id)
            return
        assert parse_qs(server.requests[0].body.decode())["type"] == ["ping"]
        form = {name: value for name, (value,) in parse_qs(seen.body.decode()).items()}
        assert (form["queue"], form["topic"], form["type"]) == ("orders", "mail", "data")
        (job,) = json.loads(form["jobs"])
        assert list(job)[:4] == ["id", "inTraceId", "content", "retrying"]
        assert (job["id"], job["RetryTimes"], job["encoding"]) == (job_id, 1, "base64")


def test_ahead_later_taken_and_all_or_nothing(buses: Buses, fpm: Callable[..., Fpm], engine: Redis | None) -> None:
    """RPUSH runs before what waits, ZADD not before its time and soon after it, RPOP takes, MULTI is one batch."""
    php = fpm()
    text = queue(php.script(WIRE), "concurrency = 1\nmax_length = 6\npassword = mailpw")
    bus = buses.start(node(php, engine), {"orders": text})
    client = bus.client()
    client.lpush("orders", "hold")
    until(lambda: begun(php), bool, bus)
    client.lpush("orders", "third", "fourth")
    client.rpush("orders", "ahead 2", "ahead 1")  # b of `RPUSH q a b` runs first
    client.execute_command("ZADD", "orders", "+3600", "later")
    with client.pipeline() as batch:
        batch.lpush("orders", "fifth")
        assert batch.execute() == [1]
    with pytest.raises(redis_py.RedisError, match="queue full"):
        client.lpush("orders", "one too many")
    with client.pipeline() as batch, pytest.raises(redis_py.RedisError):
        batch.lpush("orders", "never").get("nothing")
        batch.execute()
    with bus.client("orders/mail", "mailpw") as taker:
        taken = json.loads(taker.execute_command("RPOP", "orders/mail"))["jobs"][0]
        assert taken["content"] == "ahead 1"
    let_go(php)
    wanted = ["hold", "ahead 2", "third", "fourth", "fifth"]
    lines = until(lambda: ended(php), lambda lines: len(lines) == 5, bus)
    assert [line.sha1 for line in lines] == [sha1(one.encode()) for one in wanted]
    rounds: list[list[float]] = []
    while not rounds or rounds[-1][2] >= 0.15:
        assert len(rounds) < 8, rounds  # a machine under load is slow at times, a sweep always
        rounds.append(lateness(bus, php, 5 * len(rounds)))
        assert rounds[-1][0] >= -0.002, rounds
    client.close()


def lateness(bus: Bus, php: Fpm, before: int) -> list[float]:
    """How late (s) five jobs begin that become due one after the other, sorted; `before` such jobs ran already."""
    first = time.time() + 0.3
    due = {sha1(b"due %d" % n): first + 0.13 * (n - before) for n in range(before, before + 5)}
    with bus.client() as client:
        for n, at in enumerate(due.values(), before):
            client.execute_command("ZADD", "orders", repr(at), f"due {n}")

    def begins() -> dict[str, float]:
        return {line.sha1: line.at for line in begun(php) if line.sha1 in due}

    seen = until(begins, lambda found: len(found) == len(due), bus)
    return sorted(seen[one] - at for one, at in due.items())


def test_nothing_is_held_behind_a_slow_job(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    """Quick jobs are leased ahead; when a slow one comes between, the rest goes back to where others can have it."""
    php = fpm()
    bus = buses.start(node(php), {"orders": queue(php.script(WIRE), "concurrency = 1")})
    push(bus, *["quick"] * 200)
    until_count(bus, done=200)
    push(bus, "hold", *["quick"] * 100)
    with bus.client("orders/mail", "secret") as client:
        until(lambda: int(client.llen("orders/mail")), lambda waiting: waiting == 100, bus)
    bus.client().rpush("orders", "passes them all")
    let_go(php)
    until_count(bus, done=302)
    order = [line.length for line in ended(php)][200:]
    assert order[:2] == [len("hold"), len("passes them all")]
