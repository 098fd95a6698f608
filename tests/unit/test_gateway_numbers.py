"""Numbers as clients of the gateway write them: any bytes are one, or are refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pepperbus.gateway import entries, pops, reads, streams
from pepperbus.job import State

WORDS = st.one_of(st.binary(max_size=30), st.text(max_size=10).map(lambda text: text.encode(errors="replace")))


@given(WORDS)
@example("²".encode())
@example(b"9" * 5000)
@example(b"00")
@example(b"0" * 30 + b"7")
def test_any_bytes_are_a_number_or_none(word: bytes) -> None:
    count = pops._count([b"RPOP", b"orders", word])
    assert count.startswith(b"-ERR") if isinstance(count, bytes) else 1 <= count <= pops.MOST
    seconds = pops._seconds(word)
    assert seconds.startswith(b"-ERR") if isinstance(seconds, bytes) else math.isfinite(seconds) and seconds >= 0
    number = streams.number(word)
    assert number is None or abs(number) < 10**18
    entry = entries.parse(word)
    assert entry is None or entry <= entries.HIGHEST
    entries.parse_range(word, word)


class Line:
    """A storage whose line is long."""

    def peek(self, topic: str, state: State, cursor: str, n: int) -> None:
        raise AssertionError("nothing of it was asked for")


@pytest.mark.parametrize(("first", "last"), [(10**9, 999_999), (5, 4)])
def test_beyond_the_end_of_a_line_nothing_is_read(first: int, last: int) -> None:
    assert reads._slice(Line(), "orders/mail", first, last) == []  # type: ignore[arg-type]
