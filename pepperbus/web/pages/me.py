"""My account: my roles, password, sessions and tokens, language and theme. Floor 5."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, g, make_response, redirect, render_template, request

from pepperbus.accounts.model import EVERYWHERE, Role
from pepperbus.errors import PepperbusError, UsageError
from pepperbus.operations import logins, sessions, tokens, users
from pepperbus.web.desk import Desk
from pepperbus.web.logins import current_account, with_session
from pepperbus.web.pages.answers import did, status_of, trouble
from pepperbus.web.pages.users import DAYS, new_token, systems
from pepperbus.web.words import _


def _page(desk: Desk, status: int = 200, **facts: Any) -> Response:
    actor, account = desk.office.actor, current_account()
    users.in_person(desk.office)
    return make_response(
        render_template(
            "me.html",
            account=account,
            roles={system: str(role) for system, role in sorted(actor.roles.items())},
            sessions=sessions.listing(desk.office),
            this=g.session.id if g.get("session") else "",
            tokens=[token for token in tokens.listing(desk.office) if token.owner == actor.name],
            systems=[system for system in systems(desk, *actor.roles) if system != EVERYWHERE],
            kinds=[role for role in Role if actor.may_somewhere(role.right)],
            days=DAYS,
            **facts,
        ),
        status,
    )


def _password(desk: Desk) -> Any:
    """A new password ends every session; the one it was given in goes on as a new one."""
    given, office = request.form, desk.office
    try:
        if given.get("new", "") != given.get("again", ""):
            raise UsageError(_("the two new passwords differ"))
        if not given.get("old"):
            raise UsageError(_("the old password is wanted too"))
        users.change_password(office, given["old"], given["new"])
    except PepperbusError as failure:
        return _page(desk, status_of(failure), error=trouble(failure))
    secret = logins.begin(office, office.actor.name, office.actor.address, "new password")
    return with_session(redirect("/me?said=password", 303), secret)


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/me")
    def me() -> Response:
        news = _("Your password is changed; your other sessions have ended.") if request.args.get("said") else ""
        return _page(desk, news=news)

    @pages.post("/me/password")
    def me_password() -> Any:
        return _password(desk)

    @pages.post("/me/tokens")
    def me_tokens() -> Response:
        try:
            return _page(desk, made=new_token(desk, ""))
        except PepperbusError as failure:
            return _page(desk, status_of(failure), error=trouble(failure))

    @pages.post("/me/sessions/<session>/end")
    def me_session_end(session: str) -> Response:
        sessions.end(desk.office, session)
        return did(_("That session has ended"), "/me", go=True)
