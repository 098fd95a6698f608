"""`pepperbus top`: the status, live, until q or Ctrl-C."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pepperbus.cli import words
from pepperbus.cli.session import act_as_daemon, office
from pepperbus.errors import UsageError
from pepperbus.operations.results import Status
from pepperbus.operations.status import StatusReader

_PROBLEMS = 5


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Look again that often."
)
@click.pass_context
def top(ctx: click.Context, seconds: float) -> None:
    """Show the status live: topics sorted by backlog, rates, percentiles, processes. Ends on q or Ctrl-C."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal; `pepperbus --json status` gives the same figures to a program")
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        reader = StatusReader(opened)
        with _ending() as ending, _keys(), Live(view(reader.read()), screen=True, auto_refresh=False) as live:
            while not _quits(seconds, ending):
                live.update(view(reader.read()), refresh=True)
            got = _signals(ending)
        if signal.SIGTERM in got:
            sys.exit(128 + signal.SIGTERM)


@contextmanager
def _ending() -> Iterator[int]:
    """A descriptor that becomes readable on SIGINT or SIGTERM.

    Nothing is raised from the handlers: an exception out of the middle of a wait leaves that wait's timer behind, and it
    would fire while the storage is being closed.
    """
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda got, frame: _note(writable, got)) for number in numbers]
    try:
        yield readable
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        os.close(writable)
        os.close(readable)


def _signals(ending: int) -> bytes:
    """The numbers of the signals that came."""
    try:
        return os.read(ending, 64)
    except BlockingIOError:
        return b""


def _note(writable: int, number: int) -> None:
    with suppress(BlockingIOError):  # a pipe full of signals has said enough
        os.write(writable, bytes([number]))


@contextmanager
def _keys() -> Iterator[None]:
    """Single keys without Enter, and the terminal as it was after."""
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _quits(seconds: float, ending: int) -> bool:
    """Wait that long for a key or a signal; whether it was q or any signal."""
    ready, _, _ = select.select([sys.stdin, ending], [], [], seconds)
    return ending in ready or (bool(ready) and sys.stdin.read(1) in ("q", "Q", ""))


def view(status: Status) -> Group:
    """One screen."""
    problems = [Text(f"! {words.short(line, 200)}", "red") for line in status.problems[:_PROBLEMS]]
    topics = _table(
        "topic", "state", "ready", "delayed", "leased", "dead", "in/s", "out/s", "wait p50/p99", "run p50/p99"
    )
    every = [*(topic for queue in status.queues for topic in queue.topics), *status.detached]
    for t in sorted(every, key=lambda t: (-t.ready - t.delayed, t.name)):
        counts = [str(n) for n in (t.ready, t.delayed, t.leased, t.dead)]
        rates = [f"{t.in_rate:.1f}", f"{t.out_rate:.1f}"]
        shown = "no answer" if t.error else t.state
        topics.add_row(*map(Text, (t.name, shown, *counts, *rates, words.pair(t.wait), words.pair(t.run_time))))
    processes = _table("process", "state", "pid", "up", "memory", "cpu")
    for p in status.processes:
        facts = (str(p["pid"] or ""), words.span(p["uptime"]), words.size(p["rss"]), f"{p['cpu']:.0f}%")
        processes.add_row(*map(Text, (p["name"], p["state"], *facts)))
    return Group(Text(f"{status.node}   q quits", "bold"), *problems, topics, processes)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
    return table
