"""The request parser against its oracle, its limits one by one, and the reply encoders."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pepperbus.wire import resp
from tests.unit.resp_oracle import read_all

SMALL = resp.Limits(max_inline=64, max_bulk=200, max_args=20)


def parse(pieces: list[bytes], limits: resp.Limits = SMALL, trusted: bool = True, most: int = 64):
    parser = resp.RequestParser(limits, trusted=trusted)
    found = []
    for piece in pieces:
        parser.receive_data(piece)
        while commands := parser.commands(most):
            assert len(commands) <= (most if trusted else 1)
            found += commands
    return found, parser


def pack(*args: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(args), b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in args))


_words = st.lists(st.binary(max_size=40), min_size=1, max_size=5)
_pieces = st.one_of(
    _words.map(lambda words: pack(*words)),
    _words.map(lambda words: pack(*words)),
    st.sampled_from(
        [
            b"PING\r\n", b"PING\n", b"\r\n", b"*0\r\n", b"*-5\r\n", b"*1\r\n$4\r\nPINGxx", b"*1\r\n$04\r\nPING\r\n",
            b"$3\r\nabc\r\n", b"*1\r\n*1\r\n$1\r\na\r\n", b"*1\r\n:5\r\n", b"*300000000\r\n", b"POST / HTTP/1.1\r\n",
            b'SET "a b" \'c\'\r\n', b"*1\r\n$-1\r\n", b"*2\r\n$4\r\nECHO\r\n", b"+OK\r\n", b"*21\r\n",
            b"x" * 70, b"*1\r\n$201\r\n",
            b"*+1\r\n", b"*1\rX", b"*\r\n", b"%1\r\n", b"_\r\n",
        ]
    ),
    st.binary(max_size=30),
)  # fmt: skip


@given(st.lists(_pieces, max_size=8).map(b"".join), st.data(), st.booleans())
@settings(max_examples=600, deadline=None)
def test_any_split_of_any_bytes_gives_what_the_oracle_reads(data: bytes, draw: st.DataObject, trusted: bool) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=6)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    found, parser = parse(pieces, trusted=trusted, most=draw.draw(st.integers(1, 5)))
    expected, broken = read_all(data, SMALL, trusted)
    assert found == expected
    assert (parser.error is not None) == broken


@given(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=4), max_size=40))
@example([[b"LPUSH", b"q/x", b"\r\n*300000000\r\n"]])
@settings(max_examples=200, deadline=None)
def test_well_formed_commands_come_out_as_sent(commands: list[list[bytes]]) -> None:
    found, parser = parse([b"".join(pack(*c) for c in commands)], resp.Limits())
    assert found == commands
    assert parser.error is None
    assert not parser.midway


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length: 65536 is the most"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n$-5\r\n", "invalid bulk length"),
        (b"*1\r\n$+4\r\nPING\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length: 8388608 is the most"),
        (b"*1\r\n*1\r\n", "expected '$', got '*'"),
        (b"*1\r\n$4\r\nPINGxx", "expected CRLF after a bulk"),
        (b"x" * 70_000, "too big inline request"),
        (b"*" + b"1" * 70_000, "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * 70_000, "too big bulk count string"),
        (b'SET "a\r\n', "unbalanced quotes in request"),
        (b"POST / HTTP/1.1\r\n", "this is not an HTTP server"),
        (b"Host: x\r\n", "this is not an HTTP server"),
    ],
)
def test_a_violation_is_named_and_final(data: bytes, text: str) -> None:
    found, parser = parse([b"PING\r\n" + data, pack(b"PING")], resp.Limits())
    assert found == [[b"PING"]]
    assert str(parser.error) == text
    assert parser.commands() == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"*11\r\n", "unauthenticated multibulk length"),
        (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", "unauthenticated bulk length"),
    ],
)
def test_strangers_may_announce_little(data: bytes, text: str) -> None:
    _, stranger = parse([data], resp.Limits(), trusted=False)
    assert str(stranger.error) == text
    _, known = parse([data], resp.Limits())
    assert known.error is None


def test_a_login_takes_effect_on_the_bytes_right_behind_it() -> None:
    parser = resp.RequestParser()
    parser.receive_data(pack(b"AUTH", b"q:p") + pack(b"LPUSH", b"q/x", *[b"v"] * 50))
    assert parser.commands() == [[b"AUTH", b"q:p"]]
    parser.trust(True)
    assert len(parser.commands()[0]) == 52


@given(st.binary(max_size=80), st.lists(_words, max_size=3), st.integers(0))
def test_what_stands_behind_a_login_is_read_as_if_it_came_alone(behind: bytes, commands: list, cut: int) -> None:
    behind = b"".join(pack(*words) for words in commands) + behind
    login, at = pack(b"AUTH", b"q:p"), cut % (len(behind) + 1)
    parser = resp.RequestParser()
    parser.receive_data(login + behind[:at])
    found = parser.commands()
    assert found == [[b"AUTH", b"q:p"]]
    parser.trust(True)
    for piece in (b"", behind[at:]):
        parser.receive_data(piece)
        while more := parser.commands():
            found += more
    expected, alone = parse([behind], resp.Limits())
    assert found[1:] == expected
    assert str(parser.error) == str(alone.error)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"  a  b\tc ", [b"a", b"b", b"c"]),
        (rb'"\x41\n\"" ' + rb"'it\'s'", [b'A\n"', b"it's"]),
        (b"", []),
        (b'""', [b""]),
        (b"\xff\xfe", [b"\xff\xfe"]),
    ],
)
def test_inline_words(line: bytes, words: list[bytes]) -> None:
    assert resp.split_inline(line) == words


@pytest.mark.parametrize("line", [b'"a', b"'a", b'"a"b', b"'a'b", b'a"b'])
def test_unbalanced_quotes(line: bytes) -> None:
    with pytest.raises(resp.ProtocolError):
        resp.split_inline(line)


def test_a_trickled_bulk_costs_linear_time() -> None:
    """4 MiB in 1 KiB pieces: a parser that looked at everything again each time would need minutes."""
    body = b"x" * (4 << 20)
    data = pack(b"LPUSH", b"q/x", body)
    began = time.process_time()
    found, _ = parse([data[i : i + 1024] for i in range(0, len(data), 1024)], resp.Limits())
    assert found == [[b"LPUSH", b"q/x", body]]
    assert time.process_time() - began < 3


def test_a_flood_of_small_commands_costs_linear_time() -> None:
    data = pack(b"PING") * 50_000
    began = time.process_time()
    found, _ = parse([data], resp.Limits())
    assert len(found) == 50_000
    assert time.process_time() - began < 3


def test_replies() -> None:
    assert resp.error("ERR a\r\nb") == b"-ERR a  b\r\n"
    assert resp.bulk(b"a\r\n") == b"$3\r\na\r\n\r\n"
    assert resp.null(2) == b"$-1\r\n"
    assert resp.null(3) == b"_\r\n"
    pairs = [(b"a", resp.integer(1))]
    assert resp.mapping(pairs, 2) == b"*2\r\n$1\r\na\r\n:1\r\n"
    assert resp.mapping(pairs, 3) == b"%1\r\n$1\r\na\r\n:1\r\n"
