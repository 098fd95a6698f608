"""What the configuration says of people who are known elsewhere: OpenID Connect, LDAP. Floor 1, frozen as `model`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pepperbus.config.secret import Secret

GroupRoles = tuple[str, tuple[str, ...]]  # a group of a sign-on service; ROLE or SYSTEM=ROLE, each


@dataclass(frozen=True)
class Oidc:
    issuer: str = ""  # "" = none
    client_id: str = ""
    client_secret: Secret = Secret()
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    label: str = "Single sign-on"
    ca: Path | None = None
    roles: tuple[GroupRoles, ...] = ()


@dataclass(frozen=True)
class Ldap:
    url: str = ""  # "" = none
    starttls: bool = True
    ca: Path | None = None
    bind_dn: str = ""
    bind_password: Secret = Secret()
    base: str = ""
    filter: str = "(uid={name})"
    groups: str = "memberOf"
    roles: tuple[GroupRoles, ...] = ()
