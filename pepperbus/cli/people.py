"""`pepperbus user`, `token`, `audit`: who may use the dashboard and the API, and what was done."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from pepperbus.accounts.chain import Entry, Found, Verified
from pepperbus.cli import words
from pepperbus.cli.session import act_as_daemon, confirm, daemon_account, epoch_ms, show
from pepperbus.cli.session import office as any_office
from pepperbus.errors import PepperbusError, UsageError
from pepperbus.operations import audit as auditing
from pepperbus.operations import tokens, users
from pepperbus.operations.office import Office
from pepperbus.operations.tokens import TokenInfo, TokenMade
from pepperbus.operations.users import Removed, User, UserMade

_ROLES = click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="[SYSTEM=]ROLE",
    help="viewer, operator or admin; of one system (shop=operator) or of everything. May be given several times.",
)
_STDIN = click.option(
    "--stdin", is_flag=True, help="Read the password from standard input; else one is made and shown."
)


@contextmanager
def _office(ctx: click.Context) -> Iterator[Office]:
    """The office, as the daemon: what is made here must be its own."""
    with any_office(ctx, queues=False) as opened:
        directory, account = opened.config.bus.data_dir, daemon_account(opened.config.bus)
        if not directory.is_dir():
            directory.mkdir(0o750, parents=True)
            if account:
                os.chown(directory, *account)
        act_as_daemon(opened.config.bus)
        yield opened


@click.group()
def user() -> None:
    """Accounts of the dashboard and the API.

    The first one must be an administrator. A viewer looks, an operator also pushes, pauses, replays, purges and sends test
    jobs, an admin also changes queues; an admin of everything (no SYSTEM=) also steers the bus and keeps the accounts.
    """


@user.command("add")
@click.argument("name")
@_ROLES
@_STDIN
@click.pass_context
def add_user(ctx: click.Context, name: str, roles: tuple[str, ...], stdin: bool) -> None:
    """Add account NAME. Its password is made and shown once, or read from standard input."""
    with _office(ctx) as opened:
        first = opened.accounts.is_empty()
        show(ctx, users.add(opened, name, roles or (("admin",) if first else ()), _password(stdin)), _made)


@user.command("list")
@click.pass_context
def list_users(ctx: click.Context) -> None:
    """List the accounts."""
    with _office(ctx) as opened:
        show(ctx, users.listing(opened), _users)


@user.command("set")
@click.argument("name")
@_ROLES
@click.pass_context
def set_user(ctx: click.Context, name: str, roles: tuple[str, ...]) -> None:
    """Give NAME these roles instead of those it has."""
    if not roles:
        raise UsageError("nothing to set: --role [SYSTEM=]ROLE is wanted")
    with _office(ctx) as opened:
        show(ctx, users.change(opened, name, roles), lambda done: _users([done]))


@user.command("disable")
@click.argument("name")
@click.option("--undo", is_flag=True, help="Let it in again.")
@click.pass_context
def disable_user(ctx: click.Context, name: str, undo: bool) -> None:
    """Shut NAME out: its sessions end and its tokens stop at once."""
    with _office(ctx) as opened:
        show(ctx, users.change(opened, name, disabled=not undo), lambda done: _users([done]))


@user.command("reset")
@click.argument("name")
@_STDIN
@click.pass_context
def reset_user(ctx: click.Context, name: str, stdin: bool) -> None:
    """Give NAME a new password; ends its sessions."""
    with _office(ctx) as opened:
        show(ctx, users.reset(opened, name, _password(stdin)), _made)


@user.command("remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def remove_user(ctx: click.Context, name: str, yes: bool) -> None:
    """Remove NAME with its sessions and tokens."""
    with _office(ctx) as opened:
        confirm(f"Remove account {name}?", yes)
        show(ctx, users.remove(opened, name), _removed)


def _password(stdin: bool) -> str:
    if not stdin:
        return ""
    password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise UsageError("standard input holds no password")
    return password


def _made(done: UserMade) -> None:
    click.echo(f"{done.user.name}: {_roles(done.user)}")
    if done.password:
        click.echo(f"password (shown this once): {done.password}")


def _users(found: list[User]) -> None:
    rows = [
        (one.name, _roles(one), "disabled" if one.disabled else "", one.source, _when(one.seen_ms)) for one in found
    ]
    words.table(("name", "roles", "state", "source", "last login"), rows)


def _roles(one: User) -> str:
    return ", ".join(role if system == "*" else f"{system}={role}" for system, role in one.roles.items()) or "none"


def _removed(done: Removed) -> None:
    click.echo(f"{done.name}: removed")


@click.group()
def token() -> None:
    """API tokens, sent as `Authorization: Bearer TOKEN`. A token may what its owner may, at most its own role."""


@token.command("add")
@click.argument("name")
@click.option("--owner", required=True, metavar="ACCOUNT", help="Whose token; it ends with the account.")
@click.option("--role", default="viewer", show_default=True, help="At most this: viewer, operator or admin.")
@click.option("--system", "systems", multiple=True, help="Only in this system; may be given several times.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), default=90.0, show_default=True, help="Good for.")
@click.pass_context
def add_token(ctx: click.Context, name: str, owner: str, role: str, systems: tuple[str, ...], days: float) -> None:
    """Make a token called NAME. Its text is shown once."""
    with _office(ctx) as opened:
        show(ctx, tokens.add(opened, name, role, days, systems or ("*",), owner), _token_made)


@token.command("list")
@click.pass_context
def list_tokens(ctx: click.Context) -> None:
    """List everybody's tokens."""
    with _office(ctx) as opened:
        show(ctx, tokens.listing(opened), _tokens)


