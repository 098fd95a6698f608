"""`pepperbus storage`: how storages are, and what moves from one to another."""

from __future__ import annotations

import time

import click

from pepperbus.cli import completion, words
from pepperbus.cli.session import act_as_daemon, confirm, office, show
from pepperbus.errors import UsageError
from pepperbus.operations import drain as draining
from pepperbus.operations import storage_files as files
from pepperbus.operations import storages
from pepperbus.operations.results import QueueFile

_LOOK_S = 0.5


@click.group()
def storage() -> None:
    """Storages: how fast they fill, added and changed; a queue or topic moved from one to another."""


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


_SETTINGS = click.argument("settings", nargs=-1, metavar="KEY=VALUE...")


@storage.command()
@click.argument("name", metavar="NAME")
@_SETTINGS
@click.pass_context
def add(ctx: click.Context, name: str, settings: tuple[str, ...]) -> None:
    """Add the storage NAME to the node's file: `storage add far type=redis url=redis://10.0.0.7:6379/0`.

    It is asked whether it is there, and the whole configuration is checked, before anything changes; then the bus reloads.
    """
    with office(ctx) as opened:
        show(ctx, files.add(opened, name, _settings(settings)), _told)


@storage.command("set")
@click.argument("name", metavar="NAME")
@_SETTINGS
@click.option("--unset", multiple=True, metavar="KEY", help="Take this key out: its default holds again.")
@click.pass_context
def set_(ctx: click.Context, name: str, settings: tuple[str, ...], unset: tuple[str, ...]) -> None:
    """Change the storage NAME. The jobs that lie there must lie where it then leads to."""
    with office(ctx) as opened:
        show(ctx, files.change(opened, name, _settings(settings), unset), _told)


@storage.command()
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def rm(ctx: click.Context, name: str, yes: bool) -> None:
    """Take the storage NAME out of the node's file; refused while topics or jobs lie there."""
    with office(ctx) as opened:
        confirm(f"Remove storage {name}?", yes)
        show(ctx, files.remove(opened, name), _told)


@storage.command()
@click.argument("name", metavar="NAME")
@click.pass_context
def compact(ctx: click.Context, name: str) -> None:
    """Give back the disk space that an embedded storage took when it was fuller; the bus must be stopped.

    Its room is used again without this. The copy needs as much space as the jobs that are left.
    """
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        show(ctx, storages.compact(opened, name), _compacted)


def _compacted(done: storages.Compacted) -> None:
    click.echo(f"storage {done.name}: {words.size(done.before)} before, {words.size(done.after)} now")


def _settings(pairs: tuple[str, ...]) -> dict[str, str]:
    made = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"{pair!r}: KEY=VALUE is wanted")
        made[key] = value
    return made


def _told(done: QueueFile) -> None:
    click.echo(f"storage {done.name}: {done.what}; {'the bus has taken it' if done.reloaded else done.reload}")


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
