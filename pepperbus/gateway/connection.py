"""One client's socket: bytes in, commands through its session, replies out in order. Callbacks in the hub, no greenlet.

Knows sockets and the hub; of commands only the kinds of `Answer`. Promises: replies leave in the order the commands
came, whatever their pushes wait for; nobody gets more than a turn of 64 commands before others; what is read but not
answered stays bounded, by no longer reading.
"""

from __future__ import annotations

import socket
from _socket import socket as PlainSocket  # gevent's own would switch greenlets, and there is none here
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import gevent

from pepperbus.gateway.commands import execute
from pepperbus.gateway.commit import Submission
from pepperbus.gateway.session import Answer, Front, Goodbye, Later, Session, Wait
from pepperbus.wire import resp

if TYPE_CHECKING:
    from pepperbus.gateway.tls import TlsFilter

READ, WRITE = 1, 2
TURN = 64  # commands of one client before others get theirs
CHUNK = resp.MAX_CHUNK
UNANSWERED = 1 << 20  # bytes of pushes without answer, or of replies not taken, above which reading stops
FIRST_COMMAND = 10.0  # seconds for the first command (and the TLS handshake before it)
STRANGER_IDLE = 60.0  # seconds a client without login may be idle
PARTIAL = 60.0  # seconds for the rest of a begun command, and for taking replies
LINGER = 1.0  # seconds to let a client read its last reply before the socket goes
STRANGER_UNREAD = 1024  # bytes a client without login may leave unread (CVE-2025-21605)


class House(Protocol):
    """What a connection needs of the server it belongs to."""

    front: Front
    max_unread: int

    def leave(self, connection: Connection) -> None: ...
    def deadline(self, connection: Connection, seconds: float | None) -> None: ...


class _Slot:
    """A place in the line of replies for one that comes later. `later` is started when the slot is first in line."""

    __slots__ = ("later", "reply")

    def __init__(self, later: Later | None = None) -> None:
        self.reply: bytes | None = None
        self.later = later


