"""`run = http` against real servers on loopback: kind ones, broken ones and hostile ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qsl

import gevent
import pytest

from pepperbus.config.model import Config, Http, Topic
from pepperbus.config.secret import Secret
from pepperbus.delivery.contract import Act, Answer, Delivered, Request, Transport
from pepperbus.delivery.http import HttpConsumer
from pepperbus.delivery.http_answer import KEEP_BODY
from pepperbus.delivery.http_connection import trust
from pepperbus.delivery.sign import Signer
from pepperbus.delivery.verdict import judge, judge_ping
from pepperbus.errors import ConfigError
from pepperbus.job import Job
from tests.fixtures.http import BROKEN, FINE, OK, RawServer, answering, once, raw_server, read_request
from tests.fixtures.ports import free_port

NOW_MS = 1_800_000_000_000
JOB_ID = 9223372036854775809


def topic(*urls: str, **keys: Any) -> Topic:
    return Topic("orders", "mail", "local", "http", urls=urls, **keys)


def consumer(*urls: str, **keys: Any) -> HttpConsumer:
    return HttpConsumer(topic(*urls, **keys), cast(Config, SimpleNamespace(http=Http())))


def request(content: bytes = b"hello", deadline_s: float = 30.0, ping: bool = False) -> Request:
    jobs = () if ping else (Delivered(Job(JOB_ID, "t-1", content, NOW_MS), 2),)
    return Request("orders", "mail", "" if ping else "out-1", jobs, ping, deadline_s, NOW_MS)


def test_what_a_form_call_looks_like() -> None:
    with raw_server(answering(OK)) as server:
        answer = consumer(server.url + "?a=b").call(request())
    assert (answer.transport, answer.status, answer.body) == (Transport.ANSWERED, 200, b"ok")
    assert answer.headers["code"] == "200"
    (seen,) = server.requests
    assert seen.head == "POST /jobs?a=b HTTP/1.1"
    assert seen.headers["host"] == f"127.0.0.1:{server.port}"
    assert seen.headers["is-pepper-bus-request"] == "true"
    assert seen.headers["is_pepper_bus_request"] == "true"
    assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
    assert (seen.headers["x-pepperbus-job-id"], seen.headers["x-pepperbus-attempt"]) == (str(JOB_ID), "2")
    fields = dict(parse_qsl(seen.body.decode()))
    assert list(fields) == ["type", "queue", "topic", "outTraceId", "jobs", "IS_PEPPER_BUS_REQUEST"]
    assert json.loads(fields["jobs"])[0]["content"] == "hello"


def test_what_a_raw_call_looks_like() -> None:
    content = b"\x00\xff{}&\r\n"
    headers = (("Content-Type", "application/json"), ("X-App", "shop"))
    with raw_server(answering(OK)) as server:
        consumer(server.url, body="raw", contract="status", host="shop.internal", headers=headers).call(
            request(content)
        )
    (seen,) = server.requests
    assert seen.body == content
    assert {
        name: seen.headers[name] for name in seen.headers if name.startswith(("ce-", "x-", "content-t", "host"))
    } == {
        "host": "shop.internal",
        "content-type": "application/json",
        "x-app": "shop",
        "x-pepperbus-queue": "orders",
        "x-pepperbus-topic": "mail",
        "x-pepperbus-trace-id": "out-1",
        "x-pepperbus-deadline": "1800000030",
        "x-pepperbus-job-id": str(JOB_ID),
        "x-pepperbus-attempt": "2",
        "ce-specversion": "1.0",
        "ce-id": str(JOB_ID),
        "ce-source": "/pepperbus/orders",
        "ce-type": "pepperbus.job",
        "ce-subject": "mail",
        "ce-time": "2027-01-15T08:00:00.000Z",
    }


def test_a_form_keeps_its_content_type_whatever_the_headers_say() -> None:
    with raw_server(answering(OK)) as server:
        consumer(server.url, headers=(("Content-Type", "application/json"),)).call(request())
    assert server.requests[0].headers["content-type"] == "application/x-www-form-urlencoded"


def test_a_signature_the_receiver_can_check() -> None:
    with raw_server(answering(OK)) as server:
        consumer(server.url, sign=Secret("s3cret")).call(request())
    (seen,) = server.requests
    assert (seen.headers["webhook-id"], seen.headers["webhook-timestamp"]) == (str(JOB_ID), "1800000000")
    signed = f"{JOB_ID}.1800000000.".encode() + seen.body
    expected = base64.b64encode(hmac.new(b"s3cret", signed, hashlib.sha256).digest()).decode()
    assert seen.headers["webhook-signature"] == f"v1,{expected}"


def test_the_published_vector_of_standard_webhooks() -> None:
    signer = Signer("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = dict(signer.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'))
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/任务 1?q=a b&x=%20", "/%E4%BB%BB%E5%8A%A1%201?q=a%20b&x=%20"),
        ("", "/"),
        ("/a/../b;c=1?d[]=2#frag", "/a/../b;c=1?d%5B%5D=2"),
    ],
)
def test_a_url_as_people_write_it(written: str, sent: str) -> None:
    with raw_server(answering(OK)) as server:
        answer = consumer(f"http://localhost:{server.port}{written}").call(request())
    assert answer.status == 200, answer
    assert server.requests[0].head == f"POST {sent} HTTP/1.1"
    assert server.requests[0].headers["host"] == f"localhost:{server.port}"


def test_a_url_by_an_ipv6_address() -> None:
    ours = consumer("http://[::1]:8080/x")
    assert (ours._endpoints[0].url.host, ours._endpoints[0].url.netloc) == ("::1", "[::1]:8080")


def test_a_password_in_the_url_is_sent_and_never_shown() -> None:
    with raw_server(answering(OK)) as server:
        ours = consumer(f"http://bob:p%40ss@127.0.0.1:{server.port}/jobs")
        ours.call(request())
    assert server.requests[0].headers["authorization"] == "Basic " + base64.b64encode(b"bob:p@ss").decode()
    assert "p%40ss" not in ours.address


def test_connections_are_kept_and_never_shared() -> None:
    together = threading.Barrier(3, timeout=20)
    crowd = threading.Event()

    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        while read_request(conn) is not None:
            if crowd.is_set():
                together.wait()  # only if all three are here at once
            conn.sendall(OK)

    with raw_server(talk) as server:
        ours = consumer(server.url)
        for _ in range(5):
            assert ours.call(request()).transport is Transport.ANSWERED
        assert server.connections == 1
        crowd.set()
        greenlets = [gevent.spawn(ours.call, request()) for _ in range(3)]
        assert [g.get(timeout=20).status for g in greenlets] == [200] * 3
        assert server.connections == 3
        ours.close()


def test_start_answers_once_and_later() -> None:
    answers: list[Answer] = []
    with raw_server(answering(OK)) as server:
        consumer(server.url).start(request(), answers.append)
        assert answers == []
        deadline = time.monotonic() + 20
        while not answers and time.monotonic() < deadline:
            gevent.sleep(0.005)
    assert [answer.status for answer in answers] == [200]


def test_a_kept_connection_found_closed_is_replaced() -> None:
    with raw_server(once(OK)) as server:
        ours = consumer(server.url)
        assert not ours.call(request()).reconnected
        deadline = time.monotonic() + 20
        while ours._endpoints[0].idle[0].quiet() and time.monotonic() < deadline:
            time.sleep(0.005)
        second = ours.call(request())
        assert (second.status, second.reconnected) == (200, True)
        assert server.connections == 2


def test_a_server_that_closes_soon_is_believed() -> None:
    polite = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1, max=5\r\nContent-Length: 0\r\n\r\n"
    with raw_server(answering(polite)) as server:
        ours = consumer(server.url)
        ours.call(request())
        assert ours.call(request()).reconnected is False
        assert server.connections == 2


def test_several_urls_take_turns() -> None:
    with raw_server(answering(OK)) as one, raw_server(answering(OK)) as two:
        ours = consumer(one.url, two.url)
        for _ in range(6):
            ours.call(request())
        assert (len(one.requests), len(two.requests)) == (3, 3)


def test_a_url_that_refuses_is_passed_over_and_costs_no_job() -> None:
    with raw_server(answering(OK)) as alive:
        ours = consumer(f"http://127.0.0.1:{free_port()}/", alive.url)
        assert [ours.call(request()).status for _ in range(4)] == [200] * 4
        assert ours._endpoints[0].skip_until > time.monotonic()
        assert ours.reachable()


@pytest.mark.parametrize(
    ("url", "transport"),
    [("http://127.0.0.1:{port}/", Transport.NO_LISTENER), ("http://no-such-host.invalid/", Transport.NO_LISTENER)],
)
def test_nobody_listens(url: str, transport: Transport) -> None:
    ours = consumer(url.format(port=free_port()))
    answer = ours.call(request())
    assert answer.transport is transport
    assert answer.detail.startswith("http://")
    assert not ours.reachable()


def test_a_full_backlog_is_busy() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fill = [socket.socket() for _ in range(4)]
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        answer = consumer(f"http://127.0.0.1:{port}/").call(request(deadline_s=0.3))
        for sock in fill:
            sock.close()
    assert answer.transport is Transport.BUSY


# -- answers that are no answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_may_have_run(sent: bytes) -> None:
    with raw_server(once(sent)) as server:
        ours = consumer(server.url)
        answer = ours.call(request())
        assert answer.transport is Transport.CUT, answer
        assert answer.detail.startswith(server.url)
        assert not ours._endpoints[0].idle
        assert server.connections == 1, "never sent again"
    verdict = judge(answer, request(), topic())
    assert (verdict.act, verdict.spent) == (Act.RETRY, True)
    assert verdict.reason.endswith("; may have run")


def test_what_is_said_of_a_malformed_answer() -> None:
    with raw_server(once(BROKEN["two lengths"])) as server:
        assert "malformed answer: conflicting Content-Length" in consumer(server.url).call(request()).detail


def test_a_reset_after_sending_may_have_run() -> None:
    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        read_request(conn)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with raw_server(talk) as server:
        answer = consumer(server.url).call(request())
    assert answer.transport is Transport.CUT
    assert "reset" in answer.detail


def test_bytes_after_the_answer_end_the_connection() -> None:
    with raw_server(answering(OK + b"HTTP/1.1 200 OK\r\nCode: 200\r\nContent-Length: 0\r\n\r\n")) as server:
        ours = consumer(server.url)
        assert ours.call(request()).body == b"ok"
        ours.call(request())
        assert server.connections == 2


@pytest.mark.parametrize(("sent", "status", "body"), FINE)
def test_answers_that_are_fine(sent: bytes, status: int, body: bytes) -> None:
    with raw_server(once(sent)) as server:
        answer = consumer(server.url).call(request())
        assert (answer.transport, answer.status, answer.body) == (Transport.ANSWERED, status, body)
        assert len(server.requests) == 1
    assert answer.headers.get("x", "a, b") == "a, b"


def test_a_long_answer_is_cut_short_but_read() -> None:
    size = KEEP_BODY + 300_000
    with raw_server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size, OK)) as server:
        ours = consumer(server.url)
        assert len(ours.call(request()).body) == KEEP_BODY
        assert ours.call(request()).body == b"ok"
        assert server.connections == 1


def test_an_endless_answer_is_ended() -> None:
    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        read_request(conn)
        conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        block = b"x" * (1 << 20)
        while True:
            conn.sendall(block)

    with raw_server(talk) as server:
        answer = consumer(server.url).call(request(deadline_s=20))
    assert answer.transport is Transport.CUT
    assert "64 MiB" in answer.detail


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"],
    ids=["silence", "header", "chunks"],
)
def test_the_deadline_is_for_the_whole_exchange(start: bytes) -> None:
    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        read_request(conn)
        conn.sendall(start)
        while True:
            threading.Event().wait(0.05)
            if start:
                conn.sendall(b"1\r\na\r\n" if start.endswith(b"\n") else b"x")

    with raw_server(talk) as server:
        began = time.monotonic()
        answer = consumer(server.url).call(request(deadline_s=0.4))
        assert 0.35 < time.monotonic() - began < 20
    assert answer.transport is Transport.TIMEOUT
    assert judge(answer, request(), topic()).zombie


def test_an_answer_before_the_body_was_taken_counts() -> None:
    early = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    heard = threading.Event()

    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        conn.recv(1000)
        conn.sendall(early)
        heard.wait(60)

    with raw_server(talk) as server:
        answer = consumer(server.url, body="raw", contract="status").call(request(b"x" * (6 << 20)))
        heard.set()
    assert (answer.transport, answer.status) == (Transport.ANSWERED, 413)
    assert judge(answer, request(), topic(body="raw", contract="status")).act is Act.DEAD


def test_a_body_that_is_never_taken_runs_into_the_deadline() -> None:
    over = threading.Event()

    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        over.wait(60)

    with raw_server(talk) as server:
        answer = consumer(server.url, body="raw").call(request(b"x" * (6 << 20), deadline_s=0.4))
        over.set()
    assert answer.transport is Transport.TIMEOUT


def test_eight_mebibytes_arrive_as_sent() -> None:
    content = bytes(range(256)) * (8 << 12)
    with raw_server(answering(OK)) as server:
        assert consumer(server.url, body="raw").call(request(content, 20)).status == 200
    assert server.requests[0].body == content


def test_closing_cuts_what_is_under_way() -> None:
    took = threading.Event()

    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        read_request(conn)
        took.set()
        conn.recv(1)

    with raw_server(talk) as server:
        ours = consumer(server.url)
        under_way = gevent.spawn(ours.call, request(deadline_s=30))
        while not took.is_set():
            gevent.sleep(0.005)
        ours.close()
        assert under_way.get(timeout=20).transport is Transport.CUT
        assert ours.call(request()).transport is Transport.BUSY


# -- TLS ---------------------------------------------------------------------------------------------------------------


def make_certificate(directory: Path, name: str, days: str) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("no openssl on the PATH")
    path = directory / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-days", days]
    subprocess.run([*command, "-keyout", str(path), "-out", str(path) + ".crt"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(str(path) + ".crt").read_bytes())
    return path


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make a certificate an authority of the system for this test."""

    def believe(path: Path) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(path) + ".crt")
        trust.cache_clear()

    yield believe
    trust.cache_clear()


