"""`pepperbus replay` and `pepperbus replays`: jobs run once more, planned here, carried out by the bus."""

from __future__ import annotations

import time
from typing import Any

import click

from pepperbus.cli import completion, words
from pepperbus.cli.jobs import bar, rate_of, selection_options, share_of
from pepperbus.cli.session import act_as_daemon, confirm, epoch_ms, office, show
from pepperbus.errors import NotReachable, PepperbusError
from pepperbus.operations import replays as operation
from pepperbus.operations.office import Office
from pepperbus.operations.replays import ReplayView

_LOOK_S = 0.2
_AT_WORK = ("planning", "gray", "running")
_FATES_S = 10.0  # with --stop-at-errors the last outcomes are part of the answer


@click.command()
@selection_options(("dead", "delayed", "done"))
@click.option("--text", default="", help="Only jobs whose content contains this text.")
@click.option("--sample", default="100%", show_default=True, help="Only this share of them, chosen by chance (5%).")
@click.option("--gray", default="", help="This share (5%) or so many (20) first; then it waits for `replays go`.")
@click.option("--canary", is_flag=True, help="Those of --gray go to the topic's second consumer.")
@click.option("--rate", default="", help="At most so many a second (100 or 100/s).")
@click.option("--stop-at-errors", default="", help="Stop when this share of them fails again (10%).")
@click.option("--plan", "only_plan", is_flag=True, help="Keep it as a plan; `replays go` begins it.")
@click.option("--detach", is_flag=True, help="Do not wait for it.")
@click.pass_context
def replay(ctx: click.Context, topic: str, ids: tuple[str, ...], yes: bool, dry_run: bool, **words: Any) -> None:
    """Run dead (or delayed, or finished) jobs of QUEUE/TOPIC once more, with a fresh budget of attempts.

    Those with the given IDs, or all that match now: what fails later is not part of it. Finished jobs too (--state done),
    where the queue keeps a `history`. The bus carries it out; here one
    watches. Ctrl-C pauses it (`pepperbus replays resume N` goes on).
    """
    sample = share_of(words["sample"])
    stop = share_of(words["stop_at_errors"]) if words["stop_at_errors"] else 0.0
    rate = rate_of(words["rate"]) if words["rate"] else 0.0
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        since_ms = epoch_ms(words["since"], opened.clock.now_ms()) if words["since"] else 0
        wish = operation.wish(topic, ids, words["state"], words["error"], since_ms, words["text"])

        def plan(dry_run: bool = False) -> ReplayView:
            return operation.plan(
                opened,
                wish,
                sample=sample,
                gray=words["gray"],
                canary=words["canary"],
                rate=rate,
                stop_at_errors=stop,
                dry_run=dry_run,
            )

        first = plan(dry_run=True)
        if dry_run or not (first.jobs or first.more):
            show(ctx, first, _planned)
            return
        least = "at least " if first.more else ""
        confirm(f"Replay {least}{first.jobs} {first.source} job(s) of {topic}?", yes)
        made = plan()
        if not words["only_plan"]:
            made = operation.steer(opened, made.id, "go")
            if not words["detach"]:
                made = _watch(opened, made.id)
    show(ctx, made, _one)
    _judge(made)


@click.group()
def replays() -> None:
    """Replays that were planned: look at them, let them go on, pause or cancel them."""


@replays.command("list")
@click.argument("topic", metavar="[QUEUE/TOPIC]", default="", shell_complete=completion.topics)
@click.pass_context
def replays_list(ctx: click.Context, topic: str) -> None:
    """The newest first."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)  # also who only reads a database leaves files beside it
        show(ctx, operation.listing(opened, topic), _list)


@replays.command("show")
@click.argument("number", type=int, metavar="N")
@click.pass_context
def replays_show(ctx: click.Context, number: int) -> None:
    """How far it came, how its jobs fared, and who did what."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        show(ctx, operation.show(opened, number), _whole)


