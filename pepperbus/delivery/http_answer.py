"""One HTTP answer, read piece by piece: h11's reading with our limits; and what answers say that came before, byte for byte.

Floor 3. No socket and no clock: bytes in, an `Answer` out. `Failed` says how far an exchange came; what that means is not known
here.
"""

from __future__ import annotations

import h11

from pepperbus.delivery.contract import Answer, Transport

KEEP_BODY = 1 << 20
MOST_BODY = 64 << 20
_MOST_HEAD = 64 << 10
_MOST_HEADERS = 128
_MOST_INFORMATIONAL = 10
#: How an answer is read depends on the method of the request and on nothing else of it. It asks for no other protocol, so a
#: 101 is malformed whatever a topic's own headers ask for.
_ASKED = h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")])
#: So many answers are remembered, none longer than this.
_KNOWN, _MOST_KNOWN = 256, 1024

Parsed = tuple[int, dict[str, str], bytes]


class Failed(Exception):
    """The exchange came only as far as `transport` says."""

    def __init__(self, transport: Transport, detail: str) -> None:
        super().__init__(detail)
        self.transport = transport
        self.detail = detail


class Reader:
    """Reads one answer to a POST that was sent whole. `shown`: whose answer, for people."""

    def __init__(self, shown: str) -> None:
        self.raw = 0  # bytes that came
        self._shown = shown
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD)
        self._protocol.send(_ASKED)
        self._protocol.send(h11.EndOfMessage())
        self._head: h11.Response | None = None
        self._body = bytearray()
        self._length = 0
        self._informational = 0

    @property
    def clean(self) -> bool:
        """Whether the answer has ended, and nothing hinders another one on its connection."""
        protocol = self._protocol
        finished = protocol.our_state is h11.DONE and protocol.their_state is h11.DONE
        return finished and protocol.trailing_data == (b"", False)

    def feed(self, data: bytes) -> Answer | None:
        """The answer when it is whole. `data` empty: the peer closed. Raises Failed (CUT)."""
        self.raw += len(data)
        if not self.raw:
            raise Failed(Transport.CUT, f"{self._shown}: closed without an answer")
        protocol = self._protocol
        try:
            protocol.receive_data(data)
            while (event := protocol.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.EndOfMessage):
                    return self._whole()
                self._take(event)
        except h11.RemoteProtocolError as error:
            why = f"malformed answer: {error}" if data else f"the answer ended early ({error})"
            raise Failed(Transport.CUT, f"{self._shown}: {why}") from None
        return None

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Data):
            self._add(event.data)
        elif isinstance(event, h11.Response):
            self._head = event
            self._check_framing(event)
        else:
            self._informational += 1
            if self._informational > _MOST_INFORMATIONAL:
                raise Failed(Transport.CUT, f"{self._shown}: malformed answer: a flood of 1xx answers")

    def _check_framing(self, head: h11.Response) -> None:
        """What h11 lets pass and another reader might read differently."""
        names = [name for name, _ in head.headers]
        if b"content-length" in names and b"transfer-encoding" in names:
            raise Failed(Transport.CUT, f"{self._shown}: malformed answer: Content-Length and Transfer-Encoding")
        if len(names) > _MOST_HEADERS or sum(len(name) + len(value) for name, value in head.headers) > _MOST_HEAD:
            raise Failed(Transport.CUT, f"{self._shown}: malformed answer: too many or too long headers")

    def _add(self, data: bytes) -> None:
        self._length += len(data)
        if self._length > MOST_BODY:
            raise Failed(Transport.CUT, f"{self._shown}: the answer is longer than {MOST_BODY >> 20} MiB")
        room = KEEP_BODY - len(self._body)
        if room > 0:
            self._body += data[:room]

    def _whole(self) -> Answer:
        assert self._head is not None
        headers: dict[str, str] = {}
        for name, value in self._head.headers:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return Answer(Transport.ANSWERED, self._head.status_code, headers, bytes(self._body))


class Known:
    """Small answers that came whole in one piece, ended cleanly and were read by `Reader`: the same bytes say the same again.

    Most consumers answer nearly every job alike, and h11 takes 80 µs for what a look into a table tells.
    """

    def __init__(self) -> None:
        self._answers: dict[bytes, Parsed] = {}

    def get(self, data: bytes) -> Answer | None:
        """A new Answer; its headers are shared with others and only to be read."""
        if len(data) > _MOST_KNOWN or (parsed := self._answers.get(data)) is None:
            return None
        return Answer(Transport.ANSWERED, *parsed)

    def learn(self, data: bytes, reader: Reader, answer: Answer) -> None:
        """`data` was the last of what `reader` read. All are forgotten when they become too many."""
        if reader.raw != len(data) or len(data) > _MOST_KNOWN or not reader.clean:
            return
        if len(self._answers) >= _KNOWN:
            self._answers.clear()
        self._answers[data] = answer.status, dict(answer.headers), answer.body