class Connection:
    """One client. Created by the server with an accepted, non-blocking socket."""

    __slots__ = (
        "_again",
        "_closing",
        "_eof",
        "_held",
        "_house",
        "_loop",
        "_out",
        "_partial",
        "_paused",
        "_reader",
        "_replies",
        "_sock",
        "_tls",
        "_todo",
        "_unanswered",
        "_writer",
        "closed",
        "parser",
        "session",
    )

    def __init__(
        self,
        house: House,
        sock: PlainSocket,
        client: str,
        local: bool,
        trace_tail: bytes,
        limits: resp.Limits,
        tls: TlsFilter | None = None,
    ) -> None:
        self._house = house
        self._sock = sock
        self._tls = tls
        self.session = Session(house.front, self, client, local, trace_tail)
        self.parser = resp.RequestParser(limits, trusted=self.session.trusted)
        self.closed = False
        self._todo: deque[resp.Command] = deque()  # parsed, not carried out
        self._replies: deque[bytes | Submission | _Slot] = deque()  # in order; empty when all are sent
        self._unanswered = 0  # bytes of the submissions in `_replies`
        self._out = bytearray()  # what the kernel did not take
        self._held = False  # a command is under way that later ones must wait for
        self._eof = False  # the client has closed its half
        self._closing = False  # no further command is carried out; closes when all replies are out
        self._paused = False
        self._partial = False  # a command has begun and its deadline runs
        self._loop = gevent.get_hub().loop
        self._reader = self._loop.io(sock.fileno(), READ)
        self._writer: Any = None
        self._again: Any = None
        self._reader.start(self._readable)
        house.deadline(self, FIRST_COMMAND)

    # -- in --------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not data:
            self._ended()
            return
        if self._closing:
            return  # lingering: what comes now is not for us
        if self._tls is not None:
            data = self._decrypt(data)
            if not data:
                return
        self.parser.receive_data(data)
        self._work()

    def _decrypt(self, data: bytes) -> bytes:
        assert self._tls is not None
        try:
            plain = self._tls.receive(data)
        except OSError as error:
            self._house.front.log.info("tls-failed", str(error), client=self.session.client.decode())
            self.close()
            return b""
        if answer := self._tls.outgoing():
            self._send_raw(answer)
        if self._tls.ended:
            self._ended()
        return plain

    def _ended(self) -> None:
        """The client sends no more. What it sent before is still answered."""
        if self._closing or not (self._replies or self._todo or self._held or self._out):
            self.close()
            return
        self._reader.stop()
        self._paused = self._eof = True
        self._after_turn(TURN)

    def _work(self) -> None:
        """Carry out what has been parsed, for one turn."""
        if self._held or self._closing or self.closed:
            return
        session, parser, todo = self.session, self.parser, self._todo
        session.arrived = self._house.front.turn
        out: list[bytes] = []
        left = TURN
        while left > 0:
            commands = todo or parser.commands(left)
            if not commands:
                break
            if commands is not todo:
                todo.extend(commands)
            while todo and not self._held and not self._closing:
                left -= 1
                self._carry_out(todo.popleft(), out)
            parser.trusted = session.trusted
            if self._held or self._closing:
                break
        if parser.error is not None and not todo and not self._closing and not self._held:
            self._goodbye(resp.error(f"ERR Protocol error: {parser.error}"), out)
        if out:
            self._send(out[0] if len(out) == 1 else b"".join(out))
        self._after_turn(left)

    def _carry_out(self, args: resp.Command, out: list[bytes]) -> None:
        try:
            answer: Answer = execute(self.session, args)
        except Exception as error:  # a bug of ours must cost this client one error, not everybody the process
            self._house.front.log.error("command-failed", repr(error), command=args[0][:64].decode(errors="replace"))
            answer = resp.error("ERR internal error")
        if type(answer) is bytes:
            if self._replies:
                self._replies.append(answer)
            else:
                out.append(answer)
        elif type(answer) is Submission:
            self._replies.append(answer)
            self._unanswered += answer.size
        else:
            self._special(answer, out)

    def _special(self, answer: Answer, out: list[bytes]) -> None:
        if isinstance(answer, Goodbye):
            self._goodbye(answer.reply, out)
            return
        self._held = True
        if isinstance(answer, Wait):
            slot = _Slot()
            timer = self._loop.timer(answer.seconds)
            timer.start(self._waited, timer, slot, answer.reply)
        else:
            assert isinstance(answer, Later)
            slot = _Slot(answer)
            if not self._replies:
                self._start(slot)
        self._replies.append(slot)

    def _waited(self, timer: Any, slot: _Slot, reply: bytes) -> None:
        timer.stop()
        timer.close()
        slot.reply = reply
        self._held = False
        self.answers_ready()
        self._work()

    def _start(self, slot: _Slot) -> None:
        later, slot.later = slot.later, None
        if later is not None:
            gevent.spawn(self._later, later, slot)

    def _later(self, later: Later, slot: _Slot) -> None:
        """A greenlet: ask the storage, answer, let go of the commands behind."""
        try:
            slot.reply = later.run()
        except Exception as error:
            self._house.front.log.error("command-failed", repr(error))
            slot.reply = resp.error("ERR internal error")
        self._held = False
        self.parser.trusted = self.session.trusted  # it may have been a login
        self.answers_ready()
        if later.after is not None:
            later.after(not self.closed)
        self._work()

    def _goodbye(self, reply: bytes, out: list[bytes]) -> None:
        self._closing = True
        self._todo.clear()
        if self._replies:
            self._replies.append(reply)
        else:
            out.append(reply)

    def _after_turn(self, left: int) -> None:
        """Arrange what happens next: another turn, a pause in reading, a deadline, the end."""
        if self.closed:
            return
        if (
            0 < left < TURN
            and self._unanswered <= UNANSWERED
            and not (self._held or self._eof or self._closing or self._paused or self._out or self._partial)
            and self.parser.trusted
            and not self.parser.midway
        ):  # all that was read is done: what most turns come to
            self._house.deadline(self, None)
            return
        more = left <= 0 and not self._held
        if self._eof and not more and not self._held:
            self._closing = True
        if self._closing:
            self._finish()
            return
        if more:
            if self._again is None:
                self._again = self._loop.timer(0.0)
            self._again.start(self._work)
        self._regulate(more)
        if self.parser.midway:
            if left < TURN or (not self._partial and self.session.trusted):
                self._house.deadline(self, PARTIAL)  # once for each command: a trickle does not renew it
            self._partial = True
            return
        self._partial = False
        if not self.session.trusted:
            self._house.deadline(self, STRANGER_IDLE)
        elif not self._out:
            self._house.deadline(self, None)

    def _regulate(self, more: bool = False) -> None:
        """Read only while what is kept for this client is little."""
        pause = more or self._held or self._unanswered > UNANSWERED or len(self._out) > UNANSWERED
        if pause != self._paused and not self._eof:
            self._paused = pause
            if pause:
                self._reader.stop()
            else:
                self._reader.start(self._readable)

    # -- out -------------------------------------------------------------------------------------------------

    def answers_ready(self) -> None:
        """Some submission or slot has its reply: send all that are next in line."""
        replies = self._replies
        out: list[bytes] = []
        while replies:
            head = replies[0]
            if isinstance(head, bytes):
                out.append(head)
            else:
                reply = head.reply
                if reply is None:
                    if type(head) is _Slot:
                        self._start(head)
                    break
                out.append(reply)
                if type(head) is Submission:
                    self._unanswered -= head.size
            replies.popleft()
        if self.closed:
            return
        if out:
            self._send(out[0] if len(out) == 1 else b"".join(out))
        if self._closing:
            self._finish()
        elif self._paused and not self._held:
            self._work() if self._todo or self.parser.pending else self._regulate()

    def _send(self, data: bytes) -> None:
        self._send_raw(self._tls.encrypt(data) if self._tls is not None else data)

    def _send_raw(self, data: bytes) -> None:
        if self.closed:
            return
        if not self._out:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._out += data
        if len(self._out) > (self._house.max_unread if self.session.trusted else STRANGER_UNREAD):
            self._house.front.log.warning("client-not-reading", client=self.session.client.decode())
            self.close()
            return
        if self._writer is None:
            self._writer = self._loop.io(self._sock.fileno(), WRITE)
        self._writer.start(self._writable)
        self._house.deadline(self, PARTIAL)

    def _writable(self) -> None:
        try:
            sent = self._sock.send(memoryview(self._out)[: 1 << 18])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        del self._out[:sent]
        self._house.deadline(self, PARTIAL if self._out else None)
        if not self._out:
            self._writer.stop()
            if self._closing:
                self._finish()
                return
        if self._paused:
            self._regulate()

    # -- the end ---------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing is owed to this client and nothing half said by it."""
        return not (self._replies or self._todo or self._held or self._out or self.parser.pending)

    def drain(self) -> None:
        """Take no more commands; close when those already read are answered."""
        if self.idle:
            self.close()
        elif not self._todo and not self._held:
            self._closing = True
            self._finish()

    def _finish(self) -> None:
        """Close when everything is out: our half first, so that the last reply is not lost in a reset."""
        if self._replies or self._out or self.closed or self._held:
            return
        if self._eof:
            self.close()
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        if self._paused:
            self._paused = False
            self._reader.start(self._readable)
        self._house.deadline(self, LINGER)

    def close(self) -> None:
        """Close at once. Pushes that are under way stay under way; nobody hears how they ended."""
        if self.closed:
            return
        self.closed = True
        for watcher in (self._reader, self._writer, self._again):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._sock.close()
        self._todo.clear()
        self._house.leave(self)
