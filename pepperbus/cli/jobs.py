"""`pepperbus pause`, `resume`, `purge`: what changes jobs or their flow; and the options by which jobs are selected."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from pepperbus.cli import completion
from pepperbus.cli.session import act_as_daemon, confirm, epoch_ms, office, show
from pepperbus.errors import PepperbusError, UsageError
from pepperbus.operations import pause as pausing
from pepperbus.operations.jobs import Selection, select
from pepperbus.operations.office import Office
from pepperbus.operations.purge import purge as purge_jobs
from pepperbus.operations.results import Paused, Purged

_Command = Callable[..., None]


@click.command()
@click.argument("name", metavar="QUEUE[/TOPIC]", shell_complete=completion.either)
@click.pass_context
def pause(ctx: click.Context, name: str) -> None:
    """Stop feeding a queue or topic, on every node that shares its storage. Pushes go on; what runs, runs to its end."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        show(ctx, pausing.pause(opened, name), _paused)


@click.command()
@click.argument("name", metavar="QUEUE[/TOPIC]", shell_complete=completion.either)
@click.pass_context
def resume(ctx: click.Context, name: str) -> None:
    """Feed a paused queue or topic again."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        show(ctx, pausing.resume(opened, name), _paused)


def _paused(done: Paused) -> None:
    for topic in done.topics:
        click.echo(f"{topic}: {'paused' if done.paused else 'resumed'}")


def selection_options(states: tuple[str, ...]) -> Callable[[_Command], _Command]:
    """What every command takes that acts on some of a topic's jobs."""
    options = [
        click.argument("topic", metavar="QUEUE/TOPIC", shell_complete=completion.topics),
        click.argument("ids", nargs=-1, metavar="[ID]..."),
        click.option("--state", type=click.Choice(states), default="dead", show_default=True),
        click.option("--error", default="", help="Only jobs whose reason contains this text."),
        click.option("--since", default="", help="Died (or accepted) since: 30m, 2h, 1d ago, a date, or unix seconds."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Only count the jobs that match."),
    ]

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command()
@selection_options(("dead", "delayed", "ready"))
@click.pass_context
def purge(
    ctx: click.Context,
    topic: str,
    ids: tuple[str, ...],
    state: str,
    error: str,
    since: str,
    yes: bool,
    dry_run: bool,
) -> None:
    """Delete jobs of QUEUE/TOPIC for good: those with the given IDs, or all in a state that match."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        selection = _selection(opened, topic, ids, state, error, since)
        plan = purge_jobs(opened, selection, dry_run=True)
        if dry_run or not plan.matched:
            show(ctx, plan, _purged)
            return
        confirm(f"Delete {plan.matched} {state} job(s) of {topic} for good?", yes)
        with bar("deleting", plan.matched) as advance:
            done = purge_jobs(opened, selection, progress=lambda purged: advance(purged.removed))
    show(ctx, done, _purged)
    if done.stopped:
        raise PepperbusError(f"stopped after {done.removed} of {done.matched}: {done.stopped}")


def _purged(done: Purged) -> None:
    if done.dry_run or not done.matched:
        click.echo(f"{done.matched} job(s) match; nothing was changed")
    else:
        click.echo(f"{done.removed} of {done.matched} job(s) deleted")


def _selection(opened: Office, topic: str, ids: tuple[str, ...], state: str, error: str, since: str) -> Selection:
    since_ms = epoch_ms(since, opened.clock.now_ms()) if since else 0
    return select(topic, ids, state, error, since_ms)


def share_of(text: str) -> float:
    """`5%` or `0.05`. Raises UsageError."""
    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no share: say 5% or 0.05") from error
    if not 0 < share <= 1:
        raise UsageError(f"{text!r}: a share is more than 0 and at most 100%")
    return share


def rate_of(text: str) -> float:
    """`100/s` or `100`. Raises UsageError."""
    try:
        rate = float(text.removesuffix("/s"))
    except ValueError as error:
        raise UsageError(f"{text!r} is no rate: say 100/s") from error
    if rate <= 0:
        raise UsageError(f"{text!r}: a rate is more than 0")
    return rate


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda completed: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda completed: progress.update(task, completed=completed)
