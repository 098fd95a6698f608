"""Every parser of bytes from outside under bytes that are nearly right, and under every vector that once broke one.

PEPPERBUS_FUZZ_EXAMPLES=100000 looks longer; `scripts/fuzz TARGET` looks with atheris, guided by coverage.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pepperbus.wire import fastcgi, resp
from tests.fuzz import targets
from tests.fuzz.grammar import SHAPES, pack

VECTORS = Path(__file__).parents[1] / "vectors"
EXAMPLES = int(os.environ.get("PEPPERBUS_FUZZ_EXAMPLES", "150"))


@pytest.mark.timeout(0 if EXAMPLES > 1000 else 120)
@pytest.mark.parametrize("name", targets.TARGETS)
def test_any_bytes(name: str) -> None:
    target = targets.TARGETS[name]

    @given(st.one_of(SHAPES[name], SHAPES[name], st.binary(max_size=200)))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def run(data: bytes) -> None:
        target(data)

    run()


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_broke_a_parser(path: Path) -> None:
    targets.TARGETS[path.parent.name](path.read_bytes())


def _seconds(work: Callable[[bytes], object], data: bytes) -> float:
    """The best of three: other processes make time longer, never shorter."""
    took = []
    for _ in range(3):
        began = time.process_time()
        work(data)
        took.append(time.process_time() - began)
    return min(took)


def _resp_by_bytes(data: bytes) -> None:
    parser = resp.RequestParser(trusted=True)
    for i in range(len(data)):
        parser.receive_data(data[i : i + 1])
        parser.commands()
    assert parser.error is None


def _resp_by_reads(data: bytes) -> None:
    parser = resp.RequestParser(trusted=True)
    for at in range(0, len(data), 1000):
        parser.receive_data(data[at : at + 1000])
        while parser.commands():
            pass
    assert parser.error is None


def _fastcgi_by_bytes(data: bytes) -> None:
    reader = fastcgi.Reader()
    for i in range(len(data)):
        reader.receive_data(data[i : i + 1])
        while reader.next_event() is not None:
            pass


def _config(data: bytes) -> None:
    targets.queue_file(data)


def _value(data: bytes) -> None:
    targets.queue_file(b"x = " + data)


#: (name, what is done, a piece, how often it is repeated at first)
COSTS = [
    ("commands, byte by byte", _resp_by_bytes, pack([b"PING"]), 3000),
    ("one large bulk in small reads", _resp_by_reads, None, 1 << 20),
    ("inline words", _resp_by_reads, b"PING " * 12 + b"\r\n", 2000),
    ("inline quotes", _resp_by_reads, b'"\\x41\\n" ' * 100 + b"\r\n", 200),
    ("records, byte by byte", _fastcgi_by_bytes, fastcgi._RECORD.pack(1, 6, 1, 8, 0) + b"x" * 8, 3000),
    ("header lines", targets.cgi_header, b"Name: value\r\n", 1000),
    ("one header again and again", targets.cgi_header, b"A:b\r\n", 2500),
    ("configuration lines", _config, b"# a line\nx = y\n", 300),
    ("open brackets in a configuration", _config, b"[", 5000),
    ("blanks in a configuration", _config, b" ", 20_000),
    ("blanks after a bracket", _config, b"[ ", 5000),
    ("quotes in a value", _value, b"'", 5000),
    ("quoted words in a value", _value, b"'a', ", 3000),
    ("commas in a value", _value, b",", 10_000),
    ("blanks in a value", _value, b" ", 10_000),
    ("digits as a duration", targets.option_values, b"1", 2000),
]


@pytest.mark.parametrize(("work", "piece", "times"), [row[1:] for row in COSTS], ids=[row[0] for row in COSTS])
def test_time_grows_with_the_bytes_and_no_faster(
    work: Callable[[bytes], object], piece: bytes | None, times: int
) -> None:
    def data(n: int) -> bytes:
        return pack([b"x" * n]) if piece is None else piece * n

    for _ in range(3):  # what grows with the square is slow every time, a machine that is used by others is not
        small, large = _seconds(work, data(times)), _seconds(work, data(times * 4))
        if large < 0.02 or large < small * 4 * 2.5:
            return
    pytest.fail(f"{small * 1e3:.1f} ms for one, {large * 1e3:.1f} ms for four times as much")
