"""What a row of the API's table is: path, the right it needs, what it takes and answers, the operation behind it. Floor 5.

`needs` describes; the operation decides (`operations.rights`). The tests hold the two against each other, role by role.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from pepperbus.web.desk import Desk
from pepperbus.web.takes import Nothing


class Needs(StrEnum):
    """The role a request needs: in the system of the queue in its path, in any system, or on the node (system `*`)."""

    LOGIN = "any role; what it shows or changes is one's own, or cut to one's systems"
    VIEW = "viewer of the queue's system"
    OPERATE = "operator of the queue's system"
    ADMIN = "admin of the queue's system"
    VIEW_NODE = "viewer of every system (*)"
    OPERATE_NODE = "operator of every system (*)"
    ADMIN_NODE = "admin of every system (*)"


@dataclass(frozen=True, slots=True)
class Call:
    """One request: the names in its path, its query and its body, as the route's structs."""

    desk: Desk
    names: dict[str, str]
    query: Any
    body: Any

    @property
    def topic(self) -> str:
        return f"{self.names['queue']}/{self.names['topic']}"


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `stream`: answers server-sent events, each a `result`."""

    method: str
    path: str
    needs: Needs
    do: Callable[[Call], Any]
    result: Any
    summary: str
    query: type[msgspec.Struct] = Nothing
    body: type[msgspec.Struct] = Nothing
    stream: bool = False

    @property
    def name(self) -> str:
        return self.do.__name__
