"""`pepperbus queue add|set|rm|list|show`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from pepperbus.cli import completion, words
from pepperbus.cli.session import as_daemon, confirm, office, show
from pepperbus.errors import ConfigError, PepperbusError, UsageError
from pepperbus.operations import closing, queues
from pepperbus.operations.office import Office
from pepperbus.operations.results import QueueFile, QueueInfo

_SETTINGS = click.argument("settings", nargs=-1, metavar="[KEY=VALUE | TOPIC/KEY=VALUE]...")


@click.group(no_args_is_help=True)
def queue() -> None:
    """Show, add, change and remove queues: their files in queues.d.

    A change is validated as a whole before the file is replaced (comments and order stay); then the running bus
    reloads. Settings are KEY=VALUE for the queue, TOPIC/KEY=VALUE for a topic, TOPIC/params/NAME=VALUE and
    TOPIC/headers/NAME=VALUE for what is sent along, schedule/NAME/KEY=VALUE and intakes/NAME/KEY=VALUE for those.
    """


@queue.command("list")
@click.pass_context
def list_(ctx: click.Context) -> None:
    """List the queues and topics of the configuration."""
    with office(ctx) as opened:
        found = queues.listing(opened)
    show(ctx, found, _list)


def _list(found: list[QueueInfo]) -> None:
    rows = [
        (topic.name, topic.run, topic.target, topic.storage, topic.settings["concurrency"], info.file)
        for info in found
        for topic in info.topics
    ]
    words.table(("topic", "run", "target", "storage", "concurrency", "file"), rows)


@queue.command("show")
@click.argument("name", shell_complete=completion.queues)
@click.pass_context
def show_(ctx: click.Context, name: str) -> None:
    """Show everything queue NAME is set to, defaults included. Passwords are never shown."""
    with office(ctx) as opened:
        found = queues.show(opened, name)
    show(ctx, found, _show)


def _show(info: QueueInfo) -> None:
    click.echo(f"{info.name} ({info.file})")
    words.table(("key", "value"), [(key, _value(value)) for key, value in info.settings.items()])
    for topic in info.topics:
        click.echo(f"{topic.name} -> {topic.target}")
        words.table(("key", "value"), [(key, _value(value)) for key, value in topic.settings.items()])


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(str(part) for part in value) if isinstance(value, list) else str(value)


@queue.command()
@click.argument("name")
@_SETTINGS
@click.pass_context
def add(ctx: click.Context, name: str, settings: tuple[str, ...]) -> None:
    """Add queue NAME. Without password= (or open=loopback) a password is made; it stands in the file.

    \b
    pepperbus queue add orders mail/run=fastcgi mail/pool=php mail/script=/data/app/consume.php
    """
    with office(ctx) as opened, mistakes_are_ours():
        done = queues.add(opened, name, pairs(settings))
    told(ctx, done)


@queue.command("set")
@click.argument("name", shell_complete=completion.queues)
@_SETTINGS
@click.option(
    "--unset", multiple=True, metavar="KEY", help="Take this key (or TOPIC/KEY) out: its default holds again."
)
@click.pass_context
def set_(ctx: click.Context, name: str, settings: tuple[str, ...], unset: tuple[str, ...]) -> None:
    """Change keys of queue NAME."""
    if not settings and not unset:
        raise UsageError("nothing to set: KEY=VALUE, TOPIC/KEY=VALUE or --unset KEY is wanted")
    with office(ctx) as opened, mistakes_are_ours():
        done = queues.change(opened, name, pairs(settings), unset)
    told(ctx, done)


@queue.command()
@click.argument("name", metavar="QUEUE[/TOPIC]", shell_complete=completion.either)
@click.option("--keep-jobs", is_flag=True, help="Also while jobs wait: they stay in their storage, shown as detached.")
@click.option("--drain", is_flag=True, help="It takes no new jobs any more, and goes once everything there has run.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.pass_context
def rm(ctx: click.Context, name: str, keep_jobs: bool, drain: bool, yes: bool, dry_run: bool) -> None:
    """Remove a queue, or one topic of it. Refused while jobs wait there, unless --keep-jobs or --drain.

    Dead jobs hold what is drained too: run them again, or purge them. Until it is gone `queue set QUEUE --unset closed`,
    of a topic `--unset TOPIC/closed`, lets it take jobs again.
    """
    with office(ctx) as opened:
        names = ", ".join(topic.full_name for topic in opened.named(name))
        if dry_run:
            click.echo(f"would remove {names or name}")
            return
        if drain:
            _drain(ctx, opened, name, keep_jobs, yes)
            return
        if not keep_jobs:
            with as_daemon(opened.config.bus):
                queues.lying(opened, name)  # opens the storages as the daemon, which root may not
        confirm(f"Remove {names or name} from the configuration?", yes)
        with mistakes_are_ours():
            done = queues.remove(opened, name, keep_jobs=keep_jobs)
    told(ctx, done)


def _drain(ctx: click.Context, opened: Office, name: str, keep_jobs: bool, yes: bool) -> None:
    if keep_jobs:
        raise UsageError("--drain leaves no jobs to keep")
    queue, slash, topic = name.partition("/")
    if not opened.config.web.listen:
        closed = f"{queue} {topic}{slash}closed=yes"
        raise UsageError(f"the sidecar removes it, and [web] listen is empty: pepperbus queue set {closed}, later rm")
    confirm(f"Take no jobs for {name} any more, and remove it once it is empty?", yes)
    with mistakes_are_ours():
        done = closing.close(opened, name, remove=True)
    told(ctx, done)


@contextmanager
def mistakes_are_ours() -> Iterator[None]:
    """A change that would not validate is this command's failure (1), not a bus that cannot start (3)."""
    try:
        yield
    except ConfigError as error:
        raise PepperbusError(f"{error}\nnothing was changed") from error


def pairs(settings: tuple[str, ...]) -> dict[str, str]:
    """Words KEY=VALUE. Raises UsageError."""
    pairs = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{text!r}: KEY=VALUE or TOPIC/KEY=VALUE is wanted")
        pairs[key.strip()] = value.strip()
    return pairs


def told(ctx: click.Context, done: QueueFile) -> None:
    """What became of a file and of the bus that should take it. Raises PepperbusError when the bus refused it."""
    show(ctx, done, _text)
    if done.what != "unchanged" and not done.reloaded and done.refused:
        raise PepperbusError(f"the file is written, but the running bus refused to reload: {done.reload}")


def _text(done: QueueFile) -> None:
    click.echo(f"{done.name}: {done.what} ({done.file})")
    if done.reloaded:
        click.echo("the running bus has taken it")
    elif done.reload and not done.refused:
        click.echo("the bus does not run; it reads the file when it starts", err=True)
