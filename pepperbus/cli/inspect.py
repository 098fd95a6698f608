"""`pepperbus status`, `job`, `jobs`, `tail`: looking, without touching anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import click
import gevent

from pepperbus.cli import completion, words
from pepperbus.cli.session import act_as_daemon, epoch_ms, office, show, wants_json
from pepperbus.errors import NotReachable, UsageError
from pepperbus.job import State
from pepperbus.journal.failures import uncounted
from pepperbus.operations import alarms
from pepperbus.operations import jobs as listing
from pepperbus.operations import life as lives
from pepperbus.operations import tail as tails
from pepperbus.operations.office import Office
from pepperbus.operations.results import Event, JobPage, Status, TopicStatus, to_json
from pepperbus.operations.status import StatusReader


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(0, 60), default=1.0, show_default=True, help="Measure rates that long."
)
@click.pass_context
def status(ctx: click.Context, seconds: float) -> int:
    """Show how the node is: what is wrong first, then queues, processes and storages.

    Exit status: 0 all is well, 1 something is wrong, 3 the bus does not run (storages are shown all the same).
    """
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        reader = StatusReader(opened)
        found = reader.read()
        if seconds:
            time.sleep(seconds)
            found = reader.read()
        open_alarms = alarms.count(opened).total()
    show(ctx, found, _status)
    if open_alarms and not wants_json(ctx):
        click.echo(f"alarms that go on: {open_alarms} (`pepperbus alarm list`)")
    return 3 if not found.running else 1 if found.problems else 0


def _status(status: Status) -> None:
    for problem in status.problems:
        click.echo(click.style("! ", fg="red") + words.printable(problem))
    closed = {topic.name: queue.closed or topic.closed for queue in status.queues for topic in queue.topics}
    head = ("topic", "state", "ready", "delayed", "leased", "dead", "in/s", "out/s", "wait p50/p99", "run p50/p99")
    rows = [
        (
            t.name, _state(t, closed), t.ready, t.delayed, t.leased, t.dead, f"{t.in_rate:.1f}",
            f"{t.out_rate:.1f}", words.pair(t.wait), words.pair(t.run_time),
        )
        for t in [*(topic for queue in status.queues for topic in queue.topics), *status.detached]
    ]  # fmt: skip
    words.table(head, rows)
    if any(queue.intakes for queue in status.queues):
        intakes = [
            (
                f"{queue.name}/{one.name}",
                one.key,
                one.waiting,
                one.moved,
                f"{one.rate:.1f}",
                one.error or _taker(one.holder),
            )
            for queue in status.queues
            for one in queue.intakes
        ]
        words.table(("intake", "list", "waiting", "moved", "per s", ""), intakes)
    _commands(status)
    words.table(
        ("process", "state", "pid", "up", "restarts", "memory", "cpu", ""),
        [
            (
                p["name"], p["state"], p["pid"] or "", words.span(p["uptime"]), p.get("restarts", ""),
                words.size(p["rss"]), f"{p['cpu']:.0f}%", words.short(p.get("reason", ""), 60),
            )
            for p in status.processes
        ],
    )  # fmt: skip
    words.table(
        ("storage", "type", "alive", "durability", "version", "used", ""),
        [
            (s.name, s.type, "yes" if s.alive else "NO", s.durability, s.version, words.size(s.used), s.detail)
            for s in status.storages
        ],
    )
    if status.nodes:
        nodes = [
            (n.name, "yes" if n.alive else "NO", words.span(n.silent_s), ", ".join(n.storages)) for n in status.nodes
        ]
        words.table(("other node", "alive", "last sign", "storages"), nodes)


def _state(topic: TopicStatus, closed: Mapping[str, str]) -> str:
    """In a word, and whether it gets no new jobs any more."""
    told = {"yes": ", closed", "remove": ", closing"}
    return ("no answer" if topic.error else topic.state) + told.get(closed.get(topic.name, ""), "")


def _commands(status: Status) -> None:
    """The processes of run = command, and where ranges stand."""
    topics = [topic for queue in status.queues for topic in queue.topics]
    rows = [
        (
            topic.name, one["pid"], one["state"], words.span(one["uptime_s"]), one["tasks"], words.size(one["memory"]),
            words.short(one["why"] or one["said"], 60),
        )
        for topic in topics
        for staff in topic.staff
        for one in staff["processes"]
    ]  # fmt: skip
    if any(topic.staff for topic in topics):
        words.table(("command of", "pid", "state", "up", "jobs", "memory", ""), rows)
    ranges = [(queue.name, "workers", queue.standing) for queue in status.queues if queue.standing]
    ranges += [
        (topic.name, "children" if topic.run == "command" else "concurrency", topic.standing)
        for topic in topics
        if topic.standing
    ]
    if ranges:
        words.table(("range of", "", "stands at"), ranges)


def _taker(holder: str) -> str:
    return f"taken by {holder}" if holder else ""


@click.command()
@click.argument("job_id", metavar="ID")
@click.pass_context
def job(ctx: click.Context, job_id: str) -> None:
    """Show the whole life of the job ID: who pushed it when, where it waited, every attempt, what became of it."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        found = lives.life(opened, job_id)
    show(ctx, found, words.life)


