"""The form a consumer gets: literal fields and order, and every byte back out of real parsers."""

from __future__ import annotations

import json
import shutil
import subprocess
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Delivered, Request
from pepperbus.delivery.form import body, encode, residue_s
from pepperbus.job import Job

NOW_MS = 1_800_000_000_000
TOPIC = Topic("orders", "mail", "local", "fastcgi", max_age=3600.0)
NASTY = (
    "a&b=c;d+e%20 f%g&amp;jobs=x",
    '{"name":"张三","ok":true,"list":[1,2]}',
    "\x00\x01\r\n\t\x7f\u2028 é 😀 </script>",
    "%25%2B++&&==;;%%",
    "",
)


def request(*contents: bytes, attempt: int = 1, first_due_ms: int = 0) -> Request:
    jobs = tuple(
        Delivered(Job(9223372036854775809 + i, "trace-1", content, NOW_MS - 60_000), attempt, first_due_ms)
        for i, content in enumerate(contents)
    )
    return Request("orders", "mail", "out-1", jobs, now_ms=NOW_MS)


def test_a_data_call_literally() -> None:
    assert encode(request(b"hello world & more"), TOPIC) == (
        b"type=data&queue=orders&topic=mail&outTraceId=out-1&jobs="
        b'[{"id":"9223372036854775809","inTraceId":"trace-1","content":"hello+world+%26+more","retrying":0,'
        b'"RetryTimes":1,"RetryTime":1800000000,"IsRetry":true,"BeginRetry":false,"RetryResidueTime":3540}]'
        b"&IS_PEPPER_BUS_REQUEST=true"
    )


def test_a_ping_literally() -> None:
    assert encode(Request("orders", "mail", "", ping=True), TOPIC) == b"type=ping&IS_PEPPER_BUS_REQUEST=true"


def test_what_a_second_attempt_says() -> None:
    fields = dict(parse_qsl(encode(request(b"x", attempt=3), TOPIC).decode()))
    (job,) = json.loads(fields["jobs"])
    assert list(job) == [
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
    assert (job["retrying"], job["RetryTimes"], job["BeginRetry"]) == (2, 3, True)


def test_a_topic_that_never_tries_again_says_so() -> None:
    once = Topic("orders", "mail", "local", "fastcgi", attempts=1)
    assert b'"IsRetry":false' in encode(request(b"x"), once)


@pytest.mark.parametrize(
    ("first_due_ms", "left"),
    [(0, 3540), (NOW_MS, 3600), (NOW_MS + 5000, 3600), (NOW_MS - 1_800_500, 1799), (NOW_MS - 7_200_000, 0)],
)
def test_residue_counts_from_when_the_job_was_first_due(first_due_ms: int, left: int) -> None:
    (delivered,) = request(b"x", first_due_ms=first_due_ms).jobs
    assert residue_s(delivered, NOW_MS, TOPIC) == left


def test_bytes_that_are_no_text_go_base64() -> None:
    (job,) = json.loads(dict(parse_qsl(encode(request(b"\xff\x00+="), TOPIC).decode()))["jobs"])
    assert (job["content"], job["encoding"], list(job)[-1]) == ("/wArPQ==", "base64", "encoding")


def test_a_json_body_hardly_grows() -> None:
    content = json.dumps({"名字": "张三" * 200, "n": list(range(500))}, ensure_ascii=False).encode()
    assert len(encode(request(content), TOPIC)) < 1.25 * len(content) + 400


def test_a_raw_body_is_the_job_itself_and_a_ping_still_a_form() -> None:
    raw = Topic("orders", "mail", "local", "http", body="raw")
    assert body(request(b"\xff&="), raw) == (b"\xff&=", "application/octet-stream")
    assert body(Request("orders", "mail", "", ping=True), raw)[1] == "application/x-www-form-urlencoded"


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=60), min_size=1, max_size=3))
def test_pythons_parser_gives_every_byte_back(contents: list[str]) -> None:
    fields = parse_qsl(encode(request(*(c.encode() for c in contents)), TOPIC).decode(), strict_parsing=True)
    assert [name for name, _ in fields] == ["type", "queue", "topic", "outTraceId", "jobs", "IS_PEPPER_BUS_REQUEST"]
    assert [job["content"] for job in json.loads(dict(fields)["jobs"])] == contents


@pytest.mark.skipif(not shutil.which("php"), reason="no php on the PATH: install php-cli")
def test_phps_parser_gives_every_byte_back() -> None:
    contents = [text.encode() for text in NASTY] + [bytes(range(32, 127)), "".join(map(chr, range(128, 2048))).encode()]
    script = (
        "parse_str(stream_get_contents(STDIN), $f); $j = json_decode($f['jobs'], true);"
        "echo json_encode([array_keys($f), array_map(fn($x) => bin2hex($x['content']), $j)]);"
    )
    form = encode(request(*contents), TOPIC)
    out = subprocess.run(["php", "-r", script], input=form, capture_output=True, check=True, timeout=20).stdout
    keys, hexed = json.loads(out)
    assert keys == ["type", "queue", "topic", "outTraceId", "jobs", "IS_PEPPER_BUS_REQUEST"]
    assert [bytes.fromhex(h) for h in hexed] == contents