def tls_talk(certificate: Path) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        with context.wrap_socket(conn, server_side=True) as secure:
            answering(OK)(secure, server, number)

    return talk


def test_tls_verified_by_the_systems_authorities(tmp_path: Path, trusted: Any) -> None:
    certificate = make_certificate(tmp_path, "localhost", "2")
    trusted(certificate)
    with raw_server(tls_talk(certificate)) as server:
        ours = consumer(f"https://localhost:{server.port}/jobs")
        assert [ours.call(request()).body for _ in range(3)] == [b"ok"] * 3
        assert ours.call(request(b"x" * 300_000)).body == b"ok"


@pytest.mark.parametrize("case", ["unknown authority", "wrong host", "no TLS"])
def test_tls_that_cannot_be_trusted_stops_the_topic(case: str, tmp_path: Path, trusted: Any) -> None:
    certificate = make_certificate(tmp_path, "elsewhere.test" if case == "wrong host" else "localhost", "2")
    if case == "wrong host":
        trusted(certificate)

    def plain(conn: socket.socket, server: RawServer, number: int) -> None:
        conn.recv(100)
        conn.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    talk = plain if case == "no TLS" else tls_talk(certificate)
    with raw_server(talk) as server:
        answer = consumer(f"https://localhost:{server.port}/jobs").call(request())
        assert answer.transport is Transport.FORBIDDEN, answer
        assert "TLS" in answer.detail
        assert not server.requests
    assert judge(answer, request(), topic()).spent is False


