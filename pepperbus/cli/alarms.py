"""`pepperbus alarm`: what is wrong and was, silences, a test of the channels."""

from __future__ import annotations

import click

from pepperbus.cli import completion, words
from pepperbus.cli.session import act_as_daemon, office, show
from pepperbus.config.values import duration
from pepperbus.errors import PepperbusError, UsageError
from pepperbus.operations import alarms
from pepperbus.operations.alarms import Alarm, AlarmPage, AlarmState, SilenceInfo, Tested


@click.group()
def alarm() -> None:
    """What is wrong now, what was, and who is told.

    [alarms] of the node's file says what counts as wrong and who is told; see docs/ALARMS.md.
    """


@alarm.command("list")
@click.option("--rules", is_flag=True, help="Show the rules in force and the channels instead.")
@click.pass_context
def list_alarms(ctx: click.Context, rules: bool) -> None:
    """What is wrong now, and which silences are in force."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        show(ctx, alarms.state(opened), _set if rules else _now)


@alarm.command("history")
@click.argument("subject", required=False, default="", shell_complete=completion.either)
@click.option("--rule", default="", help="Only this rule, such as backlog or dead.")
@click.option("-n", "limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.pass_context
def show_history(ctx: click.Context, subject: str, rule: str, limit: int) -> None:
    """What was wrong, newest first; of a queue or topic SUBJECT only, if given."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        show(ctx, alarms.history(opened, subject, rule, limit=limit), _past)


@alarm.command("silence")
@click.argument("subject", required=False, default="", shell_complete=completion.either)
@click.option("--rule", default="", help="Only this rule. Without it: all of them.")
@click.option("--for", "time", default="1h", show_default=True, help="For how long: 30m, 2h, 1d.")
@click.option("--why", default="", help="So that others need not wonder.")
@click.option("--end", type=int, metavar="ID", help="End the silence of this number instead.")
@click.pass_context
def add_silence(ctx: click.Context, subject: str, rule: str, time: str, why: str, end: int | None) -> None:
    """Tell nobody of alarms at SUBJECT (a queue, topic, storage or node) for a time; without SUBJECT: of none at all."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        if end is not None:
            show(ctx, alarms.unsilence(opened, end), lambda done: click.echo(f"silence {done.id} is over"))
            return
        try:
            seconds = duration(time)
        except ValueError as error:
            raise UsageError(f"--for: {error}") from error
        show(ctx, alarms.silence(opened, subject, rule, seconds, why), lambda done: _silences([done]))


@alarm.command("test")
@click.argument("channel", required=False, default="")
@click.pass_context
def send_test(ctx: click.Context, channel: str) -> None:
    """Let the running bus send a test to CHANNEL, or to all. Exit status 1: one was not taken."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        tested = alarms.send_test(opened, channel)
        show(ctx, tested, _tested)
        if any(tested.channels.values()):
            raise PepperbusError("not every channel took it")


def _now(found: AlarmState) -> None:
    if not found.open:
        click.echo("nothing is wrong")
    else:
        _alarms(found.open)
    if found.silences:
        click.echo("\nsilences")
        _silences(found.silences)


def _alarms(found: list[Alarm]) -> None:
    rows = []
    for one in found:
        mark = "silenced" if one.silenced else "over" if one.ended_ms else "" if one.told_ms else "not told yet"
        ended = words.when(one.ended_ms) if one.ended_ms else ""
        rows.append((words.when(one.began_ms), ended, one.rule, words.printable(one.text), mark, one.node))
    words.table(("since", "until", "rule", "what", "", "node"), rows)


def _past(found: AlarmPage) -> None:
    _alarms(found.alarms)


def _silences(found: list[SilenceInfo]) -> None:
    rows = [
        (one.id, one.subject or "everything", one.rule or "every rule", words.when(one.until_ms), one.who, one.why)
        for one in found
    ]
    words.table(("id", "subject", "rule", "until", "who", "why"), rows)


def _set(found: AlarmState) -> None:
    rows = []
    for rule in found.rules:
        rows += [(rule.name, where, text) for where, text in (("everywhere", rule.text), *rule.others.items())]
    words.table(("rule", "where", "begins, ends"), rows)
    click.echo()
    table = [
        (one.name, one.type, one.where, ", ".join(one.systems) or "all", ", ".join(one.rules) or "all", one.error)
        for one in found.channels
    ]
    words.table(("channel", "type", "where", "systems", "rules", "last error"), table)


def _tested(tested: Tested) -> None:
    for channel, error in tested.channels.items():
        click.echo(f"{channel}: {words.printable(error) or 'taken'}")
