"""The FastCGI codec: what is sent, and that an answer means the same however it is cut."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepperbus.errors import ProtocolError
from pepperbus.wire import fastcgi
from pepperbus.wire.fastcgi import End, Event, Reader, Reply, Stderr, Stdout


def record(kind: int, content: bytes = b"", padding: int = 0, request_id: int = 1, version: int = 1) -> bytes:
    head = struct.pack(">BBHHBx", version, kind, request_id, len(content), padding)
    return head + content + b"\xff" * padding


def end(app: int = 0, status: int = 0) -> bytes:
    return record(3, struct.pack(">IB", app, status) + b"xyz")


def parse_records(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        _, kind, _, length, padding = struct.unpack(">BBHHBx", data[:8])
        found.append((kind, data[8 : 8 + length]))
        data = data[8 + length + padding :]
    return found


def parse_pairs(data: bytes) -> dict[bytes, bytes]:
    found = {}
    while data:
        lengths = []
        for _ in range(2):
            if data[0] < 128:
                lengths.append(data[0])
                data = data[1:]
            else:
                lengths.append(struct.unpack(">I", data[:4])[0] & 0x7FFFFFFF)
                data = data[4:]
        name, value = data[: lengths[0]], data[lengths[0] : sum(lengths)]
        found[name] = value
        data = data[sum(lengths) :]
    return found


def events(data: bytes, cuts: list[int]) -> list[Event | str]:
    """What a reader makes of the data cut at those places; a ProtocolError becomes its text and ends it."""
    reader = Reader()
    found: list[Event | str] = []
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    try:
        for start, stop in pairwise(places):
            reader.receive_data(data[start:stop])
            while (event := reader.next_event()) is not None:
                found.append(event)
    except ProtocolError as error:
        found.append(str(error))
    return found


def test_a_request_is_begin_params_end_of_params_body_end_of_body() -> None:
    params = fastcgi.pairs([("A", "1"), ("LONG", "x" * 200)])
    sent = fastcgi.opening(params, keep=True) + fastcgi.closing(b"body")
    records = parse_records(sent)
    assert [kind for kind, _ in records] == [1, 4, 4, 5, 5]
    assert records[0][1] == bytes((0, 1, 1, 0, 0, 0, 0, 0))
    assert parse_pairs(records[1][1]) == {b"A": b"1", b"LONG": b"x" * 200}
    assert [content for _, content in records[2:]] == [b"", b"body", b""]


@given(st.integers(0, 200_000))
def test_a_body_of_any_length_arrives_whole_and_ends_with_one_empty_record(length: int) -> None:
    body = bytes(length)
    records = parse_records(fastcgi.closing(body))
    assert records[0] == (4, b"")
    assert b"".join(content for _, content in records[1:]) == body
    assert [content for _, content in records[1:]].count(b"") == 1
    assert records[-1] == (5, b"")


def test_a_nul_and_too_many_params_are_refused() -> None:
    with pytest.raises(ProtocolError, match="'X' holds a NUL"):
        fastcgi.pair("X", "a\0b")
    with pytest.raises(ProtocolError, match="60000 are allowed"):
        fastcgi.opening(b"x" * 60_001, keep=False)


kinds = st.one_of(
    st.builds(record, st.sampled_from([6, 7]), st.binary(max_size=300), st.integers(0, 255)),
    st.builds(end, st.integers(0, 255), st.integers(0, 4)),
    st.builds(record, st.integers(0, 255), st.binary(max_size=20), request_id=st.sampled_from([0, 1, 1, 7])),
    st.builds(record, st.just(6), st.binary(max_size=9), version=st.integers(0, 2)),
    st.binary(max_size=30),
)


@given(st.lists(kinds, max_size=8).map(b"".join), st.lists(st.integers(0, 3000), max_size=40))
def test_any_split_gives_the_same_events_and_only_protocol_errors(data: bytes, cuts: list[int]) -> None:
    assert events(data, cuts) == events(data, []) == events(data, list(range(len(data))))


def test_records_padding_and_bytes_after_the_end() -> None:
    data = record(6, b"x" * 65535, 255) + record(7, b"warn") + record(6) + record(0, b"?", request_id=0) + end(3, 0)
    assert events(data, []) == [Stdout(b"x" * 65535), Stderr(b"warn"), End(3, 0)]
    reader = Reader()
    reader.receive_data(end() + end())
    assert reader.next_event() == End(0, 0)
    assert reader.next_event() is None
    assert not reader.clean


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (record(6, b"x", version=2), "version 2"),
        (record(6, b"x", request_id=9), "request 9"),
        (record(11, bytes(8)), "record type 11"),
        (record(3, b"xx"), "END_REQUEST of 2 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "version 72"),
    ],
)
def test_what_no_responder_sends_is_a_protocol_error(data: bytes, text: str) -> None:
    (found,) = events(data, [])
    assert isinstance(found, str)
    assert text in found


def reply(stdout: bytes) -> tuple[int, dict[str, str], bytes]:
    made = Reply()
    made.take(Stdout(stdout))
    return made.parse()


@pytest.mark.parametrize(
    ("stdout", "expected"),
    [
        (b"Code: 200\r\nA: b\r\n\r\nbody", (200, {"code": "200", "a": "b"}, b"body")),
        (b"Status: 500 Internal Server Error\nX: y\n\nb\n\nc", (500, {"x": "y"}, b"b\n\nc")),
        (b"\r\nbody", (200, {}, b"body")),
        (b"\n", (200, {}, b"")),
        (b"Code: 200\r\ncode: 500\r\n\r\n", (200, {"code": "200, 500"}, b"")),
        (b"X: a: b \xff\r\n\r\n", (200, {"x": "a: b �"}, b"")),
    ],
)
def test_header_blocks(stdout: bytes, expected: tuple[int, dict[str, str], bytes]) -> None:
    assert reply(stdout) == expected


@pytest.mark.parametrize(
    ("stdout", "text"),
    [
        (b"", "no header block"),
        (b"hello", "no header block"),
        (b"hello\n\nworld", "'hello'"),
        (b"Code: 200\r\n", "no header block"),
        (b"Status: many\r\n\r\n", "no HTTP status"),
        (b"Status: \xc2\xb2\xc2\xb2\xc2\xb2\r\n\r\n", "no HTTP status"),
        (b"Status:\r\n\r\n", "no HTTP status"),
        (b"X: " + b"y" * 70_000 + b"\r\n\r\n", "longer than 64 KiB"),
        (b"X: y\r\n" * 20_000 + b"\r\n", "longer than 64 KiB"),
    ],
)
def test_what_is_no_header_block(stdout: bytes, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        reply(stdout)


@given(st.binary(max_size=200))
def test_any_output_is_parsed_or_refused(stdout: bytes) -> None:
    try:
        status, headers, body = reply(stdout)
    except ProtocolError:
        return
    assert 0 <= status <= 999
    assert all(name == name.lower() for name in headers)
    assert stdout.endswith(body)


def test_the_caps_hold() -> None:
    made = Reply()
    made.take(Stdout(b"A: b\r\n\r\n"))
    for _ in range(40):
        made.take(Stdout(b"x" * 65_000))
        made.take(Stderr(b"y" * 65_000))
    assert len(made.stdout) == fastcgi.MOST_HEADER + fastcgi.MOST_BODY
    assert len(made.stderr) == fastcgi.MOST_STDERR
    assert len(made.parse()[2]) == fastcgi.MOST_BODY
    with pytest.raises(ProtocolError, match="longer than 64 MiB"):
        for _ in range(2000):
            made.take(Stdout(b"x" * 65_000))
