"""Logging in and out, the first administrator, and who stands behind a session or a token.

Floor 4. Every login and every refusal is written to the audit log, with the address it came from.
"""

from __future__ import annotations

from collections.abc import Sequence

import gevent

from pepperbus.accounts import directory, passwords, sessions
from pepperbus.accounts.model import HOST_ROLES, Actor, Role, Session, Via, account_name, narrowed, parse_roles
from pepperbus.accounts.patience import Patience
from pepperbus.errors import Forbidden, NotReachable, PepperbusError, TooManyTries
from pepperbus.operations.office import Office

DIRECTORY_S = 15.0
WRONG = "name or password is wrong"


def login(office: Office, patience: Patience, name: str, password: str, address: str) -> str:
    """A session's secret. Raises Forbidden with the same words whatever was wrong, TooManyTries while one has to wait."""
    name = name.strip()[:128]
    wait_s = patience.wait_s(name, address)
    if wait_s > 0:
        raise TooManyTries(wait_s)
    store = office.accounts
    account = store.find(name)
    if office.config.ldap.url and (account is None or account.source == "ldap"):
        return _by_directory(office, patience, name, password, address)
    good = passwords.matches(password, store.hash_of(name))
    if not good or account is None or account.disabled:
        patience.failed(name, address)
        reason = "disabled" if good else "no such account" if account is None else "wrong password"
        _write(office, name, address, "login", "refused", reason)
        raise Forbidden(WRONG)
    patience.succeeded(name)
    return begin(office, name, address)


def _by_directory(office: Office, patience: Patience, name: str, password: str, address: str) -> str:
    try:
        with gevent.Timeout(DIRECTORY_S, NotReachable(f"{office.config.ldap.url} is silent for {DIRECTORY_S:g} s")):
            found = directory.ask(office.config.ldap, name, password)
    except NotReachable as error:
        _write(office, name, address, "login", "failed", str(error))
        raise
    if found is None:
        patience.failed(name, address)
        _write(office, name, address, "login", "refused", "the directory does not agree")
        raise Forbidden(WRONG)
    patience.succeeded(name)
    dn, groups = found
    return signed_on(office, "ldap", dn.lower(), name, groups, address)


def signed_on(office: Office, source: str, subject: str, name: str, groups: Sequence[str], address: str) -> str:
    """A session for somebody whom `source` (oidc, ldap) vouches for as `subject`. Roles follow from the groups, anew each
    time.

    Raises Forbidden for somebody without a role or shut out here, PepperbusError when the name is another account's.
    """
    config = office.config.oidc if source == "oidc" else office.config.ldap
    words = [word for group, held in config.roles if group == "*" or group in groups for word in held]
    roles = _best(words)
    store = office.accounts
    account = store.by_subject(source, subject)
    who = account.name if account else name
    if not roles or (account and account.disabled):
        reason = "disabled" if roles else f"in none of the groups of [{source}] [[roles]]"
        _write(office, who, address, "login", "refused", f"{source}: {reason}")
        raise Forbidden("your account is shut out here" if roles else "you are in no group that may come in here")
    if account is None:
        store.add(account_name(name), "", roles, source, subject)
    elif account.roles != roles:
        store.set_roles(who, roles)
    return begin(office, who, address, source)


def _best(words: Sequence[str]) -> dict[str, Role]:
    """Roles of several groups together: of two for one system the higher."""
    roles: dict[str, Role] = {}
    for word in words:
        for system, role in parse_roles([word]).items():
            roles[system] = max(role, roles.get(system, role), key=lambda one: one.right)
    return roles


def begin(office: Office, name: str, address: str, how: str = "local") -> str:
    """A session for an account whose login was good. `how`: by which service."""
    _write(office, name, address, "login", "done", how)
    sessions.sweep(office.accounts, office.config.web.session_idle, office.config.web.session_longest)
    return sessions.begin(office.accounts, name, address)


def logout(office: Office, secret: str) -> None:
    """End the session."""
    sessions.end(office.accounts, secret)
    _write(office, office.actor.name, office.actor.address, "logout", "done")


def setup(office: Office, name: str, password: str, address: str) -> str:
    """The first administrator, logged in. Raises PepperbusError when there is an account already, UsageError."""
    store = office.accounts
    store.add(account_name(name), passwords.hashed(password), HOST_ROLES, first=True)
    _write(office, name, address, "setup", "done")
    return begin(office, name, address)


def behind_session(office: Office, secret: str, address: str) -> tuple[Actor, Session] | None:
    """Who comes with that cookie; None when the session is over."""
    web = office.config.web
    session = sessions.session(office.accounts, secret, web.session_idle, web.session_longest)
    if session is None:
        return None
    return Actor(session.account.name, Via.WEB, address, session.account.roles), session


def behind_token(office: Office, text: str, address: str) -> Actor | None:
    """Who comes with that bearer token; None when it is not good (any more)."""
    found = sessions.token(office.accounts, text)
    if found is None:
        return None
    token, owner = found
    return Actor(owner.name, Via.TOKEN, address, narrowed(owner.roles, token.role, token.systems), token.id)


def _write(office: Office, name: str, address: str, what: str, result: str, reason: str = "") -> None:
    """A log that cannot be written keeps nobody from logging in: whoever comes may come to free the disk."""
    try:
        office.audit.add(Actor(name, Via.WEB, address), what, "", result, reason)
    except PepperbusError:
        if what == "setup":
            raise
