"""A place in the line of replies for one that comes later: it needs a storage, or is held back for some seconds.

Knows the hub and the kinds of `Answer`; nothing of sockets. Whatever the client sent behind such a command waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from pepperbus.gateway.session import Block, Later, Wait
from pepperbus.log import Log
from pepperbus.wire import resp


class Slot:
    """`reply` is None until it is known; then `done` is called, once."""

    __slots__ = ("_answer", "_begun", "_done", "_log", "_timer", "reply")

    def __init__(self, answer: Later | Block | Wait, done: Callable[[Slot], None], log: Log) -> None:
        self.reply: bytes | None = None
        self._answer = answer
        self._done = done
        self._log = log
        self._begun = False
        self._timer: Any = None
        if isinstance(answer, Wait):
            self._timer = gevent.get_hub().loop.timer(answer.seconds)
            self._timer.start(self._waited, answer.reply)

    def first_in_line(self) -> None:
        """All earlier replies are known: what needs a storage is begun now."""
        if not (isinstance(self._answer, Wait) or self._begun):
            self._begun = True
            gevent.spawn(self._run, self._answer)

    def _run(self, answer: Later | Block) -> None:
        try:
            reply = answer.run() if isinstance(answer, Later) else answer.run(self._arrived)
        except Exception as error:
            self._log.error("command_failed", repr(error))
            reply = resp.error("ERR internal error")
        if reply is not None:
            self._arrived(reply)

    def _arrived(self, reply: bytes) -> None:
        self.reply = reply
        self._done(self)

    @property
    def blocks(self) -> bool:
        """It may take for ever: whether the client is still there must be watched meanwhile."""
        return isinstance(self._answer, Block)

    def stop(self) -> None:
        """The client has gone."""
        if isinstance(self._answer, Block) and self.reply is None:
            self._answer.stop()

    def _waited(self, reply: bytes) -> None:
        self._timer.stop()
        self._timer.close()
        self._arrived(reply)

    def written(self, arrived: bool) -> None:
        """The reply is in the socket's hands, or can no longer get there."""
        if not isinstance(self._answer, Wait) and self._answer.after is not None:
            self._answer.after(arrived)
