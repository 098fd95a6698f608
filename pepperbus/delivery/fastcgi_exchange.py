"""One exchange with a FastCGI server, from the connect to END_REQUEST, as callbacks on the hub.

Until the first byte of the closing flight (the end of the params and the body) is out, php-fpm cannot run anything:
whatever breaks before it is tried again for a while and then reported BUSY. What breaks after it is CUT or TIMEOUT,
because the script may have run. A connection is closed at END_REQUEST: a php-fpm child waits for that for ever.
"""

from __future__ import annotations

import _socket
import errno
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pepperbus.delivery.contract import Answer, Sender, Transport
from pepperbus.delivery.deadlines import UnderWay
from pepperbus.delivery.fastcgi_guard import BUSY_S, Guard
from pepperbus.delivery.fastcgi_pool import MOST_KNOWN, Connection, Pool
from pepperbus.delivery.fastcgi_single import Flights
from pepperbus.errors import ProtocolError
from pepperbus.wire import fastcgi

if TYPE_CHECKING:
    from gevent._types import _IoWatcher, _TimerWatcher

_READ, _WRITE = 1, 2
#: A full server is asked again for BUSY_S; the first and the longest wait in between (seconds).
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.001, 0.05
#: One send takes this much with the kernel's default buffer; a larger body gets a larger buffer.
_DEFAULT_BUFFER = 200_000
#: Most answers are a few hundred bytes; a large buffer costs more than it holds.
_FIRST_READ, _READ = 4096, 65536
_PROTOCOL = {
    fastcgi.CANT_MPX_CONN: (Transport.BUSY, "FCGI_CANT_MPX_CONN"),
    fastcgi.OVERLOADED: (Transport.BUSY, "FCGI_OVERLOADED"),
    fastcgi.UNKNOWN_ROLE: (Transport.FORBIDDEN, "FCGI_UNKNOWN_ROLE: this is no FastCGI responder"),
}


