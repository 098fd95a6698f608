"""`pepperbus storage`: how storages are, and what moves from one to another."""

from __future__ import annotations

import time

import click

from pepperbus.cli import completion, words
from pepperbus.cli.session import act_as_daemon, confirm, office, show
from pepperbus.operations import drain as draining
from pepperbus.operations import storages
from pepperbus.operations.results import QueueFile

_LOOK_S = 0.5


@click.group()
def storage() -> None:
    """Storages: how fast they fill; a queue or topic moved from one to another."""


@storage.command("list")
@click.pass_context
def list_(ctx: click.Context) -> None:
    """Show how fast each storage fills; `pepperbus status` says how they are now."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        show(ctx, storages.growth(opened), _growth)


def _growth(found: list[storages.Growth]) -> None:
    rows = [
        (
            one.name,
            words.size(one.course[-1]) if one.course else "",
            f"{words.size(int(one.per_day))} a day" if one.known else "not known yet",
            f"{one.days_left:.0f} days" if one.days_left else "",
        )
        for one in found
    ]
    words.table(("storage", "used", "grows", "full in"), rows)


@storage.command()
@click.argument("name", metavar="QUEUE[/TOPIC]", shell_complete=completion.either)
@click.argument("to", metavar="STORAGE")
@click.option("--alone", is_flag=True, help="Other nodes that share a storage have been seen to.")
@click.option("--wait", is_flag=True, help="Until everything has moved.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def drain(ctx: click.Context, name: str, to: str, alone: bool, wait: bool, yes: bool) -> None:
    """Move QUEUE or QUEUE/TOPIC to another STORAGE; producers and consumers notice nothing.

    New pushes go to the new storage at once. The running bus moves what waits, is delayed or dead, in steps that a crash
    cannot undo or double; what is with workers is settled where it lies. Ctrl-C ends the waiting, not the drain.
    """
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        confirm(f"Move {name} to {to}?", yes)
        done = draining.drain(opened, name, to, alone=alone)
        show(ctx, done, _begun)
        while wait and any(one.state == "moving" for one in draining.drains(opened)):
            time.sleep(_LOOK_S)


def _begun(done: QueueFile) -> None:
    click.echo(f"{done.name}: the file is {done.what}; the bus moves what lies in the old storage")
    if done.reload:
        click.echo(f"pepperbus: {done.reload}", err=True)


@storage.command()
@click.pass_context
def drains(ctx: click.Context) -> None:
    """Show what moves, or has moved, from storage to storage."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        show(ctx, draining.drains(opened), _drains)


def _drains(found: list[draining.DrainStatus]) -> None:
    rows = [
        (
            one.topic,
            one.source,
            one.target,
            one.trouble or one.state,
            one.moved,
            one.left,
            words.when(one.since_ms),
            one.who,
        )
        for one in found
    ]
    words.table(("topic", "from", "to", "state", "moved", "left", "since", "who"), rows)
    if not found:
        click.echo("nothing moves")
