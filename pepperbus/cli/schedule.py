"""`pepperbus schedule list|show|add|set|rm|run|pause|resume`."""

from __future__ import annotations

from datetime import datetime

import click

from pepperbus.cli import words
from pepperbus.cli.queues import mistakes_are_ours, pairs, told
from pepperbus.cli.session import confirm, office, show
from pepperbus.config.timing import zone
from pepperbus.errors import UsageError
from pepperbus.operations import schedules
from pepperbus.operations.schedule_results import ScheduleRun, ScheduleStatus, ScheduleSteered

_NAME = click.argument("name", metavar="QUEUE/SCHEDULE")
_SETTINGS = click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")


@click.group(no_args_is_help=True)
def schedule() -> None:
    """Jobs that the bus pushes by itself at given times: the `[schedule]` of queue files."""


@schedule.command("list")
@click.pass_context
def list_(ctx: click.Context) -> None:
    """List every schedule: when it fires, when next, what became of the last firing."""
    with office(ctx) as opened:
        found = schedules.listing(opened)
    show(ctx, found, _list)


def _list(found: list[ScheduleStatus]) -> None:
    rows = [
        (one.name, one.words["en"], one.zone, _next(one), _last(one.runs[0]) if one.runs else one.error)
        for one in found
    ]
    words.table(("schedule", "fires", "zone", "next", "last"), rows)
    if not found:
        click.echo("no queue has a [schedule]")


@schedule.command("show")
@_NAME
@click.pass_context
def show_(ctx: click.Context, name: str) -> None:
    """Show a schedule: its next five times and its last runs with what became of their jobs."""
    with office(ctx) as opened:
        found = schedules.show(opened, name)
    show(ctx, found, _show)


def _show(one: ScheduleStatus) -> None:
    click.echo(f"{one.name}: {one.words['en']} ({one.expression}, {one.zone})")
    extra = [f"{one.times} jobs each time, {words.span(one.gap_s)} apart"] if one.times > 1 else []
    extra += [f"up to {words.span(one.jitter_s)} later"] if one.jitter_s else []
    click.echo("; ".join([*extra, f"catch_up = {one.catch_up}", f"overlap = {one.overlap}"]))
    if one.paused:
        click.echo(f"paused by {one.paused_by}: it pushes nothing until `pepperbus schedule resume {one.name}`")
    if one.late_s:
        click.echo(f"a firing is {words.span(one.late_s)} late: no node of the bus has looked at it")
    if one.error:
        click.echo(f"its storage does not answer: {one.error}")
    click.echo("next: " + (", ".join(_time(ms, one.zone) for ms in one.next_ms) or "never"))
    rows = [
        (_time(run.slot_ms, one.zone), run.what, run.count, run.outcome, " ".join(run.jobs[:3]), run.by)
        for run in one.runs
    ]
    words.table(("time", "what", "count", "jobs are", "jobs", "by"), rows)


@schedule.command()
@_NAME
@_SETTINGS
@click.pass_context
def add(ctx: click.Context, name: str, settings: tuple[str, ...]) -> None:
    """Add a schedule to its queue's file; the running bus takes it at once.

    \b
    pepperbus schedule add orders/nightly expression="30 3 * * 1-5" zone=Asia/Shanghai payload='{"what": "report"}'
    """
    with office(ctx) as opened, mistakes_are_ours():
        done = schedules.add(opened, name, pairs(settings))
    told(ctx, done)


@schedule.command("set")
@_NAME
@_SETTINGS
@click.option("--unset", multiple=True, metavar="KEY", help="Take this key out: its default holds again.")
@click.pass_context
def set_(ctx: click.Context, name: str, settings: tuple[str, ...], unset: tuple[str, ...]) -> None:
    """Change keys of a schedule."""
    if not settings and not unset:
        raise UsageError("nothing to set: KEY=VALUE or --unset KEY is wanted")
    with office(ctx) as opened, mistakes_are_ours():
        done = schedules.change(opened, name, pairs(settings), unset)
    told(ctx, done)


@schedule.command()
@_NAME
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def rm(ctx: click.Context, name: str, yes: bool) -> None:
    """Take a schedule out of its queue's file. What it has pushed stays."""
    with office(ctx) as opened, mistakes_are_ours():
        confirm(f"Remove the schedule {name}?", yes)
        done = schedules.remove(opened, name)
    told(ctx, done)


def _next(one: ScheduleStatus) -> str:
    if one.paused:
        return "paused"
    return _time(one.next_ms[0], one.zone) if one.next_ms else "never"


def _last(run: ScheduleRun) -> str:
    return f"{run.what} {words.when(run.at_ms)[:19]}" + (f", {run.outcome}" if run.outcome else "")


def _time(ms: int, name: str) -> str:
    """In the schedule's own zone."""
    return datetime.fromtimestamp(ms / 1000, zone(name)).strftime("%Y-%m-%d %H:%M:%S")


@schedule.command()
@_NAME
@click.pass_context
def run(ctx: click.Context, name: str) -> None:
    """Push its jobs now, through the gateway. Its own times stay as they are."""
    with office(ctx) as opened:
        done = schedules.run(opened, name)
    show(ctx, done, _steered)


@schedule.command()
@_NAME
@click.pass_context
def pause(ctx: click.Context, name: str) -> None:
    """Let it push nothing any more, on no node. What it misses meanwhile is not made up for."""
    with office(ctx) as opened:
        done = schedules.pause(opened, name)
    show(ctx, done, _steered)


@schedule.command()
@_NAME
@click.pass_context
def resume(ctx: click.Context, name: str) -> None:
    """Let it push again, from its next time on."""
    with office(ctx) as opened:
        done = schedules.resume(opened, name)
    show(ctx, done, _steered)


def _steered(done: ScheduleSteered) -> None:
    text = {"paused": "is paused", "resumed": "pushes again"}.get(done.what, f"pushed {', '.join(done.jobs)}")
    click.echo(f"{done.name} {text}")
