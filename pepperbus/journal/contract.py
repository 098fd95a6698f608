"""What the bus remembers of every attempt after the job itself has gone.

Floor 2: knows floor 0 only. Writers append rows to a log file of their own process; one reader (the ticker) moves them
into the journal database. Losing the tail of a row at a power cut is allowed; blocking the data path is not.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Row(msgspec.Struct, array_like=True, omit_defaults=False):
    """One event of a job's life in one topic. Times are wall time in ms, durations in ms.

    `event`: `attempt` (a delivery; `outcome` done, retry, dead, back), `popped`, `released` (its worker died),
    `replayed`, `removed`. `body` and `stderr` are capped by the writer; `content` is its first `[journal] content`
    bytes. `fields`: `path=value`, what the queue's `index` found in the whole content. `process`: who did it, by its name
    (`gateway.0`, a person), with the node before it, or as an owner (`names.owner_name`).
    """

    event: str
    job_id: int
    topic: str
    at_ms: int
    attempt: int = 0
    node: str = ""
    process: str = ""
    outcome: str = ""
    code: int = 0
    error_code: str = ""
    reason: str = ""
    out_trace: str = ""
    in_trace: str = ""
    client: str = ""
    accepted_ms: int = 0
    wait_ms: float = 0.0
    run_ms: float = 0.0
    body: bytes = b""
    stderr: bytes = b""
    content: bytes = b""
    fields: tuple[str, ...] = ()


class JournalWriter(Protocol):
    """The hot path's end: never blocks on a disk wait, never raises; what cannot be written is counted in `dropped`."""

    @property
    def dropped(self) -> int: ...

    def add(self, row: Row, soon: bool = True) -> None:
        """Remember a row; rows of one turn of the hub go to the file in one write, those not `soon` at the next `flush`."""

    def flush(self) -> None:
        """Write what is pending now."""

    def close(self) -> None:
        """Write out what is left."""
