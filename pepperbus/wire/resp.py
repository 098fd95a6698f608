"""RESP on the server's side: bytes to commands under limits, replies to bytes. No socket, no clock.

Floor 1. Strict where it matters: what is accepted is either an inline line or an array of bulk strings with every
length and line end checked, and every limit is applied to the announced size, before the bytes arrive. Protocol
rules and the words of the errors follow Redis 7 (its RESP specification and its answers on the wire).

Two ways lead through the parser. The quick one hands a chunk to hiredis and believes the result only as far as
packing it again gives the very bytes that came in; hiredis itself checks neither limits nor line ends, so it never
sees an announced count that could cost memory. Everything else (split commands, inline, errors, clients that have not
logged in) takes the strict one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import hiredis

from pepperbus.errors import ProtocolError

Command = list[bytes]

#: What a client may announce before it has logged in (Redis: CVE-2021-32675).
STRANGER_ARGS = 10
STRANGER_BULK = 16 << 10

#: Bytes of all words of one command together: as much as may wait for a storage, or one client could fill the memory.
MAX_COMMAND = 64 << 20

#: Chunks up to this size take the quick way.
MAX_CHUNK = 64 << 10

_pack: Any = hiredis.pack_command
#: An array count of five digits or more anywhere: not for hiredis, which allocates what it is told.
_LARGE_COUNT = re.compile(rb"\*[0-9+-]{5}")
_CRLF = b"\r\n"
_CROSS_PROTOCOL = (b"POST", b"HOST:")


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest inline line, bulk string (bytes) and argument count of one command."""

    max_inline: int = 64 << 10
    max_bulk: int = 8 << 20
    max_args: int = 65_536


