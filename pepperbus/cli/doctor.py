"""`pepperbus doctor`: what will hurt, in words."""

from __future__ import annotations

import click

from pepperbus.cli import words
from pepperbus.cli.session import act_as_daemon, office, show
from pepperbus.operations.doctor import diagnose
from pepperbus.operations.findings import Diagnosis

_HARM = {
    "loss": "jobs may be lost",
    "stop": "jobs do not run",
    "slow": "jobs run late, twice or are refused",
    "open": "others see or do what they should not",
    "blind": "trouble will not be seen",
}


@click.command()
@click.pass_context
def doctor(ctx: click.Context) -> int:
    """Look at our settings, files, disks, kernel, Redis and php-fpm together and say what will hurt.

    Most harmful first, each with the line to change; nothing is changed. Exit status: 0 nothing, 1 something hurts.
    """
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        return answer(ctx, diagnose(opened))


def answer(ctx: click.Context, told: Diagnosis) -> int:
    """Show a diagnosis; the exit status."""
    show(ctx, told, _in_words)
    return 1 if told.findings else 0


def _in_words(told: Diagnosis) -> None:
    harm = ""
    for finding in told.findings:
        if finding.harm != harm:
            harm = finding.harm
            click.echo(click.style(f"{_HARM[harm]}:", bold=True))
        click.echo(f"  {words.printable(finding.what)}")
        click.echo(f"      change: {words.printable(finding.change)}")
    if not told.findings:
        click.echo("nothing found that will hurt")
    for line in told.unknown:
        click.echo(f"not looked at: {words.printable(line)}")
