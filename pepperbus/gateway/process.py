"""What every part of one gateway process works with: its names, clock, ids, log and journal.

Floor 4. Knows no client, no storage and no configuration. Whatever hands out, waits or writes down gets this; only what serves
clients gets the whole `session.Front`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pepperbus.clock import Clock
from pepperbus.ids import IdGenerator
from pepperbus.journal.contract import JournalWriter
from pepperbus.log import Log


@dataclass(slots=True, eq=False)
class Process:
    """Made once; only the two times change, at each turn of the hub."""

    name: str  # gateway.N
    node: str
    owner: str  # under which is leased
    clock: Clock
    ids: IdGenerator
    log: Log
    journal: JournalWriter
    turn: float = 0.0  # monotonic time at which this turn of the hub began
    turn_ms: int = 0  # the wall time at that moment

    @property
    def full_name(self) -> str:
        """As the journal shows it."""
        return f"{self.node}/{self.name}"
