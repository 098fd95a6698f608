"""`pepperbus find`: jobs by whatever one knows of them."""

from __future__ import annotations

import click

from pepperbus.cli import completion, words
from pepperbus.cli.session import act_as_daemon, epoch_ms, office, show
from pepperbus.errors import UsageError
from pepperbus.journal.failures import uncounted
from pepperbus.operations import find as finding
from pepperbus.operations import tail
from pepperbus.operations.results import EventPage

_OUTCOMES = ("done", "retry", "dead", "back", "popped", "released", "replayed", "removed")


@click.command()
@click.argument("word", metavar="[WORD]", default="")
@click.option(
    "--topic", default="", metavar="QUEUE/TOPIC", help="Only of this topic.", shell_complete=completion.topics
)
@click.option("--outcome", type=click.Choice(_OUTCOMES), default=None, help="Only what ended so.")
@click.option("--since", default="", help="Only since: 30m, 2h, 1d ago, a date, or unix seconds.")
@click.option("--error", default="", help="Only failures whose reason or error code contains this text.")
@click.option("--text", default="", help="Only jobs whose kept content contains this text.")
@click.option("--trace", default="", help="Only this trace id, of a push or of an attempt.")
@click.option("--field", default="", metavar="PATH=VALUE", help="Only jobs with this field, which their queue indexes.")
@click.option("-n", "--number", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.pass_context
def find(ctx: click.Context, word: str, outcome: str | None, since: str, number: int, **more: str) -> None:
    """Find jobs by WORD: an id, a trace id, order_id=123, any text inside them or of their error; or by options.

    Newest first. Looks for about two seconds at most and says when that was not enough.
    """
    if bool(word) == bool(outcome or since or any(more.values())):
        raise UsageError("a WORD or options are wanted, one of the two")
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        if word:
            page: EventPage = finding.find(opened, word, number)
        else:
            since_ms = epoch_ms(since, opened.clock.now_ms()) if since else 0
            page = tail.history(opened, outcome=outcome or "", since_ms=since_ms, limit=number, **more)
    show(ctx, page, _page)


def _page(page: EventPage) -> None:
    rows = [
        (
            words.when(e.at_ms), e.id, e.topic, e.outcome or e.event, e.attempt or "",
            words.short(uncounted(e.reason) or e.content, 90),
        )
        for e in page.events
    ]  # fmt: skip
    words.table(("when", "id", "topic", "what", "attempt", "reason or content"), rows)
    if not page.events:
        click.echo("nothing matches")
    if not page.complete:
        back = f" and had come back to {words.when(page.reached_ms)}" if page.reached_ms else ""
        click.echo(f"the look stopped when its time was over{back}; narrow it down for more", err=True)
