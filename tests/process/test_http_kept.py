"""The second exchange on a connection to an HTTP consumer: by callbacks, and with answers that came before.

Every rule of `test_http_delivery` holds there too: broken answers, deadlines, early answers, bodies that nobody takes.
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult

from pepperbus.delivery.contract import Act, Answer, Transport
from pepperbus.delivery.http import HttpConsumer
from pepperbus.delivery.verdict import judge
from tests.fixtures.http import BROKEN, FINE, OK, RawServer, Talk, answering, raw_server, read_request
from tests.process.test_http_delivery import consumer, request, topic


def begun(ours: HttpConsumer, **keys: Any) -> AsyncResult[Answer]:
    """What `start` comes to; it never answers within the call."""
    answer: AsyncResult[Answer] = AsyncResult()
    asked = request(**keys)
    ours.start(asked, answer.set, ours.pack(asked))
    assert not answer.ready()
    return answer


def kept(ours: HttpConsumer) -> None:
    """See that there is a kept connection, which the next exchange uses."""
    assert begun(ours).get(timeout=20).status == 200
    assert len(ours._endpoints[0].idle) == 1


def second(answer: bytes, close: bool = True) -> Talk:
    """Answer the first request of a connection with OK, the second with these bytes."""

    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        read_request(conn)
        conn.sendall(OK)
        seen = read_request(conn)
        if seen is not None:
            server.requests.append(seen)
            conn.sendall(answer)
        if not close:
            read_request(conn)

    return talk


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_may_have_run(sent: bytes) -> None:
    with raw_server(second(sent)) as server:
        ours = consumer(server.url)
        kept(ours)
        answer = begun(ours).get(timeout=20)
        assert answer.transport is Transport.CUT, answer
        assert answer.detail.startswith(server.url)
        assert (len(ours._endpoints[0].idle), len(server.requests), server.connections) == (0, 1, 1), "sent again"
    assert (judge(answer, request(), topic()).act, judge(answer, request(), topic()).spent) == (Act.RETRY, True)


@pytest.mark.parametrize(("sent", "status", "body"), FINE)
def test_answers_that_are_fine(sent: bytes, status: int, body: bytes) -> None:
    with raw_server(second(sent)) as server:
        ours = consumer(server.url)
        kept(ours)
        answer = begun(ours).get(timeout=20)
        assert (answer.transport, answer.status, answer.body) == (Transport.ANSWERED, status, body)
        assert not answer.reconnected
        assert server.connections == 1


def test_answers_known_by_heart_say_the_same() -> None:
    other = b"HTTP/1.1 500 No\r\nCode: 500\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
    with raw_server(answering(OK, OK, other, OK, other, OK)) as server:
        ours = consumer(server.url)
        answers = [begun(ours).get(timeout=20) for _ in range(8)]
        assert [answer.status for answer in answers] == [200, 200, 500, 200, 500, 200, 200, 200]
        assert [answer.body for answer in answers[1:4]] == [b"ok", b"no", b"ok"]
        assert answers[4].headers == {"code": "500", "transfer-encoding": "chunked"}
        assert all(answer.total_ms > 0 for answer in answers)
        assert server.connections == 1


@pytest.mark.parametrize(
    "sent",
    [
        OK + b"HTTP/1.1 200 OK\r\nCode: 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["more than the answer", "close", "closes soon"],
)
def test_connections_that_cannot_be_used_again_are_not(sent: bytes) -> None:
    with raw_server(second(sent, close=False)) as server:
        ours = consumer(server.url)
        for connections in (1, 1, 2, 2, 3):
            assert begun(ours).get(timeout=20).body == b"ok"
            assert server.connections == connections


def test_a_connection_closed_meanwhile_is_replaced() -> None:
    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        for _ in range(2):
            read_request(conn)
            conn.sendall(OK)

    with raw_server(talk) as server:
        ours = consumer(server.url)
        kept(ours)
        kept(ours)
        with gevent.Timeout(20):
            while ours._endpoints[0].idle[0].quiet():
                gevent.sleep(0.005)
        third = begun(ours).get(timeout=20)
        assert (third.status, third.reconnected, server.connections) == (200, True, 2)


def test_a_reset_after_sending_may_have_run() -> None:
    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        read_request(conn)
        conn.sendall(OK)
        read_request(conn)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with raw_server(talk) as server:
        ours = consumer(server.url)
        kept(ours)
        answer = begun(ours).get(timeout=20)
    assert (answer.transport, "reset" in answer.detail) == (Transport.CUT, True), answer


@pytest.mark.parametrize(("start", "word"), [(b"", "no answer"), (b"HTTP/1.1 200 OK\r\nX: ", "not complete")])
def test_the_deadline_is_for_the_whole_exchange(start: bytes, word: str) -> None:
    leave = threading.Event()

    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        read_request(conn)
        conn.sendall(OK)
        read_request(conn)
        conn.sendall(start)
        while not leave.wait(0.02):
            if start:
                conn.sendall(b"x")

    with raw_server(talk) as server:
        ours = consumer(server.url)
        kept(ours)
        answer = begun(ours, deadline_s=0.3).get(timeout=20)
        leave.set()
        assert (answer.transport, word in answer.detail) == (Transport.TIMEOUT, True), answer
        assert not ours._endpoints[0].idle
    assert judge(answer, request(), topic()).zombie


def test_large_bodies_are_sent_beside_the_reading() -> None:
    content = bytes(range(256)) * (8 << 12)
    with raw_server(answering(OK)) as server:
        ours = consumer(server.url, body="raw")
        kept(ours)
        for _ in range(2):
            assert begun(ours, content=content, deadline_s=20).get(timeout=20).status == 200
        assert [len(seen.body) for seen in server.requests[1:]] == [len(content)] * 2
        assert server.requests[2].body == content
        assert server.connections == 1


@pytest.mark.parametrize("early", [b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", b""])
def test_a_body_that_is_never_taken(early: bytes) -> None:
    leave = threading.Event()

    def talk(conn: socket.socket, server: RawServer, number: int) -> None:
        read_request(conn)
        conn.sendall(OK)
        conn.recv(1000)
        conn.sendall(early)
        leave.wait(20)

    with raw_server(talk) as server:
        ours = consumer(server.url, body="raw")
        kept(ours)
        answer = begun(ours, content=b"x" * (16 << 20), deadline_s=10 if early else 0.3).get(timeout=20)
        leave.set()
        wanted = (Transport.ANSWERED, 413) if early else (Transport.TIMEOUT, 0)
        assert (answer.transport, answer.status) == wanted
        assert not ours._endpoints[0].idle, "half a request was sent on it"


def test_closing_cuts_what_is_under_way() -> None:
    with raw_server(second(b"", close=False)) as server:
        ours = consumer(server.url)
        kept(ours)
        under_way = begun(ours, deadline_s=30)
        ours.close()
        assert under_way.get(timeout=20).transport is Transport.CUT
        assert begun(ours).get(timeout=20).transport is Transport.BUSY


def test_no_other_protocol_is_spoken_whatever_the_topic_asks_for() -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    with raw_server(answering(switch)) as server:
        answer = consumer(server.url, headers=(("Upgrade", "websocket"),)).call(request())
        assert answer.transport is Transport.CUT
        assert "malformed answer" in answer.detail


def test_several_urls_take_turns() -> None:
    with raw_server(answering(OK)) as one, raw_server(answering(OK)) as two:
        ours = consumer(one.url, two.url)
        for _ in range(6):
            assert begun(ours).get(timeout=20).status == 200
        assert (len(one.requests), len(two.requests)) == (3, 3)
        assert (one.connections, two.connections) == (1, 1)
