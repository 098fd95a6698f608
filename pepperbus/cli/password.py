"""`pepperbus password`: the hash to write into a configuration in the place of a password."""

from __future__ import annotations

import sys

import click

from pepperbus.accounts.passwords import hashed, invented
from pepperbus.cli.session import wants_json
from pepperbus.operations.results import to_json


@click.command()
@click.option("--make", is_flag=True, help="Invent a password and show it, this once.")
@click.pass_context
def password(ctx: click.Context, make: bool) -> None:
    """Print the hash of a password for `password =` of a queue or topic, or for [logins]. Put it in quotes there.

    The password is asked for, or read from standard input (one line); it never stands on the command line.
    """
    given = invented() if make else _asked()
    kept = hashed(given)
    if wants_json(ctx):
        click.echo(to_json({"hash": kept, **({"password": given} if make else {})}, 2))
        return
    if make:
        click.echo(f"{given}   (the password; it is shown only now)", err=True)
    click.echo(f'"{kept}"')


def _asked() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")
