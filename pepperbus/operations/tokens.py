"""API tokens: their owners' own, or everybody's for an administrator.

Floor 4. A token may what its owner may, at most its own role, in its own systems, until its date. Its text is shown once.
"""

from __future__ import annotations

from collections.abc import Sequence

from pepperbus.accounts import sessions
from pepperbus.accounts.model import EVERYWHERE, Right, Token, Via, parse_role
from pepperbus.errors import Forbidden, NotFound, UsageError
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import may, operation
from pepperbus.operations.users import Removed, in_person

LONGEST_DAYS = 3650


class TokenInfo(Result):
    """A token. `systems` holds `*` for all that its owner has. `seen_ms`: last used, to the minute."""

    id: str
    owner: str
    name: str
    role: str
    systems: list[str]
    created_ms: int
    expires_ms: int
    seen_ms: int = 0
    expired: bool = False


class TokenMade(Result):
    """`secret` is the token's text: `Authorization: Bearer SECRET`. It is shown this once."""

    token: TokenInfo
    secret: str


@operation(Right.VIEW)
def listing(office: Office) -> list[TokenInfo]:
    """One's own tokens; an administrator's list has everybody's."""
    in_person(office)
    owner = "" if may(office, Right.ADMIN) else office.actor.name
    return [_info(office, token) for token in sessions.tokens(office.accounts, owner)]


@operation(Right.VIEW, audited=True, details=("name", "role", "systems", "days", "owner"))
def add(
    office: Office, name: str, role: str, days: float, systems: Sequence[str] = (EVERYWHERE,), owner: str = ""
) -> TokenMade:
    """A new token called `name`, good for `days`. `owner`: somebody else's, for administrators.

    Raises UsageError, NotFound, Forbidden.
    """
    in_person(office)
    whose = owner or office.actor.name
    if whose != office.actor.name and not may(office, Right.ADMIN):
        raise Forbidden(f"a token of {whose} is made by {whose} or an administrator")
    if office.actor.via is Via.CLI and not owner:
        raise UsageError("whose token? --owner NAME is wanted")
    if not 0 < days <= LONGEST_DAYS:
        raise UsageError(f"a token is good for more than 0 and at most {LONGEST_DAYS} days")
    if not name.strip() or len(name) > 100 or not systems:
        raise UsageError("a token needs a name (up to 100 characters) and at least one system (* means all)")
    expires_ms = office.clock.now_ms() + int(days * 86_400_000)
    made, secret = sessions.add_token(office.accounts, whose, name.strip(), parse_role(role), systems, expires_ms)
    return TokenMade(_info(office, made), secret)


@operation(Right.VIEW, audited=True, details=("token_id",))
def revoke(office: Office, token_id: str) -> Removed:
    """The token stops at once. Raises NotFound, also for somebody else's."""
    in_person(office)
    if token_id not in {token.id for token in listing(office)}:
        raise NotFound(f"no token {token_id!r}")
    sessions.drop_token(office.accounts, token_id)
    return Removed(token_id)


def _info(office: Office, token: Token) -> TokenInfo:
    return TokenInfo(
        token.id,
        token.owner,
        token.name,
        str(token.role),
        list(token.systems),
        token.created_ms,
        token.expires_ms,
        token.seen_ms,
        office.clock.now_ms() >= token.expires_ms,
    )
