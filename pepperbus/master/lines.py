"""The master's ends of the socketpairs: to the mold and to each child. Never blocks."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from pepperbus.family.channel import FDS_PER_MESSAGE, Inbox, Outbox, pack_down, unpack_up

Reply = Callable[[dict[str, Any]], None]


class Line:
    """The master's end of one socketpair. `name` is whose it is, in logs.

    `read` and `asked` are what a master before this one had already read and how many commands it had sent.
    """

    def __init__(self, name: str, sock: socket.socket, read: bytes = b"", asked: int = 0) -> None:
        self.name = name
        self.sock = sock
        self.sock.setblocking(False)
        self._inbox = Inbox(read)
        self._outbox = Outbox()
        self.asked = asked  # commands so far; the next one's number is one higher
        self._asked: dict[int, tuple[Reply, float]] = {}
        self.is_open = True

    @property
    def has_unsent(self) -> bool:
        return bool(self._outbox)

    @property
    def has_unanswered(self) -> bool:
        return bool(self._asked)

    @property
    def unread(self) -> bytes:
        return self._inbox.unread

    def tell(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        if self.is_open:
            self._outbox.put(pack_down(message), fds)
            self.flush()

    def tell_many(self, op: str, key: str, names: dict[str, int], **facts: Any) -> None:
        """Names with a descriptor each, in as many messages as the kernel needs."""
        items = list(names.items())
        for i in range(0, len(items), FDS_PER_MESSAGE):
            part = items[i : i + FDS_PER_MESSAGE]
            self.tell({"op": op, key: [name for name, _ in part], **facts}, [fd for _, fd in part])

    def flush(self) -> None:
        try:
            self._outbox.flush(self.sock)
        except OSError:
            self._outbox.drop()  # its end will be read as such

    def read(self) -> list[dict[str, Any]]:
        """The messages that came. Afterwards `is_open` is False when the other side has gone."""
        while self.is_open:
            try:
                self.is_open = self._inbox.read(self.sock)
            except BlockingIOError:
                break
            except OSError:
                self.is_open = False
        return [unpack_up(body) for body in self._inbox.bodies()]

    def ask(self, command: dict[str, Any], reply: Reply, until: float) -> None:
        """Relay a command; `reply` gets the answer, or an error after `until` (monotonic) or the end of the line."""
        number = self.asked = self.asked + 1
        self._asked[number] = (reply, until)
        self.tell({"op": "command", "id": number, "command": command})

    def answered(self, number: int, answer: dict[str, Any]) -> None:
        if found := self._asked.pop(number, None):
            found[0](answer)

    def give_up(self, now: float) -> None:
        """Answer what was asked too long ago, or everything when the line is closed."""
        for number, (reply, until) in list(self._asked.items()):
            if not self.is_open or now > until:
                del self._asked[number]
                reply({"ok": False, "error": f"{self.name} {'did not answer in time' if self.is_open else 'died'}"})

    def close(self) -> None:
        self.is_open = False
        self.give_up(0.0)
        self._outbox.drop()
        self.sock.close()


def new_line(name: str) -> tuple[Line, socket.socket]:
    """A line, and its other end: to be passed on and closed here."""
    ours, theirs = socket.socketpair()
    return Line(name, ours), theirs


def new_wake() -> int:
    """An eventfd on which pushes to a worker group are announced."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