@token.command("revoke")
@click.argument("id")
@click.pass_context
def revoke_token(ctx: click.Context, id: str) -> None:
    """Stop token ID at once."""
    with _office(ctx) as opened:
        show(ctx, tokens.revoke(opened, id), _removed)


def _token_made(done: TokenMade) -> None:
    _tokens([done.token])
    click.echo(f"token (shown this once): {done.secret}")


def _tokens(found: list[TokenInfo]) -> None:
    rows = [
        (
            one.id,
            one.owner,
            one.name,
            one.role,
            ", ".join(one.systems),
            "expired" if one.expired else _when(one.expires_ms),
            _when(one.seen_ms),
        )
        for one in found
    ]
    words.table(("id", "owner", "name", "role", "systems", "until", "last used"), rows)


@click.command()
@click.option("--who", default="", help="Only what this account (or user of this host) did.")
@click.option("--what", default="", help="Only this, such as purge, queue.change, login.")
@click.option("--about", default="", help="Only what is about this queue or topic.")
@click.option("--result", default="", help="Only what ended so: done, failed, refused, or begun.")
@click.option("--since", default="", help="Since: 30m, 2h, 1d ago, a date, or unix seconds.")
@click.option("-n", "limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--verify", is_flag=True, help="Follow the whole chain instead. Exit status 1: something is wrong.")
@click.option("--known", default="", help="With --verify: a hash noted earlier that must be in the chain.")
@click.pass_context
def audit(
    ctx: click.Context, who: str, what: str, about: str, result: str, since: str, limit: int, verify: bool, known: str
) -> None:
    """Show what was done, newest first: by whom, from where, on what, how it ended."""
    with _office(ctx) as opened:
        if verify:
            found = auditing.verify(opened, known)
            show(ctx, found, _verified)
            if not found.ok:
                raise PepperbusError("the audit log is not whole")
            return
        since_ms = epoch_ms(since, opened.clock.now_ms()) if since else 0
        page = auditing.history(opened, who=who, what=what, about=about, result=result, since_ms=since_ms, limit=limit)
        show(ctx, page, _history)


def _history(found: Found) -> None:
    rows = [
        (
            one.n,
            _when(one.at_ms),
            words.printable(one.who),
            one.address or one.via,
            one.what,
            words.printable(one.about),
            one.result,
            words.printable(_facts(one)),
        )
        for one in found.entries
    ]
    words.table(("n", "when", "who", "from", "what", "about", "result", ""), rows)
    if not found.complete:
        click.echo("looked for 2 s; there is more before", err=True)


def _facts(entry: Entry) -> str:
    changed = [f"{key}: {entry.before.get(key, '-')} -> {entry.after.get(key, '-')}" for key in entry.before]
    others = {**entry.details, **{key: value for key, value in entry.after.items() if key not in entry.before}}
    return ", ".join(
        [entry.reason] * bool(entry.reason) + changed + [f"{key}: {value}" for key, value in others.items()]
    )


def _verified(found: Verified) -> None:
    for line in found.broken:
        click.echo(line, err=True)
    click.echo(f"{found.entries} lines, {found.first} to {found.last}; newest hash {found.head}")


def _when(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(ms / 1000)) if ms else "-"
