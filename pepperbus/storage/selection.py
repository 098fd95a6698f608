"""Which jobs of a topic: what replays, purges and listings choose by. Floor 2: values and the contract's words only."""

from __future__ import annotations

from dataclasses import dataclass

from pepperbus.job import Job, State
from pepperbus.storage.contract import Stored


@dataclass(frozen=True)
class Selection:
    """Which jobs of a topic: these ids, or all in `state` that match. `error` is part of the reason, without case.

    `text` is part of the content. `since_ms` is looked up against when a job died, or was accepted if it is not dead.
    """

    topic: str
    ids: tuple[int, ...] = ()
    state: State = State.DEAD
    error: str = ""
    since_ms: int = 0
    text: str = ""

    def matches(self, stored: Stored) -> bool:
        if self.error and self.error.lower() not in stored.reason.lower():
            return False
        if self.text and self.text.encode() not in stored.body:
            return False
        return not self.since_ms or came_ms(stored) >= self.since_ms


def came_ms(stored: Stored) -> int:
    """When a job died, or was accepted if it is not dead; 0 when nobody can tell."""
    if stored.dead_ms:
        return stored.dead_ms
    try:
        return Job.decode(stored.body).accepted_ms
    except ValueError:
        return 0


def stamp(stored: Stored) -> int:
    """What tells this stay of a job from its next one in the same state: when it died, or is due."""
    return stored.dead_ms if stored.state is State.DEAD else stored.due_ms
