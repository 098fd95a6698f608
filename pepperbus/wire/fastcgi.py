"""FastCGI 1.0, the client's half: requests as bytes, answers as events.

Floor 1: no socket, no clock, no log. `receive_data` takes bytes in any split, `next_event` gives what they mean; the
same bytes give the same events however they were cut. Only `ProtocolError` leaves this module. What php-fpm does
beyond the specification was measured and is said where it matters.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pepperbus.errors import ProtocolError

_BEGIN, _END, _PARAMS, _STDIN, _STDOUT, _STDERR, _UNKNOWN = 1, 3, 4, 5, 6, 7, 11
_REQUEST_ID = 1
_RECORD = struct.Struct(">BBHHBx")
_RESPONDER = {keep: _RECORD.pack(1, _BEGIN, 1, 8, 0) + bytes((0, 1, keep, 0, 0, 0, 0, 0)) for keep in (False, True)}
_SHORT = [bytes((n,)) for n in range(128)]
#: What stands before the params: BEGIN_REQUEST and their record's header.
BEGIN_SIZE = len(_RESPONDER[False]) + _RECORD.size
_END_OF_PARAMS = _RECORD.pack(1, _PARAMS, _REQUEST_ID, 0, 0)
_END_OF_STDIN = _RECORD.pack(1, _STDIN, _REQUEST_ID, 0, 0)
#: Bytes of one record; a multiple of 8, so nothing is ever padded.
MOST_CONTENT = 65_528

#: All params together. php-fpm refuses a pair that is split over two records, so they have to fit into one.
MOST_PARAMS = 60_000

#: What is kept of an answer, and how much of it is read at all.
MOST_HEADER = 64 << 10
MOST_BODY = 1 << 20
MOST_STDERR = 64 << 10
MOST_READ = 64 << 20

#: protocolStatus of END_REQUEST.
COMPLETE, CANT_MPX_CONN, OVERLOADED, UNKNOWN_ROLE = 0, 1, 2, 3


def pair(name: str, value: str | bytes) -> bytes:
    """One name-value pair. Raises ProtocolError for a NUL: php-fpm silently cuts the value there."""
    encoded_name = name.encode()
    encoded = value.encode() if isinstance(value, str) else value
    if b"\0" in encoded or b"\0" in encoded_name:
        raise ProtocolError(f"param {name!r} holds a NUL byte")
    return length(len(encoded_name)) + length(len(encoded)) + encoded_name + encoded


def pairs(items: Iterable[tuple[str, str | bytes]]) -> bytes:
    return b"".join(pair(name, value) for name, value in items)


def unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Name-value pairs, taken apart; what `pairs` packed."""
    at = 0
    while at < len(data):
        sizes = []
        for _ in range(2):
            size, width = data[at], 1
            if size >> 7:
                size, width = int.from_bytes(data[at : at + 4], "big") & 0x7FFFFFFF, 4
            sizes.append(size)
            at += width
        name, value = data[at : at + sizes[0]], data[at + sizes[0] : at + sum(sizes)]
        yield name.decode(), value
        at += sum(sizes)


def length(n: int) -> bytes:
    """The length of a name or value, as it stands in front of a pair."""
    return _SHORT[n] if n < 128 else struct.pack(">I", n | 1 << 31)


def opening(params: bytes, keep: bool) -> bytes:
    """BEGIN_REQUEST and all params, but not their end: a php-fpm that has only this will never run anything.

    Raises ProtocolError when the params do not fit into one record.
    """
    if len(params) > MOST_PARAMS:
        raise ProtocolError(f"the params take {len(params)} bytes, {MOST_PARAMS} are allowed")
    return b"".join((_RESPONDER[keep], _RECORD.pack(1, _PARAMS, _REQUEST_ID, len(params), 0), params))


def closing(body: bytes) -> bytes:
    """The end of the params and the whole of STDIN. From its first byte on the script may run."""
    if len(body) <= MOST_CONTENT:
        if not body:
            return _END_OF_PARAMS + _END_OF_STDIN
        return b"".join((_END_OF_PARAMS, _RECORD.pack(1, _STDIN, _REQUEST_ID, len(body), 0), body, _END_OF_STDIN))
    view = memoryview(body)
    parts: list[bytes | memoryview] = [_END_OF_PARAMS]
    for at in range(0, len(body), MOST_CONTENT):
        piece = view[at : at + MOST_CONTENT]
        parts += (_RECORD.pack(1, _STDIN, _REQUEST_ID, len(piece), 0), piece)
    parts.append(_END_OF_STDIN)
    return b"".join(parts)


def template(params: bytes, keep: bool) -> bytes:
    """A whole request, `opening` and `closing`, to be filled with `%`, for a body that is not empty and fits into one record.

    Its places: two bytes (`%c`) of the params' length, those in `params`, two bytes of the body's length, the body.
    """
    begin, header, stdin = _RESPONDER[keep], bytes((1, _PARAMS, 0, _REQUEST_ID)), bytes((1, _STDIN, 0, _REQUEST_ID))
    return b"".join((begin, header, b"%c%c\0\0", params, _END_OF_PARAMS, stdin, b"%c%c\0\0", b"%b", _END_OF_STDIN))


