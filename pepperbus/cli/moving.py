"""`pepperbus import go|supervisor|crontab` and `pepperbus export`."""

from __future__ import annotations

import json

import click

from pepperbus.cli.session import as_daemon, confirm, office, show
from pepperbus.errors import ConfigError, PepperbusError, UsageError
from pepperbus.operations import exports, imports

_DRY = click.option("--dry-run", is_flag=True, help="Print what would be written, passwords too; write nothing.")
_STORAGE = click.option(
    "--storage", default="", help="Where the jobs shall lie; needed when the node has several storages."
)
_FILES = click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True), metavar="DIR|FILE...")


@click.group("import", no_args_is_help=True)
def import_() -> None:
    """Write queues' files from what runs today. What could not be carried over is listed line by line.

    A file that is there is never touched, and the running bus is not told: look at the files, then `check` and `reload`.
    """


@import_.command()
@_FILES
@_STORAGE
@click.option("--no-intakes", is_flag=True, help="Leave the jobs that wait in its Redis where they are.")
@_DRY
@click.pass_context
def go(ctx: click.Context, paths: tuple[str, ...], storage: str, no_intakes: bool, dry_run: bool) -> None:
    """The Go system's configuration: queue_config, tags_mapping, cgi_config, http_config.

    As JSON (a file for each, or one with these keys), a keeper's queue.conf and global.conf, or what /QueueConfig answers.
    """
    _bring(ctx, "go", paths, dry_run, storage=storage, intakes=not no_intakes)


@import_.command()
@_FILES
@_STORAGE
@_DRY
@click.pass_context
def supervisor(ctx: click.Context, paths: tuple[str, ...], storage: str, dry_run: bool) -> None:
    """supervisord's programs: each becomes a queue that keeps the same processes alive."""
    _bring(ctx, "supervisor", paths, dry_run, storage=storage)


@import_.command()
@_FILES
@_STORAGE
@click.option("--system", is_flag=True, help="A user stands in each line, as in /etc/crontab.")
@_DRY
@click.pass_context
def crontab(ctx: click.Context, paths: tuple[str, ...], storage: str, system: bool, dry_run: bool) -> None:
    """A crontab: each line becomes a queue with a schedule and its command. `crontab -l > FILE` prints yours."""
    _bring(ctx, "crontab", paths, dry_run, storage=storage, system=system)


def _bring(ctx: click.Context, kind: str, paths: tuple[str, ...], dry_run: bool, **how: object) -> None:
    with office(ctx) as opened:
        try:
            made = imports.bring(opened, kind, paths, dry_run=dry_run, **how)  # type: ignore[arg-type]
        except ConfigError as error:
            raise PepperbusError(f"{error}\nnothing was written") from error
    show(ctx, made, _text)


def _text(made: imports.Imported) -> None:
    for one in made.files:
        if one.what == "new" and not made.written:
            click.echo(f"# --- {one.file}\n{one.text}")
    if made.node:
        click.echo(f"# --- {'added' if made.written else 'to be added'} to the node's file\n{made.node}")
    for one in made.files:
        if one.what == "new" and made.written:
            click.echo(f"{one.name}: written ({one.file})")
    for line in made.left:
        click.echo(f"not carried over: {line}")
    if made.written:
        click.echo("now: pepperbus check, then pepperbus reload")


@click.command()
@click.argument("names", nargs=-1, metavar="[QUEUE... | QUEUE/TOPIC]")
@click.option("--to", default="", metavar="URL", help="QUEUE/TOPIC: move its waiting and dead jobs into that Redis.")
@click.option("--dry-run", is_flag=True, help="QUEUE/TOPIC: only say how many jobs would move.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def export(ctx: click.Context, names: tuple[str, ...], to: str, dry_run: bool, yes: bool) -> None:
    """The way back to the Go system.

    Of queues (or all) prints their configuration as its JSON, passwords too. QUEUE/TOPIC with --to moves its jobs into
    the lists it takes them from; the topic must be paused first.
    """
    if len(names) == 1 and "/" in names[0]:
        _move(ctx, names[0], to, dry_run, yes)
        return
    if to or any("/" in name for name in names):
        raise UsageError("--to moves the jobs of one QUEUE/TOPIC; without it, name queues only")
    with office(ctx) as opened:
        found = exports.configuration(opened, names)
    click.echo(json.dumps(found.config, indent=2, ensure_ascii=False))
    for line in found.left:
        click.echo(f"not carried over: {line}", err=True)


def _move(ctx: click.Context, topic: str, to: str, dry_run: bool, yes: bool) -> None:
    if not to:
        raise UsageError("say where to: --to redis://host:port/db")
    with office(ctx) as opened, as_daemon(opened.config.bus):
        if not dry_run:
            waiting = exports.move(opened, topic, to, dry_run=True)
            confirm(f"Move {waiting.jobs} jobs of {topic} to {waiting.where}?", yes)
        done = exports.move(opened, topic, to, dry_run=dry_run)
    show(ctx, done, _moved)


def _moved(done: exports.Exported) -> None:
    click.echo(f"{'would move' if done.dry_run else 'moved'} {done.jobs} jobs of {done.topic} to {done.where}")
    for line in done.left:
        click.echo(f"stays here: {line}")
