"""SSRF: a consumer's URL reaches only what the operator lets it, whatever a name says and whenever it changes its mind."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pepperbus.config.load import load
from pepperbus.config.model import Config, Http, Topic
from pepperbus.delivery import http_connection
from pepperbus.delivery.contract import Answer, Delivered, Request, Transport
from pepperbus.delivery.http import HttpConsumer
from pepperbus.errors import ConfigError
from pepperbus.job import Job
from tests.fixtures.bus import NODE, Bus, Buses
from tests.fixtures.http import answering, once, raw_server

OK = b"HTTP/1.1 200 OK\r\nCode: 200\r\nContent-Length: 2\r\n\r\nok"
CLOSE = b"HTTP/1.1 200 OK\r\nCode: 200\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
JOB = Delivered(Job(9223372036854775809, "t", b"x", 1), 1)
ANYWHERE = Http()
QUEUE = """
password = secret
storage = local
ping = off
contract = status
[topics]
    [[mail]]
        run = http
        url = http://@HOST@:@CONSUMER@/jobs
"""


def consumer(url: str, http: Http = ANYWHERE) -> HttpConsumer:
    topic = Topic("orders", "mail", "local", "http", urls=(url,))
    return HttpConsumer(topic, cast(Config, SimpleNamespace(http=http)))


def call(to: HttpConsumer) -> Answer:
    return to.call(Request("orders", "mail", "1", (JOB,), deadline_s=30.0))


class Names:
    """A name server with a mind of its own: each question takes the next answer, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0
        real = socket.getaddrinfo

        def resolve(host: str, port: int, *words: Any, **options: Any) -> Any:
            if host != "rebind.test":
                return real(host, port, *words, **options)
            self.asked += 1
            found = self.answers[min(self.asked, len(self.answers)) - 1]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

        monkeypatch.setattr(http_connection.socket, "getaddrinfo", resolve)


def test_a_forbidden_address_is_not_even_connected_to() -> None:
    with raw_server(answering(OK)) as server:
        answer = call(consumer(server.url, Http(deny=("127.0.0.0/8",))))
        assert not consumer(server.url, Http(deny=("127.0.0.0/8",))).reachable()
        assert (server.connections, server.requests) == (0, [])
    assert answer.transport is Transport.FORBIDDEN
    assert "127.0.0.1 is refused by [http] deny (127.0.0.0/8)" in answer.detail


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "localhost", "[::ffff:127.0.0.1]"])
def test_an_address_in_disguise_is_the_address_it_means(host: str) -> None:
    with raw_server(answering(OK)) as server:
        url = f"http://{host}:{server.port}/"
        assert call(consumer(url)).transport is Transport.ANSWERED
        refused = call(consumer(url, Http(deny=("127.0.0.0/8", "::1"))))
    assert refused.transport is Transport.FORBIDDEN, refused
    assert len(server.requests) == 1


def test_a_name_that_changes_its_address_is_judged_at_every_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, ["127.0.0.1"], ["169.254.169.254"])
    with raw_server(once(CLOSE)) as server:
        to = consumer(f"http://rebind.test:{server.port}/jobs")
        assert call(to).transport is Transport.ANSWERED
        assert names.asked == 1  # judged and connected to is one answer: no second question between the two
        second = call(to)
    assert second.transport is Transport.FORBIDDEN
    assert "rebind.test (169.254.169.254) is link-local" in second.detail


def test_of_several_addresses_only_the_permitted_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, ["169.254.169.254", "127.0.0.1"])
    with raw_server(answering(OK)) as server:
        assert call(consumer(f"http://rebind.test:{server.port}/jobs")).transport is Transport.ANSWERED


def test_a_name_for_our_own_api_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, ["127.0.0.1"])
    with raw_server(answering(OK)) as api:
        answer = call(consumer(f"http://rebind.test:{api.port}/", Http(own=(api.port,))))
        assert (answer.transport, api.connections) == (Transport.FORBIDDEN, 0)


def test_a_redirect_leads_nowhere() -> None:
    with raw_server(answering(OK)) as inside:
        to = f"HTTP/1.1 302 Found\r\nLocation: {inside.url}\r\nContent-Length: 0\r\n\r\n".encode()
        with raw_server(answering(to)) as server:
            answer = call(consumer(server.url))
    assert (answer.status, inside.connections) == (302, 0)


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(answering(OK)) as proxy, raw_server(answering(OK)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert call(consumer(server.url)).transport is Transport.ANSWERED
        assert proxy.connections == 0


@pytest.mark.parametrize(
    ("http", "host", "text"),
    [
        ("", "169.254.169.254", "is link-local"),
        ("[http]\n    allow = service.test", "127.0.0.1", "127.0.0.1 is not in [http] allow"),
        ("[http]\n    allow = 127.0.0.1", "127.0.0.1:19840", "127.0.0.1:19840 is this bus itself"),
        ("", "localhost:12017", "localhost:12017 is this bus itself"),
        ("[http]\n    deny = *.test", "a.test", "a.test is refused by [http] deny (*.test)"),
    ],
)
def test_the_configuration_says_it_first(tmp_path: Path, http: str, host: str, text: str) -> None:
    (tmp_path / "queues.d").mkdir()
    (tmp_path / "node.conf").write_text(
        NODE.replace("@PORT@", "12017").replace("@WEB@", "19840").replace("[storages]", f"{http}\n[storages]")
    )
    (tmp_path / "queues.d" / "orders.conf").write_text(
        QUEUE.replace("@HOST@:@CONSUMER@", host if ":" in host else f"{host}:80")
    )
    with pytest.raises(ConfigError, match=r"orders\.conf:9") as error:
        load(tmp_path / "node.conf", {})
    assert text in str(error.value)


def test_a_running_bus_takes_a_new_policy_and_keeps_the_jobs(buses: Buses) -> None:
    with raw_server(answering(OK)) as server:
        queue = QUEUE.replace("@HOST@", "localhost").replace("@CONSUMER@", str(server.port))
        bus = buses.start(queues={"orders": queue})
        client = bus.client("orders", "secret")
        client.lpush("orders", "first")
        until(bus, lambda: len(server.requests) == 1)
        bus.write_node(NODE.replace("[storages]", "[http]\n    deny = 127.0.0.0/8, ::1\n[storages]"))
        assert bus.ask("reload")["ok"]
        client.lpush("orders", "second")
        until(bus, lambda: "[http] deny" in why(bus))
        until(bus, lambda: client.llen("orders") == 1)  # it may just be on its way back
        assert len(server.requests) == 1
        bus.write_node(NODE)
        assert bus.ask("reload")["ok"]
        until(bus, lambda: len(server.requests) == 2)
        assert client.llen("orders") == 0


def why(bus: Bus) -> str:
    """Why its workers say that the topic's target is closed."""
    answers = bus.ask("tell", role="worker", command={"op": "targets"})["answers"]
    return " ".join(str(one.get("topics", {}).get("orders/mail", {}).get("why", "")) for one in answers.values())


def until(bus: Bus, condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, bus.log
        time.sleep(0.05)