def test_a_handshake_that_stalls_is_no_attempt() -> None:
    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        while conn.recv(65536):
            pass

    with raw_server(talk) as server:
        answer = consumer(f"https://localhost:{server.port}/").call(request(deadline_s=0.4))
    assert answer.transport is Transport.BUSY


# -- what cannot be configured -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "keys", "word"),
    [
        ("ftp://x/", {}, "must be http"),
        ("http:///x", {}, "must be http"),
        ("http://x:99999/", {}, "url"),
        ("http://x/", {"headers": (("Content-Length", "3"),)}, "Content-Length"),
        ("http://x/", {"headers": (("X-Pepperbus-Job-Id", "3"),)}, "X-Pepperbus-Job-Id"),
        ("http://x/", {"headers": (("X y", "3"),)}, "cannot be sent"),
        ("http://x/", {"headers": (("X", "a\r\nb"),)}, "cannot be sent"),
        ("http://x/", {"sign": Secret("whsec_***")}, "base64"),
    ],
)
def test_refused_before_anything_is_sent(url: str, keys: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        consumer(url, **keys)


# -- a real PHP consumer -----------------------------------------------------------------------------------------------------

PHP = """<?php
$list = 'orders/audit,orders/mail,';
if (($_SERVER['HTTP_IS_PEPPER_BUS_REQUEST'] ?? '') !== 'true') { header('Code: 500'); exit('not the bus'); }
if ($_POST['type'] === 'ping') { header('Code: 200'); exit($list); }
$job = json_decode($_POST['jobs'], true)[0];
header('Code: 200');
echo bin2hex($job['content']), ' ', $_SERVER['HTTP_X_PEPPERBUS_JOB_ID'];
"""


@pytest.fixture
def php_server(tmp_path: Path) -> Iterator[str]:
    if not shutil.which("php"):
        pytest.skip("no php on the PATH: install php-cli")
    (tmp_path / "index.php").write_text(PHP)
    port = free_port()
    process = subprocess.Popen(
        ["php", "-S", f"127.0.0.1:{port}", "-t", str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/index.php"
    finally:
        process.terminate()
        process.wait(20)


def test_php_reads_the_form_as_it_was_meant(php_server: str) -> None:
    ours = consumer(php_server)
    assert judge_ping(ours.call(request(ping=True)), request(ping=True)) == (True, "")
    content = "a&b=c;d+e%20 \x00\r\n 张三 😀 +=".encode() + bytes(range(32, 127))
    answer = ours.call(request(content))
    assert judge(answer, request(content), topic()).act is Act.DONE
    assert answer.body.decode() == f"{content.hex()} {JOB_ID}"