@click.command()
@click.argument("topic", metavar="QUEUE/TOPIC", shell_complete=completion.topics)
@click.option("--state", type=click.Choice([str(s) for s in State]), default="dead", show_default=True)
@click.option("--error", default="", help="Only jobs whose reason contains this text (dead jobs have one).")
@click.option("--since", default="", help="Died (or accepted) since: 30m, 2h, 1d ago, a date, or unix seconds.")
@click.option("-n", "--number", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Jobs a page.")
@click.option("--cursor", default="", help="Where the page before ended (it says so).")
@click.pass_context
def jobs(ctx: click.Context, topic: str, state: str, error: str, since: str, number: int, cursor: str) -> None:
    """List the jobs of QUEUE/TOPIC in one state, next in line first (dead: newest first)."""
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        since_ms = epoch_ms(since, opened.clock.now_ms()) if since else 0
        if "/" not in topic:
            opened.topic(topic)  # says which topics there are; a detached one has its slash
        page = listing.jobs(opened, listing.select(topic, (), state, error, since_ms), cursor, number)
    show(ctx, page, _jobs)


def _jobs(page: JobPage) -> None:
    rows = [
        (
            j.id,
            words.when(j.accepted_ms),
            j.attempts,
            words.when(j.dead_ms or j.due_ms),
            words.short(uncounted(j.reason), 90),
            words.short(j.content, 40),
        )
        for j in page.jobs
    ]
    words.table(("id", "accepted", "attempts", "dead/due", "reason", "content"), rows)
    if not page.jobs:
        click.echo(f"no job matches (of {page.looked_at} looked at)")
    if page.cursor:
        click.echo(f"more: --cursor {page.cursor}", err=True)


@click.command()
@click.argument("name", metavar="[QUEUE[/TOPIC]]", default="", shell_complete=completion.either)
@click.option("--failed", is_flag=True, help="Only attempts that did not succeed.")
@click.option("--since", default="", help="First what happened since then (30m, 2h, a date), from the journal.")
@click.option("--no-follow", is_flag=True, help="With --since: end there.")
@click.pass_context
def tail(ctx: click.Context, name: str, failed: bool, since: str, no_follow: bool) -> None:
    """Show every attempt as it happens, one line each, until Ctrl-C. With --json one object a line."""
    if no_follow and not since:
        raise UsageError("--no-follow needs --since")
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        topics = [topic.full_name for topic in opened.named(name)] if name else [""]
        line = _json_line if wants_json(ctx) else _line
        if since:
            since_ms = epoch_ms(since, opened.clock.now_ms())
            pages = [tails.history(opened, topic=topic, since_ms=since_ms, limit=10_000) for topic in topics]
            for event in sorted((e for page in pages for e in page.events), key=lambda e: e.at_ms):
                if not failed or event.outcome in ("retry", "dead") or event.event == "released":
                    line(event)
        if not no_follow:
            _follow(opened, name, failed, line)


def _follow(opened: Office, name: str, failed: bool, line: Callable[[Any], None]) -> None:
    """Until Ctrl-C, which is the way to end it: gevent's loop would print it like an accident."""
    hub = gevent.get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)
    try:
        try:
            opened.ask({"op": "status"})
        except NotReachable as error:
            click.echo(f"{error}; waiting for it", err=True)
        for event in tails.tail(opened, name, failed):
            line(event)
    except KeyboardInterrupt:
        pass


def _json_line(event: Any) -> None:
    click.echo(to_json(event))


def _line(event: Event) -> None:
    click.echo(f"{words.when(event.at_ms)} {event.topic} {event.id} {words.event(event)}")
