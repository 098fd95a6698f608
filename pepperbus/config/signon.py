"""The sections [oidc] and [ldap] of the node's file: who may log in by another service's word, and as what.

Floor 1.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from pepperbus.config.check import Values, complete
from pepperbus.config.signon_settings import GroupRoles, Ldap, Oidc
from pepperbus.config.source import Document
from pepperbus.config.spec import Spec
from pepperbus.config.values import is_loopback

_ROLE = re.compile(r"(?:[^=]+=)?(viewer|operator|admin)")


def oidc(document: Document, values: Values, spec: Spec, base: Path) -> Oidc:
    """[oidc]; mistakes are noted."""
    made = Oidc(**_section(document, "oidc", values, spec, base))
    if not made.issuer:
        return made
    parts = urlsplit(made.issuer)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(f"{parts.hostname}:80")):
        document.mistake(("oidc", "issuer"), "https://… is wanted: the provider's word is all that lets people in")
    if not made.client_id or not made.client_secret:
        document.mistake(("oidc", "issuer"), "client_id and client_secret are needed as well")
    return made


def ldap(document: Document, values: Values, spec: Spec, base: Path) -> Ldap:
    """[ldap]; mistakes are noted."""
    made = Ldap(**_section(document, "ldap", values, spec, base))
    if not made.url:
        return made
    parts = urlsplit(made.url)
    if parts.scheme not in ("ldap", "ldaps") or not parts.hostname:
        document.mistake(("ldap", "url"), "ldaps://host[:636] or ldap://host[:389] is wanted")
    elif parts.scheme == "ldap" and not made.starttls and not is_loopback(f"{parts.hostname}:389"):
        document.mistake(("ldap", "url"), "passwords would cross the network readable: ldaps://, or starttls = yes")
    if not made.base:
        document.mistake(("ldap", "url"), "base is needed as well: where people are")
    if "{name}" not in made.filter:
        document.mistake(("ldap", "filter"), "{name} is missing: everybody would be the same person")
    return made


def _section(document: Document, name: str, values: Values, spec: Spec, base: Path) -> Values:
    found = complete({key: value for key, value in values.get(name, {}).items() if key != "roles"}, spec.sections[name])
    found["ca"] = Path(os.path.normpath(base / found["ca"])) if found["ca"] else None
    if found["ca"] is not None and not found["ca"].is_file():
        document.mistake((name, "ca"), f"there is no file {found['ca']}")
    found["roles"] = _roles(document, name, values.get(name, {}).get("roles", {}))
    return found


def _roles(document: Document, section: str, given: Values) -> tuple[GroupRoles, ...]:
    for group, words in given.items():
        for word in words:
            if not _ROLE.fullmatch(word):
                document.mistake((section, "roles", group), f"{word!r} is no role: admin, or SYSTEM=operator")
    return tuple((group, tuple(words)) for group, words in given.items())
