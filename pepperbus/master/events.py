"""What can happen to the master, as values in one queue, and the selector that fills it."""

from __future__ import annotations

import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pepperbus.master import signals
from pepperbus.master.children import Place
from pepperbus.master.control import Client
from pepperbus.master.lines import Line, Reply

_LOOK_AWAY_S = 1.0


@dataclass
class Told:
    """A child said something."""

    place: Place
    message: dict[str, Any]


@dataclass
class MoldTold:
    message: dict[str, Any]


@dataclass
class Requested:
    """Somebody (the control socket, a child) wants something and waits for `reply`."""

    request: dict[str, Any]
    reply: Reply


Event = signal.Signals | Told | MoldTold | Requested


class Events:
    """The one queue. `sleep` waits for the next thing and turns it into events."""

    def __init__(self, control: socket.socket, clients: Sequence[Client] = ()) -> None:
        self._queue: deque[Event] = deque()
        self._lines: set[Line] = set()
        self.clients: set[Client] = set()
        self._selector = selectors.DefaultSelector()
        self._signals = signals.hear()
        self._control = control
        self._accept_again = 0.0
        self._selector.register(self._signals, selectors.EVENT_READ, lambda mask: self._read_signals())
        self._listen()
        for client in clients:
            self._welcome(client)

    def _listen(self) -> None:
        self._selector.register(self._control, selectors.EVENT_READ, lambda mask: self._accept())

    def __bool__(self) -> bool:
        return bool(self._queue)

    def put(self, event: Event) -> None:
        self._queue.append(event)

    def take(self) -> Event:
        return self._queue.popleft()

    def watch(self, line: Line, wrap: Callable[[dict[str, Any]], Event]) -> None:
        """From now on what comes on that line is queued as `wrap(message)`."""

        def serve(mask: int) -> None:
            if mask & selectors.EVENT_WRITE:
                line.flush()
            if mask & selectors.EVENT_READ:
                self._queue.extend(wrap(message) for message in line.read())
                if not line.is_open:
                    self._selector.unregister(line.sock)
                    self._lines.discard(line)

        self._lines.add(line)
        self._selector.register(line.sock, selectors.EVENT_READ, serve)

    def forget(self, line: Line) -> None:
        """Close the line."""
        if line in self._lines:
            self._lines.discard(line)
            self._selector.unregister(line.sock)
        line.close()

    def sleep(self, timeout: float) -> None:
        """Until something happens, at most `timeout` seconds."""
        if self._accept_again and time.monotonic() >= self._accept_again:
            self._accept_again = 0.0
            self._listen()
        ends: list[Line | Client] = [*self._lines, *self.clients]
        for end in ends:
            key = self._selector.get_key(end.sock)
            want = selectors.EVENT_READ | (selectors.EVENT_WRITE if end.has_unsent else 0)
            if key.events != want:
                self._selector.modify(end.sock, want, key.data)
        for key, mask in self._selector.select(timeout):
            key.data(mask)

    def _read_signals(self) -> None:
        for number in signals.take(self._signals):
            if number != signal.SIGCHLD and number not in self._queue:  # many HUPs are one
                self._queue.append(number)

    def _accept(self) -> None:
        try:
            sock, _ = self._control.accept()
        except OSError:
            # Out of descriptors, most likely. Who waits would be reported for ever: look away for a while.
            self._selector.unregister(self._control)
            self._accept_again = time.monotonic() + _LOOK_AWAY_S
            return
        client = Client(sock)
        if not client.is_allowed:
            sock.close()
            return
        self._welcome(client)

    def _welcome(self, client: Client) -> None:
        self.clients.add(client)
        self._selector.register(client.sock, selectors.EVENT_READ, lambda mask: self._serve(client, mask))

    def _serve(self, client: Client, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            client.flush()
        if not mask & selectors.EVENT_READ:
            return
        is_open = client.read()
        for request in client.requests():
            if request is None:
                client.answer({"ok": False, "error": 'a request is one JSON object a line with an "op"'})
            else:
                self._queue.append(Requested(request, client.answer))
        if not is_open:
            self._selector.unregister(client.sock)
            self.clients.discard(client)
            client.sock.close()
