"""The API's rows for accounts, tokens, one's own login and the audit log. Floor 5."""

from __future__ import annotations

from flask import g

from pepperbus.accounts.chain import Found, Verified
from pepperbus.errors import UsageError
from pepperbus.operations import audit, sessions, tokens, users
from pepperbus.operations.results import Result
from pepperbus.operations.sessions import SessionInfo
from pepperbus.operations.tokens import TokenInfo, TokenMade
from pepperbus.operations.users import Removed, User, UserMade
from pepperbus.web.table import Call, Route
from pepperbus.web.table import Needs as N
from pepperbus.web.takes import (
    AuditQuery,
    PasswordBody,
    ResetBody,
    TokenBody,
    UserBody,
    UserChangeBody,
    VerifyQuery,
)


class Person(Result):
    """Who is asking. `via`: web (a session) or token; `roles` by system; `csrf`: what a session's X-CSRF-Token holds."""

    name: str
    via: str
    roles: dict[str, str]
    csrf: str = ""


def get_session(call: Call) -> Person:
    actor = call.desk.office.actor
    session = g.get("session")
    return Person(
        actor.name, str(actor.via), {k: str(v) for k, v in actor.roles.items()}, session.csrf if session else ""
    )


def list_users(call: Call) -> list[User]:
    return users.listing(call.desk.office)


def get_user(call: Call) -> User:
    return users.show(call.desk.office, call.names["user"])


def add_user(call: Call) -> UserMade:
    return users.add(call.desk.office, call.names["user"], _words(call.body.roles), call.body.password)


def change_user(call: Call) -> User:
    roles = None if call.body.roles is None else _words(call.body.roles)
    return users.change(call.desk.office, call.names["user"], roles, call.body.disabled)


def reset_user(call: Call) -> UserMade:
    return users.reset(call.desk.office, call.names["user"], call.body.password)


def remove_user(call: Call) -> Removed:
    return users.remove(call.desk.office, call.names["user"])


def change_password(call: Call) -> User:
    return users.change_password(call.desk.office, call.body.old, call.body.new)


def list_tokens(call: Call) -> list[TokenInfo]:
    return tokens.listing(call.desk.office)


def add_token(call: Call) -> TokenMade:
    body = call.body
    return tokens.add(call.desk.office, body.name, body.role, body.days, body.systems, body.owner)


def revoke_token(call: Call) -> Removed:
    return tokens.revoke(call.desk.office, call.names["token"])


def list_sessions(call: Call) -> list[SessionInfo]:
    return sessions.listing(call.desk.office)


def end_session(call: Call) -> Removed:
    return sessions.end(call.desk.office, call.names["session"])


def find_audit(call: Call) -> Found:
    query = call.query
    if not 1 <= query.limit <= 1000:
        raise UsageError(f"limit: {query.limit} must be 1 to 1000")
    return audit.history(
        call.desk.office,
        who=query.who,
        what=query.what,
        about=query.about,
        result=query.result,
        since_ms=query.since_ms,
        before=query.before,
        limit=query.limit,
    )


def verify_audit(call: Call) -> Verified:
    return audit.verify(call.desk.office, call.query.known)


def _words(roles: dict[str, str]) -> list[str]:
    return [f"{system}={role}" for system, role in roles.items()]


_USER = "/users/{user}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/session", N.LOGIN, get_session, Person, "Who is asking, and what they may."),
    Route("POST", "/password", N.LOGIN, change_password, User, "One's own password; ends all sessions.", body=PasswordBody),
    Route("GET", "/users", N.ADMIN_NODE, list_users, list[User], "Every account."),
    Route("GET", _USER, N.ADMIN_NODE, get_user, User, "One account."),
    Route("POST", _USER, N.ADMIN_NODE, add_user, UserMade, "A new account.", body=UserBody),
    Route("PUT", _USER, N.ADMIN_NODE, change_user, User, "Other roles; shut out or let in.", body=UserChangeBody),
    Route("DELETE", _USER, N.ADMIN_NODE, remove_user, Removed, "The account, its sessions and tokens."),
    Route("POST", _USER + "/reset", N.ADMIN_NODE, reset_user, UserMade, "A new password for it.", body=ResetBody),
    Route("GET", "/tokens", N.LOGIN, list_tokens, list[TokenInfo], "One's own tokens; an administrator sees all."),
    Route("POST", "/tokens", N.LOGIN, add_token, TokenMade, "A new token; its text is shown once.", body=TokenBody),
    Route("DELETE", "/tokens/{token}", N.LOGIN, revoke_token, Removed, "The token stops at once."),
    Route("GET", "/sessions", N.LOGIN, list_sessions, list[SessionInfo], "One's own logins, latest first."),
    Route("DELETE", "/sessions/{session}", N.LOGIN, end_session, Removed, "That login ends at once."),
    Route("GET", "/audit", N.ADMIN_NODE, find_audit, Found, "What was done, newest first.", query=AuditQuery),
    Route("GET", "/audit/verify", N.ADMIN_NODE, verify_audit, Verified, "Whether the chain holds.", query=VerifyQuery),
)  # fmt: skip
