"""`pepperbus ping`, `send`: straight to a consumer."""

from __future__ import annotations

import sys

import click

from pepperbus.cli import completion, words
from pepperbus.cli.session import act_as_daemon, office, show
from pepperbus.operations import consumer
from pepperbus.operations.results import Pinged, Sent

_node = click.option("--node", default="", help="From this node, which shares the topic's storage; here if not given.")


@click.command()
@click.argument("topic", metavar="QUEUE/TOPIC", shell_complete=completion.topics)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, help="Seconds."
)
@_node
@click.pass_context
def ping(ctx: click.Context, topic: str, timeout: float, node: str) -> int:
    """Ask the consumer of QUEUE/TOPIC whether it is there and would take its jobs. Exit status 1: it would not."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        pinged = consumer.ping(opened, topic, timeout, node)
    show(ctx, pinged, _pinged)
    return 0 if pinged.registered else 1


def _pinged(pinged: Pinged) -> None:
    click.echo(f"{pinged.topic}: {'registered' if pinged.registered else 'NOT registered'} at {pinged.address}")
    if pinged.reason:
        click.echo(f"  {words.printable(pinged.reason)}")
    _answer(pinged)


@click.command()
@click.argument("topic", metavar="QUEUE/TOPIC", shell_complete=completion.topics)
@click.argument("value", default="-")
@click.option(
    "--attempt", type=click.IntRange(min=1), default=1, show_default=True, help="The attempt number to show it."
)
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=0.0, help="Seconds; the topic's own timeout if not given."
)
@_node
@click.pass_context
def send(ctx: click.Context, topic: str, value: str, attempt: int, timeout: float, node: str) -> int:
    """Send VALUE (or standard input) as one job straight to the consumer of QUEUE/TOPIC and show its answer.

    The consumer really runs it. Nothing is stored, counted or retried. Exit status 1: it was not done.
    """
    content = sys.stdin.buffer.read() if value == "-" else value.encode(errors="surrogateescape")
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        sent = consumer.send(opened, topic, content, attempt=attempt, timeout=timeout, node=node)
    show(ctx, sent, _sent)
    return 0 if sent.act == "done" else 1


def _sent(sent: Sent) -> None:
    code = f", code {sent.code}" if sent.code else ""
    click.echo(f"{sent.topic}: {sent.act}{code} from {sent.address}")
    if sent.reason:
        click.echo(f"  {words.printable(sent.reason)}")
    _answer(sent)


def _answer(got: Pinged | Sent) -> None:
    click.echo(f"  {got.transport}, HTTP status {got.status or '-'}, {words.span(got.total_ms / 1000)}")
    for name, value in got.headers.items():
        click.echo(f"  {name}: {words.printable(value)}")
    for title, text in (("body", got.body), ("stderr", got.stderr)):
        for i, line in enumerate(text.strip().splitlines()):
            click.echo(f"  {title + ':' if not i else '':7} {words.printable(line)}")
