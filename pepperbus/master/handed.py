"""What the master before an upgrade left to this one, unpacked: `handover` reads it, the parts of a bus begin with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pepperbus.master.children import Place
from pepperbus.master.control import Client
from pepperbus.master.lines import Line
from pepperbus.master.opened import Opened


@dataclass
class Handed:
    """What the master before left to this one."""

    opened: Opened
    boot: str
    births: int
    beats: int
    wakes: dict[str, int]
    since: float
    generation: int
    gateways: int
    processes: int  # [gateway] processes of the configuration before
    places: dict[str, Place]
    lines: dict[str, Line]
    clients: list[Client]
    strangers: set[int]  # children of this process that are none of the table
    upgrade: dict[str, Any]
    last_reload: dict[str, Any]
