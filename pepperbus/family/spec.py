"""What a child is told at its birth, beyond what it inherits from the mold (configuration, listeners, wakes)."""

from __future__ import annotations

from dataclasses import dataclass

#: Exit status of a process that could not boot; the same word as `serve`'s own.
EXIT_BOOT = 3
#: How long a child may go on without its master.
ORPHAN_S = 5.0


@dataclass(frozen=True)
class Spec:
    """One birth. `beat` is the child's slot among the beats; `boot` its incarnation, never reused."""

    role: str
    name: str
    index: int
    group: str
    boot: str
    bus_boot: str
    beat: int
