"""What the suite needs to know of an engine: how to make a storage on some data, and on which clock it goes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pepperbus.clock import ManualClock
from pepperbus.ids import IdGenerator
from pepperbus.job import Job
from pepperbus.storage.contract import Push, Storage


@dataclass(frozen=True)
class Rig:
    """One engine with data of its own. `make` gives an unopened storage on these data, each time another."""

    make: Callable[[], Storage]
    clock: ManualClock
    keeps: bool = True  # the data survive `close`
    hands_on_the_clock: bool = True  # silence of nodes is measured with `clock`


#: Given a directory and a clock, an engine is there as long as the context lasts.
Engine = Callable[[Path, ManualClock], AbstractContextManager[Rig]]


class Producer:
    """Pushes with rising ids and well-formed bodies."""

    def __init__(self, clock: ManualClock) -> None:
        self._ids = IdGenerator(1, 0, clock.now_ms)
        self._clock = clock

    def push(self, *topics: str, content: bytes = b"{}", due_ms: int = 0, front: bool = False) -> Push:
        job_id = self._ids.next()
        body = Job(job_id, str(job_id), content, self._clock.now_ms(), "test").encode()
        return Push(job_id, body, topics, due_ms, front)

    def several(self, n: int, *topics: str) -> list[Push]:
        return [self.push(*topics, content=b"%d" % i) for i in range(n)]
