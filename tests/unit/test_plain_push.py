"""The quick reading of plain pushes: whatever it takes, the parser takes with the same words; what it leaves is left whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepperbus.wire import plain_push, resp
from tests.unit.test_resp import pack

HEAD = plain_push.head_of(b"LPUSH", b"q/x")
#: Values that look like what stands around them.
VALUES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [b"", b"\r\n", HEAD, HEAD + b"1\r\na\r\n", b"1\r\na\r\n" + HEAD, b"x" * 99, b"x" * 100, b"x" * 995]
    ),
)
PUSHES = st.lists(VALUES, min_size=1, max_size=6)


def spoiled(data: bytes, at: int, byte: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes((byte,)) + data[at + 1 :]


def words(data: bytes) -> tuple[list[list[bytes]], bool]:
    """What the parser makes of `data`, and whether it refused."""
    parser = resp.RequestParser(trusted=True)
    parser.receive_data(data)
    found = []
    while commands := parser.commands():
        found += commands
    return found, parser.error is not None


def held_against_the_parser(data: bytes) -> list[bytes]:
    values, rest = plain_push.take(data, HEAD)
    taken = data[: len(data) - len(rest)]
    assert taken + rest == data
    assert words(taken) == ([[b"LPUSH", b"q/x", value] for value in values], False)
    if plain_push.begun(rest, HEAD):
        assert words(rest) == ([], False)
    return values


@given(PUSHES)
def test_all_of_a_chunk_of_whole_pushes(values: list[bytes]) -> None:
    data = b"".join(pack(b"LPUSH", b"q/x", value) for value in values)
    found = held_against_the_parser(data)
    assert found == values[: len(found)]
    if not any(HEAD in value for value in values):
        assert found == values


@given(PUSHES, st.integers(0), st.integers(0, 255))
def test_one_wrong_byte_is_never_taken_for_a_push(values: list[bytes], at: int, byte: int) -> None:
    held_against_the_parser(spoiled(b"".join(pack(b"LPUSH", b"q/x", value) for value in values), at, byte))


@given(PUSHES, st.integers(0))
def test_a_cut_leaves_the_beginning_of_one(values: list[bytes], cut: int) -> None:
    data = b"".join(pack(b"LPUSH", b"q/x", value) for value in values)
    data = data[: cut % (len(data) + 1)]
    held_against_the_parser(data)
    if not any(HEAD in value for value in values):
        assert plain_push.begun(plain_push.take(data, HEAD)[1], HEAD)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    held_against_the_parser(data)
    held_against_the_parser(HEAD + data)


@pytest.mark.parametrize("size", [b"01", b"+1", b" 1", b"1 ", b"-1", b"1_0", b"", b"99999999999999999999"])
def test_only_sizes_as_redis_writes_them(size: bytes) -> None:
    for data in (HEAD + size + b"\r\nx\r\n", HEAD + size + b"\r\nx\r\n" + pack(b"PING")):
        assert plain_push.take(data, HEAD) == ([], data)


def test_large_values_are_left_to_the_parser() -> None:
    most = pack(b"LPUSH", b"q/x", b"x" * plain_push.MAX_VALUE)
    more = pack(b"LPUSH", b"q/x", b"x" * (plain_push.MAX_VALUE + 1))
    assert plain_push.take(most, HEAD) == ([b"x" * plain_push.MAX_VALUE], b"")
    assert plain_push.take(most + more, HEAD)[1] == more
    assert plain_push.begun(most[:-1], HEAD)
    assert not plain_push.begun(more[:-1], HEAD)


@given(st.binary(max_size=12), st.binary(max_size=12), st.binary(max_size=40))
def test_the_head_of_a_command(verb: bytes, key: bytes, rest: bytes) -> None:
    head = plain_push.head_of(verb, key)
    found = plain_push.head_in(head + rest)
    usual = len(verb) == 5 and key and not set(verb) & set(b"\r\n")
    assert found == (head if usual else b"")
    assert plain_push.head_in(rest) == b""