class RequestParser:
    """Bytes of one client in, commands out, in order.

    `receive_data` only keeps bytes; `commands` parses. After a violation `error` is set, nothing more comes out and
    further bytes are thrown away: the connection must be closed once what came before is answered. While `trusted`
    is False one command is parsed at a time, so that a login takes effect on the bytes right behind it.
    """

    def __init__(self, limits: Limits = Limits(), *, trusted: bool = False) -> None:
        self.limits = limits
        self.trusted = trusted
        self.error: ProtocolError | None = None
        self._buffer = bytearray()
        self._at = 0  # where the next unread byte of the buffer is
        self._args: Command | None = None  # the array being read
        self._missing = 0  # elements it still lacks
        self._announced = 0  # bytes of its elements so far
        self._length = -1  # announced size of the element being read, -1 = its header is still to come
        self._searched = 0  # up to here no line end was found
        self._ready: deque[Command] = deque()
        self._reader = hiredis.Reader()
        #: Whether a chunk could hold something over a limit that `_LARGE_COUNT` lets pass.
        self._narrow = limits.max_args < 9999 or limits.max_bulk < MAX_CHUNK

    def trust(self, trusted: bool) -> None:
        """The client has logged in, or out again. What it sent behind its login may take the quick way."""
        fresh = trusted and not self.trusted
        self.trusted = trusted
        if fresh and self._buffer and self._args is None:
            data = bytes(memoryview(self._buffer)[self._at :])
            self._buffer, self._at, self._searched = bytearray(), 0, 0
            self.receive_data(data)

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the wire; at most MAX_CHUNK at once when speed matters."""
        if self.error is not None:
            return
        if self.trusted and not self._buffer and len(data) <= MAX_CHUNK and data[:1] == b"*":
            data = self._quick(data)
        self._buffer += data

    @property
    def pending(self) -> int:
        """Bytes kept that are not yet part of a command given out."""
        return len(self._buffer) - self._at

    @property
    def ready(self) -> bool:
        """Whether there are commands that were read and not given out."""
        return bool(self._ready)

    @property
    def midway(self) -> bool:
        """Whether a command has begun and its rest has not come. Meaningful once `commands` returned nothing."""
        return self._args is not None or len(self._buffer) > self._at

    def commands(self, most: int = 64) -> list[Command]:
        """The next commands, up to `most`; empty when more bytes are needed or `error` is set."""
        ready = self._ready
        if not ready:
            if self.error is None and self._buffer:
                self._parse(most if self.trusted else 1)
            if not ready:
                return []
        if len(ready) <= most:
            taken = list(ready)
            ready.clear()
            return taken
        return [ready.popleft() for _ in range(most)]

    def _quick(self, data: bytes) -> bytes:
        """Take the well-formed commands at the start of `data`; what remains is for the strict way."""
        if _LARGE_COUNT.search(data):
            return data
        reader = self._reader
        found: list[Command] = []
        try:
            reader.feed(data)
            while (command := reader.gets()) is not False:
                found.append(command)
            packed = b"".join([_pack(tuple(command)) for command in found])
        except (hiredis.HiredisError, TypeError, IndexError):
            packed = b""
        if packed == data and all(found) and not (self._narrow and self._too_much(found)):
            self._ready.extend(found)
            return b""
        self._reader = hiredis.Reader()
        if packed and data.startswith(packed) and all(found) and not (self._narrow and self._too_much(found)):
            self._ready.extend(found)
            return data[len(packed) :]
        return data

    def _too_much(self, found: list[Command]) -> bool:
        limits = self.limits
        return any(len(c) > limits.max_args or any(len(arg) > limits.max_bulk for arg in c) for c in found)

    def _parse(self, most: int) -> None:
        try:
            while len(self._ready) < most and (command := self._next()) is not None:
                if command:
                    self._ready.append(command)
        except ProtocolError as error:
            self.error = error
            self._buffer.clear()
            self._at = 0
            return
        if self._at > 1 << 16 or self._at == len(self._buffer):
            del self._buffer[: self._at]
            self._searched = max(self._searched - self._at, 0)
            self._at = 0

    def _next(self) -> Command | None:
        """One command; [] for one without words; None when bytes are missing. Resumes where it stopped."""
        if self._args is None:
            if self._at >= len(self._buffer):
                return None
            if self._buffer[self._at] != 0x2A:  # *
                return self._inline()
            line = self._line("too big mbulk count string", "invalid multibulk length")
            if line is None:
                return None
            count = self._number(line, self.limits.max_args, "invalid multibulk length")
            if count <= 0:
                return []
            if not self.trusted and count > STRANGER_ARGS:
                raise ProtocolError("unauthenticated multibulk length")
            self._args, self._missing, self._announced = [], count, 0
        while self._missing:
            if not self._element(self._args):
                return None
        command, self._args = self._args, None
        return command

    def _element(self, args: Command) -> bool:
        buffer = self._buffer
        if self._length < 0:
            if self._at < len(buffer) and buffer[self._at] != 0x24:  # $
                raise ProtocolError(f"expected '$', got '{_printable(buffer[self._at])}'")
            line = self._line("too big bulk count string", "invalid bulk length")
            if line is None:
                return False
            length = self._number(line, self.limits.max_bulk, "invalid bulk length")
            if length < 0:
                raise ProtocolError("invalid bulk length")
            if not self.trusted and length > STRANGER_BULK:
                raise ProtocolError("unauthenticated bulk length")
            self._announced += length
            if self._announced > MAX_COMMAND:
                raise ProtocolError(f"too big command: {MAX_COMMAND} bytes are the most")
            self._length = length
        end = self._at + self._length
        if len(buffer) < end + 2:
            return False
        if buffer[end] != 0x0D or buffer[end + 1] != 0x0A:
            raise ProtocolError("expected CRLF after a bulk")
        args.append(bytes(memoryview(buffer)[self._at : end]))
        self._at, self._length = end + 2, -1
        self._missing -= 1
        return True

    def _line(self, too_big: str, bad: str) -> bytes | None:
        """The count line at the read position, without its first byte and its CRLF."""
        buffer, start = self._buffer, self._at
        end = buffer.find(b"\r", max(self._searched, start), start + self.limits.max_inline)
        if end < 0:
            self._searched = len(buffer)
            if len(buffer) - start >= self.limits.max_inline:
                raise ProtocolError(too_big)
            return None
        if end + 1 >= len(buffer):
            return None
        if buffer[end + 1] != 0x0A:
            raise ProtocolError(bad)
        self._at = self._searched = end + 2
        return bytes(buffer[start + 1 : end])

    def _number(self, line: bytes, most: int, bad: str) -> int:
        """As Redis reads one: no plus sign, no leading zero, no blanks."""
        digits = line[1:] if line[:1] == b"-" else line
        if not digits.isdigit() or len(digits) > 18 or (digits[:1] == b"0" and line != b"0"):
            raise ProtocolError(bad)
        number = int(line)
        if number > most:
            raise ProtocolError(f"{bad}: {most} is the most")
        return number

    def _inline(self) -> Command | None:
        buffer, start = self._buffer, self._at
        end = buffer.find(b"\n", max(self._searched, start), start + self.limits.max_inline)
        if end < 0:
            self._searched = len(buffer)
            if len(buffer) - start >= self.limits.max_inline:
                raise ProtocolError("too big inline request")
            return None
        line = bytes(buffer[start:end])
        self._at = self._searched = end + 1
        command = split_inline(line[:-1] if line.endswith(b"\r") else line)
        if command and command[0].upper() in _CROSS_PROTOCOL:
            raise ProtocolError("this is not an HTTP server")
        return command


def _printable(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F else "?"


_WORD = re.compile(
    rb"""[ \t\r\v\f\0]*(?:
    "(?P<double>(?:[^"\\]|\\.)*)"(?=[ \t\r\v\f\0]|\Z)
    |'(?P<single>(?:[^'\\]|\\.)*)'(?=[ \t\r\v\f\0]|\Z)
    |(?P<bare>[^ \t\r\v\f\0"'][^ \t\r\v\f\0"']*)
    |(?P<end>\Z))""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_inline(line: bytes) -> Command:
    """The words of an inline command; quotes as redis-cli writes them. Raises ProtocolError for unbalanced ones."""
    words: Command = []
    at = 0
    while (match := _WORD.match(line, at)) is not None:
        at = match.end()
        if match["end"] is not None:
            return words
        if (text := match["double"]) is not None:
            words.append(_ESCAPE.sub(_unescape, text))
        elif (text := match["single"]) is not None:
            words.append(text.replace(b"\\'", b"'"))
        else:
            words.append(match["bare"])
    raise ProtocolError("unbalanced quotes in request")


def _unescape(match: re.Match[bytes]) -> bytes:
    what = match[1]
    return bytes((int(what[1:], 16),)) if len(what) == 3 else _LETTERS.get(what, what)


OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
QUEUED = b"+QUEUED\r\n"


def error(text: str) -> bytes:
    """An error reply; `text` begins with its code (`ERR …`). Line ends in it would break the protocol: spaces."""
    return b"-%b\r\n" % text.encode().replace(b"\r", b" ").replace(b"\n", b" ")


def simple(text: str) -> bytes:
    return b"+%b\r\n" % text.encode()


def integer(number: int) -> bytes:
    return b":%d\r\n" % number


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def null(protocol: int) -> bytes:
    """Nothing: `_` in RESP3, the nil bulk in RESP2."""
    return b"_\r\n" if protocol == 3 else b"$-1\r\n"


def array(replies: Sequence[bytes]) -> bytes:
    """An array of replies that are already encoded."""
    return b"*%d\r\n%b" % (len(replies), b"".join(replies))


def mapping(pairs: Iterable[tuple[bytes, bytes]], protocol: int) -> bytes:
    """A map (RESP3) or the flat array RESP2 has instead; keys are plain, values already encoded."""
    flat = [(bulk(key), value) for key, value in pairs]
    body = b"".join(key + value for key, value in flat)
    return b"%b%d\r\n%b" % (b"%" if protocol == 3 else b"*", len(flat) * (1 if protocol == 3 else 2), body)
