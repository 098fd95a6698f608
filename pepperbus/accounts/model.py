"""Rights, roles by system, and the actor: who stands behind a command, a request or a page.

Floor 2. Values only; asking and recording is `operations.rights`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from pepperbus.errors import UsageError

EVERYWHERE = "*"  # every system, and the node itself
_NAME = re.compile(r"[\w.@+-]{1,128}")


class Right(IntEnum):
    """What may be done; each includes those before it."""

    VIEW = 1  # look at anything
    OPERATE = 2  # move jobs: push, send, pause, resume, replay, purge
    ADMIN = 3  # change queues; with EVERYWHERE also processes, accounts and the audit log


class Role(StrEnum):
    """What an account is given for a system."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def right(self) -> Right:
        return {"viewer": Right.VIEW, "operator": Right.OPERATE, "admin": Right.ADMIN}[self.value]


Roles = Mapping[str, Role]  # system (or EVERYWHERE) -> role


class Via(StrEnum):
    """How somebody came here."""

    CLI = "cli"
    WEB = "web"  # a session
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. `name` is the account, or the user of this host; `address` where the request came from."""

    name: str
    via: Via = Via.CLI
    address: str = ""
    roles: Roles = field(default_factory=dict)
    token: str = ""  # the id of the token that was shown

    def may(self, right: Right, system: str = EVERYWHERE) -> bool:
        """Whether this actor has `right` in `system`; without one: for the whole node."""
        return any(
            role.right >= right
            for where in (system, EVERYWHERE)
            if where and (role := self.roles.get(where)) is not None
        )

    def may_somewhere(self, right: Right) -> bool:
        return any(role.right >= right for role in self.roles.values())


#: Whoever can read the configuration and write the data of the bus on its own machine.
HOST_ROLES: Roles = {EVERYWHERE: Role.ADMIN}


def narrowed(roles: Roles, limit: Role, systems: Iterable[str]) -> Roles:
    """`roles` cut down to at most `limit` and to `systems` (EVERYWHERE: all there are): what a token may."""
    wanted = set(systems)
    reach = dict(roles) if EVERYWHERE in wanted else {}
    for system in wanted - {EVERYWHERE}:
        held = [role for where in (system, EVERYWHERE) if (role := roles.get(where)) is not None]
        if held:
            reach[system] = max(held, key=lambda role: role.right)
    return {system: min(role, limit, key=lambda role: role.right) for system, role in reach.items()}


@dataclass(frozen=True, slots=True)
class Account:
    """An account. `source`: local (a password here), oidc or ldap; `subject`: who it is there."""

    name: str
    roles: Roles
    disabled: bool = False
    source: str = "local"
    subject: str = ""
    created_ms: int = 0
    changed_ms: int = 0  # the password
    seen_ms: int = 0  # the last login


@dataclass(frozen=True, slots=True)
class Session:
    """A login that lasts. `csrf` is what its forms must carry; `id` names it in lists and tells nothing of its secret."""

    account: Account
    csrf: str
    created_ms: int
    seen_ms: int
    address: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """An API token without its secret. It may what its owner may, at most `role`, in `systems` only."""

    id: str
    owner: str
    name: str
    role: Role
    systems: tuple[str, ...]
    created_ms: int
    expires_ms: int
    seen_ms: int = 0


def account_name(name: str) -> str:
    """The name, if it can be one. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name an account: 1 to 128 letters, digits or . _ @ + - are wanted")
    return name


def parse_roles(words: Iterable[str]) -> dict[str, Role]:
    """`admin` (everywhere) or `shop=operator`, each -> roles by system. Raises UsageError."""
    roles: dict[str, Role] = {}
    for word in words:
        system, equals, role = word.rpartition("=")
        if equals and not system:
            raise UsageError(f"{word!r}: ROLE or SYSTEM=ROLE is wanted")
        roles[system or EVERYWHERE] = parse_role(role)
    return roles


def parse_role(text: str) -> Role:
    """Raises UsageError."""
    try:
        return Role(text)
    except ValueError:
        raise UsageError(f"{text!r} is no role: {', '.join(Role)}") from None