class Stdout(NamedTuple):
    data: bytes


class Stderr(NamedTuple):
    data: bytes


class End(NamedTuple):
    app_status: int
    protocol_status: int


Event = Stdout | Stderr | End


class Reader:
    """The answer to one request, record by record. Call `next_event` until None after each `receive_data`."""

    __slots__ = ("_at", "_buffer", "_ended")

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self._ended = False

    def receive_data(self, data: bytes) -> None:
        if self._at < len(self._buffer):
            self._buffer = self._buffer[self._at :] + data
        else:
            self._buffer = data
        self._at = 0

    def next_event(self) -> Event | None:
        """The next whole record of this request; None when more bytes are needed, or after End.

        Raises ProtocolError for another version, another request's id, or a type that no responder sends.
        """
        while not self._ended and len(self._buffer) - self._at >= 8:
            version, kind, request_id, length, padding = _RECORD.unpack_from(self._buffer, self._at)
            if version != 1:
                raise ProtocolError(f"FastCGI version {version} in the answer, 1 expected")
            start = self._at + 8
            if start + length + padding > len(self._buffer):
                return None
            self._at = start + length + padding
            event = self._event(kind, request_id, self._buffer[start : start + length])
            if event is not None:
                return event
        return None

    def _event(self, kind: int, request_id: int, content: bytes) -> Event | None:
        if request_id == 0:
            return None  # a management record: nothing we asked for, and the specification lets it come
        if request_id != _REQUEST_ID:
            raise ProtocolError(f"an answer to request {request_id}, {_REQUEST_ID} was sent")
        if kind == _STDOUT:
            return Stdout(content) if content else None
        if kind == _STDERR:
            return Stderr(content) if content else None
        if kind != _END:
            raise ProtocolError(f"record type {kind} in the answer")
        if len(content) < 5:
            raise ProtocolError(f"END_REQUEST of {len(content)} bytes, 8 expected")
        self._ended = True
        return End(int.from_bytes(content[:4]), content[4])  # php-fpm leaves rubbish in the three bytes after

    @property
    def clean(self) -> bool:
        """Whether the answer ended and nothing came after it: only then another request may follow."""
        return self._ended and self._at == len(self._buffer)


@dataclass(slots=True)
class Reply:
    """What a script answered, gathered from the events of one request and held within the caps above."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    read: int = 0
    end: End | None = None

    def take(self, event: Event) -> None:
        """Add one event. Raises ProtocolError when the answer is beyond all bounds."""
        if isinstance(event, End):
            self.end = event
            return
        self.read += len(event.data)
        if self.read > MOST_READ:
            raise ProtocolError(f"the answer is longer than {MOST_READ >> 20} MiB")
        if isinstance(event, Stdout):
            room = MOST_HEADER + MOST_BODY - len(self.stdout)
            self.stdout += event.data[:room]
        else:
            self.stderr += event.data[: MOST_STDERR - len(self.stderr)]

    def parse(self) -> tuple[int, dict[str, str], bytes]:
        """(status, headers with lower-case names, body). Status is 200 where no `Status:` says otherwise (CGI/1.1).

        A header that comes twice is joined with ", ". Raises ProtocolError when there is no header block: whoever
        answered was no CGI responder, or died in the middle.
        """
        head, body = split_header(bytes(self.stdout))
        headers = parse_header(head)
        status = headers.pop("status", "200").split(None, 1)
        if not status or len(status[0]) != 3 or not status[0].isascii() or not status[0].isdigit():
            raise ProtocolError(f"Status {' '.join(status)[:40]!r} in the answer is no HTTP status")
        return int(status[0]), headers, body[:MOST_BODY]


def split_header(data: bytes) -> tuple[bytes, bytes]:
    """Header block and body, parted by the first empty line (CRLF or LF). Raises ProtocolError when there is none."""
    at = 0
    while at <= MOST_HEADER:
        end = data.find(b"\n", at)
        if end < 0:
            break
        if end == at or data[at:end] == b"\r":
            return data[:at], data[end + 1 :]
        at = end + 1
    else:
        raise ProtocolError(f"the answer's header is longer than {MOST_HEADER >> 10} KiB")
    if len(data) > MOST_HEADER:
        raise ProtocolError(f"the answer's header is longer than {MOST_HEADER >> 10} KiB")
    raise ProtocolError("the answer has no header block")


def parse_header(head: bytes) -> dict[str, str]:
    """The lines of a header block. Raises ProtocolError for a line without a name."""
    headers: dict[str, str] = {}
    for line in head.decode(errors="replace").split("\n"):
        name, colon, value = line.partition(":")
        if not colon:
            if line.strip():
                raise ProtocolError(f"{line.strip()[:60]!r} in the answer's header is no header line")
            continue
        key = name.strip().lower()
        text = value.strip()
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
