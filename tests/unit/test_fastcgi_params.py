"""The params of a request, read back as php-fpm reads them."""

import hashlib

import pytest

from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Delivered, Request
from pepperbus.delivery.fastcgi_params import Params
from pepperbus.errors import ProtocolError
from pepperbus.job import Job
from pepperbus.wire import fastcgi

TOPIC = Topic("orders", "mail", "local", "fastcgi", script="/srv/100%b/work.php", params=(("A_%s", "100%"),))
PARAMS = Params(TOPIC, dedicated=True)
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def read(trace: str, *jobs: Delivered, body: bytes = b"form") -> dict[str, bytes]:
    request = Request("orders", "mail", trace, jobs, deadline_s=60.0, now_ms=1_800_000_000_000)
    return dict(fastcgi.unpacked(PARAMS.of(request, body)))


def test_an_attempt_is_told_under_both_names() -> None:
    params = read("out-1", Delivered(Job(7, "t", b""), 2), Delivered(Job(9, "t", b""), 3))
    assert params["A_%s"] == b"100%"
    assert params["SCRIPT_FILENAME"] == b"/srv/100%b/work.php"
    assert params["CONTENT_LENGTH"] == b"4"
    for prefix in ("PEPPERBUS_", "HTTP_X_PEPPERBUS_"):
        assert params[prefix + "TRACE_ID"] == b"out-1"
        assert params[prefix + "DEADLINE"] == b"1800000060"
        assert params[prefix + "LENGTH"] == b"4"
        assert params[prefix + "SHA256"].decode() == hashlib.sha256(b"form").hexdigest()
        assert params[prefix + "JOB_ID"] == b"7,9"
        assert params[prefix + "ATTEMPT"] == b"3"


def test_the_producers_own_trace_is_handed_on() -> None:
    assert read("out", Delivered(Job(7, PARENT, b""), 1))["HTTP_TRACEPARENT"] == PARENT.encode()
    for pushed_as in ("00-short", "", "13617577267756007424-2130706433-12017"):
        assert "HTTP_TRACEPARENT" not in read("out", Delivered(Job(7, pushed_as, b""), 1))


def test_a_nul_is_refused() -> None:
    with pytest.raises(ProtocolError, match="NUL"):
        read("out\0", Delivered(Job(7, "t", b""), 1))
