"""One exchange on a kept HTTP connection as callbacks in the hub: what nearly every job is, in half the CPU of a greenlet.

Floor 3. Without TLS, whose sockets need a greenlet to wait in. It connects to nobody: `delivery.http` finds the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from pepperbus.delivery.contract import Answer, Transport
from pepperbus.delivery.deadlines import UnderWay
from pepperbus.delivery.http_answer import Failed, Known, Reader
from pepperbus.delivery.http_connection import Connection


class Exchange:
    """Begun by being made. Ends once, never within the making; `ended` gets it with its answer, its connection free."""

    __slots__ = ("_began", "_ended", "_known", "_more", "_reader", "_rest", "_under_way", "connection")

    def __init__(
        self,
        connection: Connection,
        out: bytes,
        deadline_s: float,
        ended: Callable[[Exchange, Answer], None],
        known: Known,
        under_way: UnderWay,
    ) -> None:
        self.connection = connection
        self._ended: Callable[[Exchange, Answer], None] | None = ended
        self._known = known
        self._under_way = under_way
        self._reader: Reader | None = None  # from the first bytes of an answer that is not known by heart
        self._rest: memoryview | None = None  # what is still to be sent
        self._more: Callable[[], None] | None = None  # ends the sending of it
        self._began = monotonic()
        under_way.add(self, self._began + deadline_s)
        connection.read_for(self._readable)
        self._send(out)

    def too_late(self) -> None:
        """Its deadline has come."""
        self._fail(self.connection.late(self._reader.raw if self._reader else 0))

    def cut(self, reason: str) -> None:
        """End it before."""
        self._fail(Failed(Transport.CUT, f"{self.connection.url.shown}: {reason}"))

    def _send(self, out: bytes) -> None:
        try:
            sent = self.connection.send(out)
        except OSError:  # the peer closed, and may have answered before: reading finds out
            self.connection.reusable = False
            return
        if sent < len(out):  # the rest beside the reading: the answer may come before its end
            self._rest = memoryview(out)[sent:]
            self._more = self.connection.when_writable(self._send_on)

    def _send_on(self) -> None:
        assert self._rest is not None
        try:
            self._rest = self._rest[self.connection.send(self._rest) :]
        except OSError:
            self._stop_sending()  # the rest stays: the connection is not kept
            return
        if not self._rest:
            self._rest = None
            self._stop_sending()

    def _stop_sending(self) -> None:
        more, self._more = self._more, None
        if more is not None:
            more()

    def _readable(self) -> None:
        try:
            data = self.connection.receive()
            answer = None if data is None else self._read(data)
        except Failed as failure:
            self._fail(failure)
        except Exception as error:  # a bug of ours must not leave the job's place taken for ever
            self.cut(repr(error))
        else:
            if answer is not None:
                self._finish(answer)

    def _read(self, data: bytes) -> Answer | None:
        reader = self._reader
        if reader is None:
            if (known := self._known.get(data)) is not None:
                return known
            reader = self._reader = Reader(self.connection.url.shown)
        answer = reader.feed(data)
        if answer is not None:
            self.connection.reusable = self.connection.reusable and reader.clean
            self._known.learn(data, reader, answer)
        return answer

    def _finish(self, answer: Answer) -> None:
        connection = self.connection
        if self._rest is not None:
            connection.reusable = False  # answered before the whole body was taken
        connection.rest(answer)
        self._end(answer)

    def _fail(self, failure: Failed) -> None:
        self.connection.reusable = False
        self._end(Answer(failure.transport, detail=failure.detail))

    def _end(self, answer: Answer) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        self._stop_sending()
        self.connection.read_no_more()
        self._under_way.discard(self)
        answer.total_ms = (monotonic() - self._began) * 1000
        ended(self, answer)
