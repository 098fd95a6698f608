"""One native thread for what waits inside C, where it would stop every greenlet.

Floor 3. Knows gevent's loop, nothing of storages. Passing something to the thread and back costs a tenth of a millisecond:
what is quicker than that is better done in the hub.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent.hub import get_hub
from gevent.monkey import get_original

_start_thread = get_original("_thread", "start_new_thread")
_native_lock = get_original("_thread", "allocate_lock")

#: What a function gave: its result, or its error.
Then = Callable[[Any, Exception | None], None]


class Aside:
    """Runs one function at a time in its thread and tells the hub. Errors travel as values, never as tracebacks."""

    def __init__(self) -> None:
        self._task: Callable[[], Any] | None = None
        self._then: Then | None = None
        self._outcome: tuple[Any, Exception | None] = None, None
        self._wake = _native_lock()
        self._wake.acquire()
        self._ended = get_hub().loop.async_()
        self._ended.start(self._tell)
        _start_thread(self._serve, ())

    @property
    def busy(self) -> bool:
        return self._then is not None

    def run(self, task: Callable[[], Any], then: Then) -> None:
        """Run `task` in the thread, then call `then` in the hub. Only while it is not `busy`."""
        self._task, self._then = task, then
        self._wake.release()

    def close(self) -> None:
        """End the thread. Only while it is not `busy`."""
        self._task = None
        self._wake.release()
        self._ended.stop()
        self._ended.close()

    def _serve(self) -> None:
        while True:
            self._wake.acquire()
            task = self._task
            if task is None:
                return
            try:
                self._outcome = task(), None
            except Exception as error:
                self._outcome = None, error
            self._ended.send()

    def _tell(self) -> None:
        then, self._then, self._task = self._then, None, None
        if then:
            then(*self._outcome)