class Exchange:
    """Started once, reports once through `done` unless abandoned. `flights` None: connect and close only.

    With a `sender` it goes on with the request that follows, in its place and on its connection, and so on.
    """

    _step: _TimerWatcher | None = None
    _writer: _IoWatcher | None = None
    _guard: Guard | None = None
    _connection: Connection | None = None
    _hosts: tuple[str, ...] = ()
    _rest: bytes | memoryview = b""
    _reader: fastcgi.Reader | None = None  # from the first bytes of an answer that is not known by heart
    _reply: fastcgi.Reply | None = None
    _sent = _heard = _reconnected = False
    _starting = True
    _wait = _FIRST_WAIT_S
    _began = _connected = 0.0

    def __init__(
        self,
        pool: Pool,
        flights: Flights | None,
        deadline_s: float,
        done: Callable[[Answer], None],
        under_way: UnderWay,
        sender: Sender | None = None,
    ) -> None:
        self.pool = pool
        self._sender = sender
        self._flights = flights
        self._done: Callable[[Answer], None] | None = done
        self._under_way = under_way
        self._deadline_s = deadline_s

    # -- the way to a connection --------------------------------------------------------------------------------

    def start(self) -> None:
        self._began = began = time.monotonic()
        self._under_way.add(self, began + self._deadline_s)
        if self.pool.keepalive and self._flights:
            kept, self._reconnected = self.pool.take()
            if kept is not None:  # it has its child already: nothing to wait for
                self._connection, self._connected = kept, began
                kept.reader = self._readable
                self._write(self._flights.data)
                self._starting = False
                return
        self._connect()
        self._starting = False

    def _connect(self) -> None:
        if self.pool.address.needs_lookup and not self._hosts:
            self.pool.look_up(self._found)
        else:
            self._open_next()

    def _found(self, hosts: list[str], error: str) -> None:
        """The addresses of the configured name."""
        if self._done is None:
            return
        if hosts:
            self._hosts = tuple(hosts)
            self._open_next()
        else:
            self._finish(Answer(Transport.NO_LISTENER, detail=f"{self.pool.address.text}: {error}"))

    def _open_next(self) -> None:
        host, self._hosts = (self._hosts[0], self._hosts[1:]) if self._hosts else ("", ())
        self._open(host)

    def _open(self, host: str) -> None:
        sock, refused = self.pool.address.open(host)
        if sock is None:
            self._refused(refused)
            return
        connection = Connection(sock, self.pool)
        if refused == 0:
            self._use(connection)
            return
        self._connection = connection
        self._writer = self.pool.loop.io(sock.fileno(), _WRITE)
        self._writer.start(self._connect_ended)
        self._after(self.pool.settings.connect_timeout, self._refused, errno.ETIMEDOUT)

    def _connect_ended(self) -> None:
        connection = self._connection
        assert connection is not None
        refused = connection.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if refused:
            self._refused(refused)
            return
        self._stop_step()
        self._stop_writer()
        self._use(connection)

    def _refused(self, refused: int) -> None:
        """A connect failed with this errno: the next address, once more a little later, or the end."""
        self._drop()
        if self._hosts:
            self._open_next()
            return
        address = self.pool.address
        transport = address.judge(refused)
        if transport is Transport.BUSY and refused != errno.ETIMEDOUT:
            self._again(address.explain(refused))
        else:
            self._finish(Answer(transport, detail=address.explain(refused)))

    def _again(self, reason: str) -> None:
        """Nothing can have run: try anew soon, or say BUSY when that went on for long enough."""
        self._drop()
        self.pool.is_full()
        if time.monotonic() - self._began + self._wait > BUSY_S:
            self._finish(Answer(Transport.BUSY, detail=reason))
            return
        self._after(self._wait * random.uniform(0.5, 1.5), self._connect)
        self._wait = min(self._wait * 2, _LONGEST_WAIT_S)

    # -- sending -------------------------------------------------------------------------------------------------

    def _use(self, connection: Connection) -> None:
        self._connection = connection
        self._connected = time.monotonic()
        if self._flights is None:
            self._finish(Answer(Transport.ANSWERED))
        elif self.pool.guarded():
            connection.read_for(self._readable)
            self._guard = Guard(connection, self.pool, self._taken, self._not_taken, self._lost)
            self._guard.send(self._flights.data[: self._flights.cut])
        else:
            connection.read_for(self._readable)
            self._write(self._flights.data)

    def _taken(self) -> None:
        """A child is there and has read the opening flight."""
        connection, self._guard = self._connection, None
        assert connection is not None
        assert self._flights is not None
        connection.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _DEFAULT_BUFFER)
        self._write(self._flights.data[self._flights.cut :])

    def _not_taken(self, reason: str) -> None:
        self._finish(Answer(Transport.BUSY, detail=f"{self.pool.address.text}: {reason}"))

    def _write(self, data: bytes) -> None:
        connection = self._connection
        assert connection is not None
        if len(data) > _DEFAULT_BUFFER:
            connection.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, len(data))
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lost(error.strerror or "")
            return
        self._sent = True
        if sent < len(data):
            self._rest = memoryview(data)[sent:]
            self._writer = self.pool.loop.io(connection.sock.fileno(), _WRITE)
            self._writer.start(self._write_on)

    def _write_on(self) -> None:
        connection = self._connection
        assert connection is not None
        try:
            self._rest = memoryview(self._rest)[connection.sock.send(self._rest) :]
        except BlockingIOError:
            return
        except OSError:
            self._stop_writer()  # `_rest` stays: the connection is not kept. The answer may already lie there to be read
            return
        if not self._rest:
            self._stop_writer()

    # -- reading -------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        connection = self._connection
        assert connection is not None
        try:
            data = connection.sock.recv(_FIRST_READ if self._reader is None else _READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error.strerror or "")
            return
        if not data:
            self._closed(connection)
            return
        if self._reader is None:
            known = self.pool.known.get(data)
            if known is not None and self._sent and self._writer is None and self._step is None and not self._rest:
                self._ended_as_known(connection, known)
                return
            self._reader, self._reply = fastcgi.Reader(), fastcgi.Reply()
        self._heard = True
        try:
            self._take(data)
        except ProtocolError as error:
            self._finish(self._answer(Transport.CUT, str(error)))

    def _ended_as_known(self, connection: Connection, known: Answer) -> None:
        """The answer nearly every job gets. Nothing else hangs on the exchange by now but its deadline."""
        sender = self._sender
        if sender is not None and not self._reconnected:
            if not self.pool.keepalive:
                self._drop()  # first of all: the child waits for it
            following = sender.hand_on(known)
            if following is not None:
                self._go_on(following)
                return
        if not self.pool.keepalive or not connection.reused or self._reconnected:
            if self.pool.keepalive:
                self._keep()
            self._finish(Answer(Transport.ANSWERED, known.status, known.headers, known.body))
            return
        self._connection = None
        self.pool.give(connection)
        self._under_way.discard(self)
        done, self._done = self._done, None
        if done is not None:
            done(known)

    def _go_on(self, sender: Sender) -> None:
        """With the request that follows: the same exchange as if it had just begun."""
        self._sender, self._done = sender, sender.answered
        flights = sender.packed
        if not isinstance(flights, Flights):
            self._cannot_go_on(flights)
            return
        self._flights = flights
        self._sent = False
        self._wait = _FIRST_WAIT_S
        self._began = self._connected = began = time.monotonic()
        self._under_way.add(self, began + self._deadline_s)
        connection = self._connection
        if connection is None:
            self._connect()
        else:
            connection.reused = True
            self._write(flights.data)

    def _cannot_go_on(self, answer: object) -> None:
        """It cannot be sent, says `FastcgiConsumer.pack`."""
        assert isinstance(answer, Answer)
        if self._connection is not None:
            self._keep()
        self._under_way.discard(self)
        done, self._done = self._done, None
        if done is not None:
            self.pool.loop.run_callback(done, answer)

    def _take(self, data: bytes) -> None:
        reader, reply = self._reader, self._reply
        assert reader is not None
        assert reply is not None
        reader.receive_data(data)
        while (event := reader.next_event()) is not None:
            reply.take(event)
        end = reply.end
        if end is None:
            return
        if not self._sent:  # php-fpm answers 200 to a request without params: nothing of ours has run
            answer = self._answer(Transport.BUSY, "answered before the request was sent")
        elif end.protocol_status == fastcgi.COMPLETE:
            answer = self._answer(Transport.ANSWERED, "")
            answer.status, answer.headers, answer.body = parsed = reply.parse()
            if reader.clean and not reply.stderr and reply.read <= len(data) <= MOST_KNOWN:
                self.pool.learn(data, Answer(Transport.ANSWERED, *parsed))
        elif end.protocol_status in _PROTOCOL and not reply.stdout:
            answer = self._answer(*_PROTOCOL[end.protocol_status])
        else:
            answer = self._answer(Transport.CUT, f"END_REQUEST with protocol status {end.protocol_status}")
        if self.pool.keepalive and reader.clean and not self._rest and answer.transport is Transport.ANSWERED:
            self._keep()
        self._finish(answer)

    def _answer(self, transport: Transport, detail: str) -> Answer:
        text = f"{self.pool.address.text}: {detail}" if detail else ""
        return Answer(transport, stderr=bytes(self._reply.stderr) if self._reply else b"", detail=text)

    def _closed(self, connection: Connection) -> None:
        """EOF before END_REQUEST.

        On a kept connection, with nothing answered, it means that php-fpm had ended the child's life there
        (pm.max_requests, a reload) and drained what we sent. A running script leaves the last record of our request
        unread, and the death of its process then shows as a reset. So this request has not run and is sent anew.
        """
        if self._sent and connection.reused and not self._heard and self.pool.keepalive:
            self._replace()
        else:
            self._lost("closed within the answer" if self._heard else "closed without an answer")

    def _replace(self) -> None:
        """A kept connection was closed before our request was taken up."""
        self._drop()
        self._sent = False
        self._rest = b""
        self._reconnected = True
        self._connect()

    # -- ends ----------------------------------------------------------------------------------------------------

    def _lost(self, reason: str) -> None:
        """The connection broke."""
        if self._sent:
            self._finish(self._answer(Transport.CUT, reason))
        elif self._connection is not None and self._connection.reused:
            self._replace()
        else:
            self._again(f"{self.pool.address.text}: {reason}")

    def too_late(self) -> None:
        """Its deadline has come."""
        seconds = time.monotonic() - self._began
        if self._sent:
            self._finish(self._answer(Transport.TIMEOUT, f"no complete answer within {seconds:.3g} s"))
        else:
            self._finish(self._answer(Transport.BUSY, f"could not send the request within {seconds:.3g} s"))

    def cut(self, reason: str) -> None:
        """End it from our side; reported as what is known then."""
        if self._done is not None:
            self._finish(self._answer(Transport.CUT if self._sent else Transport.BUSY, reason))

    def abandon(self) -> None:
        """End it without a report; harmless when it has ended."""
        self._done = None
        self._release()

    def _finish(self, answer: Answer) -> None:
        now = time.monotonic()
        answer.total_ms = (now - self._began) * 1000
        answer.connect_ms = max(self._connected - self._began, 0.0) * 1000
        answer.reconnected = self._reconnected
        done, self._done = self._done, None
        self._release()
        if done is None:
            return
        if self._starting:
            self.pool.loop.run_callback(done, answer)
        else:
            done(answer)

    def _release(self) -> None:
        self._under_way.discard(self)
        self._drop()

    def _keep(self) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        if self._writer is not None:
            self._stop_writer()
        self.pool.give(connection)

    def _drop(self) -> None:
        """Close the connection and stop what hangs on it."""
        if self._step is not None:
            self._stop_step()
        if self._writer is not None:
            self._stop_writer()
        if self._guard is not None:
            self._guard.stop()
            self._guard = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _after(self, seconds: float, what: Callable[..., None], *args: object) -> None:
        self._stop_step()
        self._step = self.pool.loop.timer(seconds)
        self._step.start(what, *args, update=True)

    def _stop_step(self) -> None:
        step, self._step = self._step, None
        if step is not None:
            step.stop()
            step.close()

    def _stop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop()
            writer.close()
