"""One client: chunks of bytes in, commands through its session, replies out in order. Callbacks in the hub, no greenlet.

Knows the hub; of commands only the kinds of `Answer`; the socket is its `Stream`'s. Promises: replies leave in the order
the commands came, whatever their pushes wait for; nobody gets more than a turn of 64 commands, or a chunk of plain pushes,
before others; what is read but not answered stays bounded, by no longer reading.
"""

from __future__ import annotations

from _socket import socket as PlainSocket
from collections import deque
from typing import Any, Protocol

import gevent

from pepperbus.gateway.commands import execute
from pepperbus.gateway.handful import Handful
from pepperbus.gateway.held import Slot
from pepperbus.gateway.session import Answer, Block, Front, Goodbye, Later, Session, Wait
from pepperbus.gateway.stream import Stream
from pepperbus.gateway.submission import Submission
from pepperbus.gateway.tls import TlsFilter
from pepperbus.wire import plain_push, resp

TURN = 64  # commands of one client before others get theirs
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


class Connection:
    """One client. Created by the server with an accepted, non-blocking socket."""

    __slots__ = (
        "_again",
        "_begun",
        "_blocked",
        "_closing",
        "_eof",
        "_held",
        "_house",
        "_partial",
        "_plain",
        "_replies",
        "_stream",
        "_todo",
        "_unanswered",
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
        self.session = Session(house.front, self, client, local, trace_tail)
        self.parser = resp.RequestParser(limits, trusted=self.session.trusted)
        self.closed = False
        self._todo: deque[resp.Command] = deque()  # parsed, not carried out
        self._replies: deque[bytes | Handful | Submission | Slot] = deque()  # in order; empty when all are sent
        self._unanswered = 0  # bytes of the pushes in `_replies`
        self._held = False  # a command is under way that later ones must wait for
        self._blocked: Slot | None = None  # it is one that may take for ever
        self._eof = False  # the client has closed its half
        self._closing = False  # no further command is carried out; closes when all replies are out
        self._partial = False  # a command has begun and its deadline runs
        self._plain = False  # all that came before is carried out: plain pushes may take the quick way
        self._begun = b""  # of a plain push that has begun and its rest has not come
        self._again: Any = None
        self._stream = Stream(sock, self, tls)
        house.deadline(self, FIRST_COMMAND)

    # -- in --------------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        if self._closing:
            return  # lingering: what comes now is not for us
        if self._begun:
            data, self._begun = self._begun + data, b""
        if self._plain:
            data = self._bring_plain(data)
            if not data:
                return
        self.parser.receive_data(data)
        self._work()

    def _bring_plain(self, data: bytes) -> bytes:
        """Take the quick way (see `express`) as far as it leads; what remains is for the usual one."""
        session, brought = self.session, False
        while (express := session.express_for(data)) is not None:
            handful, data = express.take(session, data)
            if handful is not None:
                brought = True
                self._replies.append(handful)
                self._unanswered += handful.size
            if not data:
                self._whole()
                break
            if plain_push.begun(data, express.head):
                self._begun = data
                self._half(brought or not self._partial)
                data = b""
                break
            if handful is None:
                break
        if self._unanswered > UNANSWERED:
            self._regulate()
        return data

    def _whole(self) -> None:
        """What was begun is complete."""
        if self._partial:
            self._partial = False
            if not self._stream.unsent:
                self._house.deadline(self, None)

    def _half(self, first: bool) -> None:
        """A command has begun. Its deadline is set once for each: a trickle does not renew it."""
        if first:
            self._house.deadline(self, PARTIAL)
        self._partial = True

    def ended(self) -> None:
        """The client sends no more. What it sent before is still answered, but nobody waits for ever for who left."""
        if (
            self._closing
            or self._blocked is not None
            or not (self._replies or self._todo or self._held or self._stream.unsent)
        ):
            self.close()
            return
        self._stream.read(False)
        self._eof = True
        self._after_turn(TURN)

    def broken(self, reason: str) -> None:
        if reason:
            self.session.process.log.info("tls_failed", reason, client=self.session.client.decode())
        self.close()

    def _work(self) -> None:
        """Carry out what has been parsed, for one turn."""
        self._plain = False
        if self._held or self._closing or self.closed:
            if self._blocked is not None:
                self._regulate()
            return
        session, parser, todo = self.session, self.parser, self._todo
        session.arrived = self.session.process.turn
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
            parser.trust(session.trusted)
            if self._held or self._closing:
                break
        if parser.error is not None and not todo and not self._closing and not self._held:
            self._goodbye(resp.error(f"ERR Protocol error: {parser.error}"), out)
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            if self._replies and not self._held:
                self._replies.appendleft(
                    data
                )  # leaves with the pushes' answers: half the sends of AUTH and LPUSH in one
            else:
                self._stream.send(data)
        self._after_turn(left)

    def _carry_out(self, args: resp.Command, out: list[bytes]) -> None:
        try:
            answer: Answer = execute(self.session, args)
        except Exception as error:  # a bug of ours must cost this client one error, not everybody the process
            self.session.process.log.error("command_failed", repr(error), command=args[0][:64].decode(errors="replace"))
            answer = resp.error("ERR internal error")
        if type(answer) is bytes:
            if self._replies:
                self._replies.append(answer)
            else:
                out.append(answer)
        elif type(answer) is Handful or isinstance(answer, Submission):
            self._replies.append(answer)
            self._unanswered += answer.size
        else:
            self._special(answer, out)

    def _special(self, answer: Answer, out: list[bytes]) -> None:
        if isinstance(answer, Goodbye):
            self._goodbye(answer.reply, out)
            return
        assert isinstance(answer, Later | Block | Wait)
        self._held = True
        slot = Slot(answer, self._let_go, self.session.process.log)
        self._blocked = slot if slot.blocks else None
        if not self._replies:
            slot.first_in_line()
        self._replies.append(slot)

    def _let_go(self, slot: Slot) -> None:
        """`slot` has its reply: the commands behind it go on."""
        self._held = False
        self._blocked = None
        self.parser.trust(self.session.trusted)  # it may have been a login
        self.answers_ready()
        slot.written(not self.closed)
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
            and not (self._held or self._eof or self._closing or self._partial)
            and self._stream.reading
            and not self._stream.unsent
            and self.parser.trusted
            and not self.parser.midway
        ):  # all that was read is done: what most turns come to
            usual = self.session.transaction is None and not self.session.traceparent
            self._plain = usual and self.parser.limits.max_bulk >= plain_push.MAX_VALUE
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
                self._again = gevent.get_hub().loop.timer(0.0)
            self._again.start(self._work)
        self._regulate(more)
        if self.parser.midway:
            self._half(left < TURN or (not self._partial and self.session.trusted))
            return
        self._partial = False
        if not self.session.trusted:
            self._house.deadline(self, STRANGER_IDLE)
        elif not self._stream.unsent:
            self._house.deadline(self, None)

    def _regulate(self, more: bool = False) -> None:
        """Read only while what is kept for this client is little."""
        if not self._eof:
            much = self._unanswered > UNANSWERED or self._stream.unsent > UNANSWERED
            watched = self._blocked is not None and not (self._todo or self.parser.pending or self.parser.ready)
            self._stream.read(not (more or (self._held and not watched) or much))

    # -- out -------------------------------------------------------------------------------------------------

    def answers_ready(self) -> None:
        """Some pushes or a slot have their reply: send all that are next in line."""
        replies = self._replies
        out: list[bytes] = []
        while replies:
            head = replies[0]
            if isinstance(head, bytes):
                out.append(head)
            else:
                reply = head.reply
                if reply is None:
                    if isinstance(head, Slot):
                        head.first_in_line()
                    break
                out.append(reply)
                if not isinstance(head, Slot):
                    self._unanswered -= head.size
            replies.popleft()
        if self.closed:
            return
        if out:
            self._stream.send(out[0] if len(out) == 1 else b"".join(out))
        if self._closing:
            self._finish()
        elif not (self._stream.reading or self._held):
            self._work() if self._todo or self.parser.ready or self.parser.pending else self._regulate()

    def overdue(self) -> None:
        """Replies wait for the client to take them: not too many, not too long."""
        if self._stream.unsent > (self._house.max_unread if self.session.trusted else STRANGER_UNREAD):
            self.session.process.log.warning("client_not_reading", client=self.session.client.decode())
            self.close()
        else:
            self._house.deadline(self, PARTIAL)

    def moved(self) -> None:
        unsent = self._stream.unsent
        self._house.deadline(self, PARTIAL if unsent else None)
        if not unsent and self._closing:
            self._finish()
        elif not self._stream.reading:
            self._regulate()

    # -- the end ---------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing is owed to this client and nothing half said by it."""
        said = self._todo or self._held or self._begun or self.parser.ready or self.parser.pending
        has = self.session.holding or self.session.unacked
        return not (said or has or self._replies or self._stream.unsent)

    def drain(self) -> None:
        """Take no more commands; close when those already read are answered."""
        if self.session.holding or self.session.unacked:
            return  # it may say until the end that it is done
        if self._blocked is not None:
            self._closing = True  # what it waits for is answered at once now; there is no next time
            return
        if self.idle:
            self.close()
        elif not (self._todo or self.parser.ready or self._held):
            self._closing = True
            self._finish()

    def _finish(self) -> None:
        """Close when everything is out: our half first, so that the last reply is not lost in a reset."""
        if self._replies or self._stream.unsent or self.closed or self._held:
            return
        if self._eof or not self._stream.finish():
            self.close()
        else:
            self._house.deadline(self, LINGER)

    def close(self) -> None:
        """Close at once. Pushes that are under way stay under way; nobody hears how they ended."""
        if self.closed:
            return
        self.closed = True
        if self._blocked is not None:
            self._blocked.stop()
        self.session.left = True
        self.session.gone()
        if self._again is not None:
            self._again.stop()
            self._again.close()
        self._stream.close()
        self._todo.clear()
        self._house.leave(self)
