"""`pepperbus mark`: what was deployed when, on the charts."""

from __future__ import annotations

import time

import click

from pepperbus.cli import words
from pepperbus.cli.session import act_as_daemon, office, show
from pepperbus.operations import deploys

_SHOWN_MS = 31 * 86_400_000


@click.command()
@click.argument("text", metavar="[TEXT]", default="")
@click.option("--system", default="", help="Only on the charts of this system's queues.")
@click.pass_context
def mark(ctx: click.Context, text: str, system: str) -> None:
    """Set a mark TEXT on the charts, such as "shop 2.4 deployed"; without one, list those of the last month.

    The bus sets marks by itself when it starts, is upgraded, or takes other settings of a queue.
    """
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        if text:
            show(ctx, [deploys.mark(opened, text, system)], _table)
        else:
            show(ctx, deploys.marks(opened, int(time.time() * 1000) - _SHOWN_MS), _table)


def _table(found: list[deploys.DeployMark]) -> None:
    rows = [(words.when(m.at_ms), m.kind, m.system, m.text or ", ".join(m.queues), m.who) for m in found]
    words.table(("when", "what", "system", "text", "who"), rows)
    if not found:
        click.echo("no marks")
