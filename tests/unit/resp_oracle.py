"""The plainest possible reader of RESP requests: the whole input at once, no state, no speed. The tests' yardstick."""

from __future__ import annotations

from pepperbus.errors import ProtocolError
from pepperbus.wire.resp import STRANGER_ARGS, STRANGER_BULK, Limits, split_inline


class _More(Exception):
    """The input ends inside a command."""


def read_all(data: bytes, limits: Limits, trusted: bool = True) -> tuple[list[list[bytes]], bool]:
    """Every complete command of `data`, and whether a violation of the protocol ended the reading."""
    commands, at = [], 0
    while at < len(data):
        try:
            command, at = _command(data, at, limits, trusted)
        except _More:
            return commands, False
        except ProtocolError:
            return commands, True
        if command:
            commands.append(command)
    return commands, False


def _until(data: bytes, at: int, end: bytes, limits: Limits) -> int:
    found = data.find(end, at, at + limits.max_inline)
    if found < 0:
        if len(data) - at >= limits.max_inline:
            raise ProtocolError("too long a line")
        raise _More
    return found


def _count(data: bytes, at: int, most: int, limits: Limits) -> tuple[int, int]:
    end = _until(data, at, b"\r", limits)
    if end + 1 >= len(data):
        raise _More
    text = data[at + 1 : end]
    try:
        number = int(text)
    except ValueError:
        raise ProtocolError("no number") from None
    if data[end + 1 : end + 2] != b"\n" or str(number).encode() != text or number > most:
        raise ProtocolError("bad number")
    return number, end + 2


def _command(data: bytes, at: int, limits: Limits, trusted: bool) -> tuple[list[bytes], int]:
    if data[at : at + 1] != b"*":
        end = _until(data, at, b"\n", limits)
        words = split_inline(data[at:end].removesuffix(b"\r"))
        if words and words[0].upper() in (b"POST", b"HOST:"):
            raise ProtocolError("HTTP")
        return words, end + 1
    count, at = _count(data, at, limits.max_args, limits)
    if count > STRANGER_ARGS and not trusted:
        raise ProtocolError("stranger")
    args = []
    for _ in range(max(count, 0)):
        if at >= len(data):
            raise _More
        if data[at : at + 1] != b"$":
            raise ProtocolError("no bulk")
        length, at = _count(data, at, limits.max_bulk, limits)
        if length < 0 or (length > STRANGER_BULK and not trusted):
            raise ProtocolError("bad length")
        if len(data) < at + length + 2:
            raise _More
        if data[at + length : at + length + 2] != b"\r\n":
            raise ProtocolError("no line end")
        args.append(data[at : at + length])
        at += length + 2
    return args, at
