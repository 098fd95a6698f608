"""The audit log as administrators read it. Floor 4; what is written there is `rights`' business."""

from __future__ import annotations

from pepperbus.accounts.chain import Found, Verified
from pepperbus.accounts.model import Right
from pepperbus.operations.office import Office
from pepperbus.operations.rights import operation


@operation(Right.ADMIN, audited=False)
def history(
    office: Office,
    *,
    who: str = "",
    what: str = "",
    about: str = "",
    result: str = "",
    since_ms: int = 0,
    before: int = 0,
    limit: int = 100,
) -> Found:
    """What was done, newest first; `about` matches from its beginning. Stops looking after 2 s (`complete` False)."""
    return office.audit.search(
        who=who, what=what, about=about, result=result, since_ms=since_ms, before=before, limit=limit
    )


@operation(Right.ADMIN, audited=False)
def verify(office: Office, known: str = "") -> Verified:
    """Whether the chain holds. `known`: a hash noted earlier that must be in it."""
    return office.audit.verify(known)
