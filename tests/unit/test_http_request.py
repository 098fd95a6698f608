"""What an HTTP consumer is sent: byte for byte what h11 would have sent, though h11 is asked only once a topic."""

from __future__ import annotations

from typing import Any

import h11
import pytest

from pepperbus.config.model import Topic
from pepperbus.config.secret import Secret
from pepperbus.delivery.contract import Delivered, Request
from pepperbus.delivery.http_request import Requests, Url, rendered
from pepperbus.job import Job

URLS = (
    "http://127.0.0.1:8080/jobs?a=b",
    "https://user:p%40ss@[::1]/",
    "http://a.example/Content-Length: 0",
    "http://Bücher.example/任务",
)
TOPICS: dict[str, dict[str, Any]] = {
    "form": {},
    "raw": {"body": "raw", "contract": "status"},
    "own host": {"host": "shop.internal"},
    "own headers": {"headers": (("X-App", "two  blanks\tand a tab"), ("content-type", "text/x"), ("Accept", ""))},
    "own type of a raw body": {"body": "raw", "headers": (("Content-Type", "a/b"), ("user-agent", "mine"))},
    "signed": {"sign": Secret("s3cret")},
    "upgrade": {"headers": (("Upgrade", "websocket"), ("Expect", "100-continue"))},
}
TRACES = (
    "t-1",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "ab-" + " " * 20 + "x" * 32,
    "ab-" + "\x7f" * 52,
)


def job(trace: str = "t-1", content: bytes = b"hello") -> Delivered:
    return Delivered(Job(2**63 + 1, trace, content, 1_799_999_999_123), 3)


def requests() -> list[Request]:
    calls = [Request("orders", "mail", "out-1", (job(trace),), False, 60.0, 1_800_000_000_000) for trace in TRACES]
    return [
        *calls,
        Request("orders", "mail", "a blank", (job(content=bytes(range(256)) * 300),), False, 0.4, 1),
        Request("orders", "mail", "", (), True, 5.0, 1_800_000_000_000),
    ]


@pytest.mark.parametrize("keys", TOPICS.values(), ids=TOPICS)
def test_the_bytes_are_h11s(keys: dict[str, Any]) -> None:
    ours = Requests(Topic("orders", "mail", "local", "http", urls=URLS, **keys))
    for request in [*requests(), *requests()]:
        for url in map(Url.parse, URLS):
            assert ours.render(ours.pack(request), url) == rendered(*ours.make(request, url))


def test_many_jobs_in_one_request() -> None:
    ours = Requests(Topic("orders", "mail", "local", "http", urls=URLS, chunk=3))
    request = Request("orders", "mail", "out", (job(), job(), job()), False, 60.0, 1_800_000_000_000)
    url = Url.parse(URLS[0])
    assert ours.render(ours.pack(request), url) == rendered(*ours.make(request, url))


@pytest.mark.parametrize("trace", ["a\r\nX: y", "a\nb", "a\0b", " a", "a ", "ä", "\u2028", "a\x85", "\ud800"])
def test_what_h11_refuses_is_refused(trace: str) -> None:
    ours = Requests(Topic("orders", "mail", "local", "http", urls=URLS, body="raw"))
    request = Request("orders", "mail", trace, (job(),), False, 60.0, 1_800_000_000_000)
    with pytest.raises((h11.LocalProtocolError, UnicodeEncodeError)) as theirs:
        ours.make(request, Url.parse(URLS[0]))
    with pytest.raises((h11.LocalProtocolError, UnicodeEncodeError)) as found:
        ours.pack(request)
    assert type(found.value) is type(theirs.value)
