"""One's own logins: where they come from, and ending one of them.

Floor 4. Somebody else's end with a new password or a disabled account (users.py).
"""

from __future__ import annotations

import re

from pepperbus.accounts import sessions
from pepperbus.accounts.model import Right
from pepperbus.errors import NotFound
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import operation
from pepperbus.operations.users import Removed, in_person

_ID = re.compile(r"[0-9a-f]{12}")


class SessionInfo(Result):
    """A login that lasts. `seen_ms`: its last request, to the minute."""

    id: str
    address: str
    created_ms: int
    seen_ms: int


@operation(Right.VIEW)
def listing(office: Office) -> list[SessionInfo]:
    """One's own sessions, latest first."""
    in_person(office)
    account = office.accounts.find(office.actor.name)
    if account is None:
        return []  # who acts on the host has no account
    web = office.config.web
    found = sessions.sessions(office.accounts, account, web.session_idle, web.session_longest)
    return [SessionInfo(one.id, one.address, one.created_ms, one.seen_ms) for one in found]


@operation(Right.VIEW, audited=True, details=("session_id",))
def end(office: Office, session_id: str) -> Removed:
    """One's own session of that id ends at once. Raises NotFound, also for somebody else's."""
    in_person(office)
    if not _ID.fullmatch(session_id):
        raise NotFound(f"no session {session_id!r}")
    sessions.end_one(office.accounts, office.actor.name, session_id)
    return Removed(session_id)
