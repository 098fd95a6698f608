"""Accounts as an administrator keeps them, and one's own password.

Floor 4. A password that nobody gives is invented and shown once. Nobody comes here with an API token: a leaked one must
not be able to make itself an account.
"""

from __future__ import annotations

from collections.abc import Sequence

from pepperbus.accounts import passwords
from pepperbus.accounts.model import Account, Right, Via, account_name, parse_roles
from pepperbus.errors import Forbidden, PepperbusError, TooManyTries, UsageError
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import note, operation


class User(Result):
    """An account. `roles`: system (`*`: every system and the node) -> viewer, operator or admin. `source`: local, oidc
    or ldap."""

    name: str
    roles: dict[str, str]
    disabled: bool = False
    source: str = "local"
    created_ms: int = 0
    changed_ms: int = 0
    seen_ms: int = 0


class UserMade(Result):
    """`password`: set only when it was invented; it is shown this once."""

    user: User
    password: str = ""


class Removed(Result):
    """What is gone."""

    name: str


@operation(Right.ADMIN, audited=False)
def listing(office: Office) -> list[User]:
    """Every account."""
    in_person(office)
    return [user(account) for account in office.accounts.accounts()]


@operation(Right.ADMIN, audited=False)
def show(office: Office, name: str) -> User:
    """One account. Raises NotFound."""
    in_person(office)
    return user(office.accounts.account(name))


@operation(Right.ADMIN, details=("name", "roles"))
def add(office: Office, name: str, roles: Sequence[str], password: str = "") -> UserMade:
    """A new account. `roles`: ROLE (everywhere) or SYSTEM=ROLE, each. Without `password` one is invented.

    Raises UsageError, and PepperbusError when it exists or the first one is no administrator.
    """
    in_person(office)
    wanted = parse_roles(roles)
    if not wanted:
        raise UsageError("a role is wanted: viewer, operator or admin, or SYSTEM=ROLE")
    chosen = password or passwords.invented()
    store = office.accounts
    store.add(account_name(name), passwords.hashed(chosen), wanted)
    return UserMade(user(store.account(name)), "" if password else chosen)


@operation(Right.ADMIN, details=("name",))
def change(office: Office, name: str, roles: Sequence[str] | None = None, disabled: bool | None = None) -> User:
    """Other roles, or shut out and let in again; None leaves it. Raises NotFound, UsageError, PepperbusError.

    A disabled account's sessions end and its tokens stop at once.
    """
    in_person(office)
    store = office.accounts
    before = store.account(name)
    if roles is not None:
        store.set_roles(name, parse_roles(roles))
    if disabled is not None and disabled != before.disabled:
        store.set_disabled(name, disabled)
    after = user(store.account(name))
    note(before=_facts(user(before)), after=_facts(after))
    return after


@operation(Right.ADMIN, details=("name",))
def reset(office: Office, name: str, password: str = "") -> UserMade:
    """A new password, invented unless given; ends the account's sessions. Raises NotFound, UsageError."""
    in_person(office)
    store = office.accounts
    _has_password(store.account(name))
    chosen = password or passwords.invented()
    store.set_hash(name, passwords.hashed(chosen))
    return UserMade(user(store.account(name)), "" if password else chosen)


@operation(Right.ADMIN, details=("name",))
def remove(office: Office, name: str) -> Removed:
    """The account, its sessions and its tokens. Raises NotFound, and PepperbusError for the last administrator."""
    in_person(office)
    store = office.accounts
    note(before=_facts(user(store.account(name))))
    store.remove(name)
    return Removed(name)


@operation(Right.VIEW, audited=True)
def change_password(office: Office, old: str, new: str) -> User:
    """One's own password; ends all of one's sessions, this one too.

    Raises PepperbusError when `old` is wrong, and TooManyTries: a session that somebody left open, or that was stolen, must
    not be the place to guess it at.
    """
    in_person(office)
    if (wait_s := office.patience.wait_s(office.actor.name, "")) > 0:
        raise TooManyTries(wait_s)
    store = office.accounts
    account = store.account(office.actor.name)
    _has_password(account)
    if not passwords.matches(old, store.hash_of(account.name)):
        office.patience.failed(office.actor.name, "")
        raise PepperbusError("the old password is wrong")
    office.patience.succeeded(office.actor.name)
    store.set_hash(account.name, passwords.hashed(new))
    return user(store.account(account.name))


def in_person(office: Office) -> None:
    """Raises Forbidden for API tokens."""
    if office.actor.via is Via.TOKEN:
        raise Forbidden("accounts and tokens are managed by people who are logged in, never by an API token")


def user(account: Account) -> User:
    roles = {system: str(role) for system, role in sorted(account.roles.items())}
    return User(
        account.name,
        roles,
        account.disabled,
        account.source,
        account.created_ms,
        account.changed_ms,
        account.seen_ms,
    )


def _facts(shown: User) -> dict[str, object]:
    return {"roles": shown.roles, "disabled": shown.disabled}


def _has_password(account: Account) -> None:
    if account.source != "local":
        raise UsageError(f"{account.name} logs in by {account.source}: its password is kept there")
