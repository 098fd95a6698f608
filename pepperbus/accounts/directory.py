"""A password asked of an LDAP directory, and the person's groups. Floor 2; the protocol is ldap3's."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pepperbus.config.signon_settings import Ldap
from pepperbus.errors import NotReachable

_TIMEOUT_S = 5  # ldap3 packs it as an integer


def ask(ldap: Ldap, name: str, password: str) -> tuple[str, list[str]] | None:
    """The person's (DN, groups) when directory and password agree, else None. Raises NotReachable.

    The DN is looked up first, then bound with the password. An empty password is refused here: a directory would take it
    for an anonymous bind and agree.
    """
    if not password or not name:
        return None
    try:
        import ldap3
        from ldap3.core.exceptions import LDAPException
        from ldap3.utils.conv import escape_filter_chars
    except ImportError as error:
        raise NotReachable("[ldap] needs ldap3: pip install 'pepperbus[ldap]'") from error
    try:
        with _bound(ldap3, ldap, ldap.bind_dn, ldap.bind_password.reveal()) as connection:
            if connection is None:
                raise NotReachable(f"{ldap.url} does not let {ldap.bind_dn or 'anonymous'} in")
            wanted = ldap.filter.replace("{name}", escape_filter_chars(name))
            connection.search(ldap.base, wanted, attributes=[ldap.groups], size_limit=2)
            found = [one for one in connection.response or [] if one.get("type") == "searchResEntry"]
        if len(found) != 1:
            return None
        with _bound(ldap3, ldap, found[0]["dn"], password) as connection:
            if connection is None:
                return None
    except LDAPException as error:
        raise NotReachable(f"{ldap.url}: {type(error).__name__}: {error}") from error
    groups = found[0]["attributes"].get(ldap.groups) or []
    return found[0]["dn"], [str(one) for one in (groups if isinstance(groups, list) else [groups])]


@contextmanager
def _bound(ldap3: Any, ldap: Ldap, dn: str, password: str) -> Iterator[Any]:
    """A connection logged in as `dn` ("" = nobody); None when the directory does not agree."""
    tls = ldap3.Tls(
        validate=ssl.CERT_REQUIRED, ca_certs_file=str(ldap.ca) if ldap.ca else None, version=ssl.PROTOCOL_TLS_CLIENT
    )
    server = ldap3.Server(ldap.url, tls=tls, connect_timeout=_TIMEOUT_S, get_info=ldap3.NONE)
    who = (dn or None, password or None)
    connection = ldap3.Connection(server, *who, receive_timeout=_TIMEOUT_S, auto_referrals=False)
    try:
        if ldap.starttls and ldap.url.startswith("ldap://"):
            connection.start_tls()
        yield connection if connection.bind() else None
    finally:
        connection.unbind()