def _steering(what: str, help: str) -> None:
    @replays.command(what, help=help)
    @click.argument("number", type=int, metavar="N")
    @click.option("--wait", is_flag=True, help="Watch it until it ends or waits. Ctrl-C pauses it.")
    @click.pass_context
    def steered(ctx: click.Context, number: int, wait: bool) -> None:
        with office(ctx) as opened:
            act_as_daemon(opened.config.bus)
            made = operation.steer(opened, number, what)
            if wait:
                made = _watch(opened, number)
        show(ctx, made, _one)
        if wait:
            _judge(made)


_steering("go", "Begin a planned replay, or run the rest after a look at its first share.")
_steering("pause", "Move no more jobs until `resume`; those that were replayed run on.")
_steering("resume", "Go on with a paused or stopped replay; errors are counted anew.")
_steering("cancel", "End it for good; jobs that were not replayed stay as they are.")


def _watch(opened: Office, number: int) -> ReplayView:
    """Until it ends or waits for somebody. Ctrl-C pauses it."""
    try:
        opened.ask({"op": "status"})
    except NotReachable as error:
        raise NotReachable(
            f"replay {number} is noted, but the bus does not run: it goes on when the bus does"
        ) from error
    seen = operation.show(opened, number)
    until = time.monotonic() + _FATES_S
    try:
        with bar(f"replay {number}", seen.jobs) as advance:
            while seen.state in _AT_WORK or _wants_fates(seen, until):
                if seen.state in _AT_WORK:
                    until = time.monotonic() + _FATES_S
                time.sleep(_LOOK_S)
                seen = operation.show(opened, number)
                advance(seen.replayed + seen.gone)
    except KeyboardInterrupt:
        if "pause" in operation.show(opened, number).can:  # one that is being planned goes on; `replays cancel` ends it
            return operation.steer(opened, number, "pause")
    return operation.show(opened, number)


def _wants_fates(seen: ReplayView, until: float) -> bool:
    return bool(seen.stop_at_errors and seen.unknown) and time.monotonic() < until


def _judge(made: ReplayView) -> None:
    if made.state == "stopped":
        raise PepperbusError(f"replay {made.id} stopped after {made.replayed} of {made.jobs}: {made.why}")


def _planned(made: ReplayView) -> None:
    first = f", {made.gray} of them first" if made.gray else ""
    took = f"; about {made.estimate_s:.0f} s" if made.estimate_s >= 1 else ""
    sample = f", {made.jobs} of them chosen" if made.jobs < made.matched else ""
    least = "at least " if made.more else ""
    click.echo(f"{least}{made.matched} job(s) match{sample}{first}{took}; nothing was changed")


def _one(made: ReplayView) -> None:
    why = f" ({words.printable(made.why)})" if made.why else ""
    click.echo(f"replay {made.id} of {made.topic}: {made.state}{why}; {_figures(made)}")
    if made.state == "waiting-for-decision":
        click.echo(f"look at it, then: pepperbus replays go {made.id} (or cancel)")
    elif made.state == "paused":
        click.echo(f"to go on: pepperbus replays resume {made.id}")


def _figures(made: ReplayView) -> str:
    if made.state == "planning":
        return f"{made.matched} job(s) found so far"
    parts = [f"{made.replayed} of {made.jobs} job(s) replayed"]
    names = ("succeeded", "failing", "failed", "removed", "gone")
    parts += [f"{getattr(made, name)} {name}" for name in names if getattr(made, name)]
    return ", ".join(parts)


def _list(found: list[ReplayView]) -> None:
    if not found:
        click.echo("no replays")
    for one in found:
        click.echo(f"{one.id:>5}  {one.state:<20}  {one.topic:<30}  {_figures(one)}  (by {one.by})")


def _whole(made: ReplayView) -> None:
    _one(made)
    chosen = words.printable(", ".join(f"{name} {word}" for name, word in made.words.items()))
    click.echo(f"jobs: {made.source}{f', {chosen}' if chosen else ''}; matched {made.matched}; planned by {made.by}")
    for deed in made.deeds:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(deed.at_ms / 1000))
        click.echo(
            f"  {at}  {deed.who or 'the bus'}: {deed.what}{f' ({words.printable(deed.why)})' if deed.why else ''}"
        )
