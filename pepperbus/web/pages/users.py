"""Accounts as an administrator keeps them: roles by system, new passwords, tokens. Floor 5.

Plain forms that answer with the page: a new password or token is shown there once and is in no address.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, make_response, render_template, request

from pepperbus.accounts.model import EVERYWHERE, Role
from pepperbus.errors import PepperbusError, UsageError
from pepperbus.operations import tokens, users
from pepperbus.web.desk import Desk
from pepperbus.web.logins import local_path
from pepperbus.web.pages.answers import did, status_of, trouble
from pepperbus.web.words import _

DAYS = (7, 30, 90, 365)


def systems(desk: Desk, *more: str) -> list[str]:
    """Those that queues of this person have, and those named besides; the node itself first."""
    found = {queue.system for queue in desk.status().queues} | set(more)
    return [EVERYWHERE, *sorted(found - {"", EVERYWHERE})]


def roles_of_form() -> list[str]:
    """The words that `users.add` takes, from the fields `role:SYSTEM` and the pair for a system that has no queue yet."""
    words = [
        f"{field.removeprefix('role:')}={role}"
        for field, role in request.form.items()
        if field.startswith("role:") and role
    ]
    other = request.form.get("other", "").strip()
    return [*words, f"{other}={request.form.get('other-role', '')}"] if other else words


def new_token(desk: Desk, owner: str) -> tokens.TokenMade:
    """As the form of tokens says. Raises what `tokens.add` raises."""
    form = request.form
    chosen = form.getlist("system") or [EVERYWHERE]
    try:
        days = float(form.get("days", ""))
    except ValueError:
        raise UsageError(_("for how many days?")) from None
    return tokens.add(desk.office, form.get("name", ""), form.get("role", ""), days, chosen, owner)


def _list(desk: Desk, status: int = 200, **facts: Any) -> Response:
    return make_response(
        render_template(
            "users.html",
            users=users.listing(desk.office),
            tokens=tokens.listing(desk.office),
            systems=systems(desk),
            roles=list(Role),
            **facts,
        ),
        status,
    )


def _one(desk: Desk, name: str, status: int = 200, **facts: Any) -> Response:
    user = users.show(desk.office, name)
    return make_response(
        render_template(
            "user.html",
            user=user,
            tokens=[token for token in tokens.listing(desk.office) if token.owner == name],
            systems=systems(desk, *user.roles),
            roles=list(Role),
            days=DAYS,
            **facts,
        ),
        status,
    )


def _add(desk: Desk) -> Response:
    name = request.form.get("name", "").strip()
    try:
        words = roles_of_form()
        if not words:
            raise UsageError(_("a new account needs a role in at least one system"))
        made = users.add(desk.office, name, words, request.form.get("password", ""))
    except PepperbusError as failure:
        return _list(desk, status_of(failure), adding=True, error=trouble(failure))
    return _one(desk, name, password=made.password, news=_("The account {name} is made.", name=name))


def _change(desk: Desk, name: str, deed: str) -> Response:
    facts: dict[str, Any] = {}
    try:
        match deed:
            case "roles":
                users.change(desk.office, name, roles_of_form())
                facts["news"] = _("The roles of {name} are changed; they hold at once.", name=name)
            case "disable" | "enable":
                users.change(desk.office, name, disabled=deed == "disable")
                facts["news"] = (
                    _("{name} is shut out; sessions and tokens have ended.", name=name)
                    if deed == "disable"
                    else _("{name} may sign in again.", name=name)
                )
            case "reset":
                facts["password"] = users.reset(desk.office, name).password
                facts["news"] = _("{name} has a new password; all sessions have ended.", name=name)
            case "tokens":
                facts["made"] = new_token(desk, name)
    except PepperbusError as failure:
        return _one(desk, name, status_of(failure), error=trouble(failure))
    return _one(desk, name, **facts)


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/users")
    def users_page() -> Response:
        return _list(desk, adding="add" in request.args)

    @pages.post("/users")
    def users_add() -> Response:
        return _add(desk)

    @pages.get("/users/<user>")
    def user_page(user: str) -> Response:
        return _one(desk, user)

    @pages.post("/users/<user>/<any(roles,disable,enable,reset,tokens):deed>")
    def user_change(user: str, deed: str) -> Response:
        return _change(desk, user, deed)

    @pages.post("/users/<user>/remove")
    def user_remove(user: str) -> Response:
        users.remove(desk.office, user)
        return did(_("The account {name} is removed", name=user), "/users", go=True)

    @pages.post("/tokens/<token>/revoke")
    def token_revoke(token: str) -> Response:
        tokens.revoke(desk.office, token)
        return did(_("The token works no more"), local_path(request.form.get("back", "/me")), go=True)
