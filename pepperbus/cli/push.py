"""`pepperbus push`."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pepperbus.cli import completion
from pepperbus.cli.session import office, show
from pepperbus.errors import PepperbusError, UsageError
from pepperbus.operations.push import Progress
from pepperbus.operations.push import push as push_jobs
from pepperbus.operations.results import Pushed


@click.command()
@click.argument("queue", shell_complete=completion.queues)
@click.argument("values", nargs=-1)
@click.option("-f", "--file", "files", multiple=True, type=click.Path(), help="A file with one job a line; - is stdin.")
@click.option("--whole", is_flag=True, help="A file (or stdin) is one job, not one a line.")
@click.option("--front", is_flag=True, help="Ahead of all waiting jobs.")
@click.option("--delay", type=click.FloatRange(min=0, min_open=True), help="Not before that many seconds from now.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="Push all of it that often.")
@click.pass_context
def push(
    ctx: click.Context,
    queue: str,
    values: tuple[str, ...],
    files: tuple[str, ...],
    whole: bool,
    front: bool,
    delay: float | None,
    count: int,
) -> None:
    """Push jobs to QUEUE through the gateway, with the queue's own login.

    Each VALUE is one job. `-`, or no VALUE at all, reads standard input, a line a job. A single VALUE that names an
    existing file is that file, a line a job; `--file` says so outright.
    """
    if front and delay:
        raise UsageError("--front and --delay exclude each other")
    due_ms = int((time.time() + delay) * 1000) if delay else 0
    with office(ctx) as opened, _progress() as progress:
        contents = _contents(values, files, whole, count)
        pushed = push_jobs(opened, queue, contents, front=front, due_ms=due_ms, progress=progress)
    show(ctx, pushed, _text)
    if pushed.error:
        raise PepperbusError(pushed.error)
    if pushed.interrupted:
        raise click.Abort


def _contents(values: tuple[str, ...], files: tuple[str, ...], whole: bool, count: int) -> Iterable[bytes | None]:
    if not files and values in ((), ("-",)):
        values, files = (), ("-",)
    elif not files and len(values) == 1 and Path(values[0]).is_file():
        values, files = (), values
    if count > 1 and "-" in files:
        raise UsageError("--count needs values or a file: standard input can be read only once")
    for path in files:
        if path != "-" and not Path(path).is_file():
            raise UsageError(f"{path}: no such file")
    return _read(values, files, whole, count)


def _read(values: tuple[str, ...], files: tuple[str, ...], whole: bool, count: int) -> Iterator[bytes | None]:
    for _ in range(count):
        for value in values:
            yield value.encode(errors="surrogateescape")
        for path in files:
            if path == "-":
                yield from [sys.stdin.buffer.read()] if whole else _stdin_lines()
                continue
            with open(path, "rb") as file:
                if whole:
                    yield file.read()
                else:
                    yield from (line.rstrip(b"\r\n") for line in file)


def _stdin_lines() -> Iterator[bytes | None]:
    """Lines as they come; None whenever the writer takes its time, so that no line waits for the next ones."""
    fd, rest = sys.stdin.fileno(), b""
    while piece := os.read(fd, 1 << 16):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.rstrip(b"\r") for line in lines)
        if not select.select([fd], [], [], 0)[0]:
            yield None
    if rest:
        yield rest


@contextmanager
def _progress() -> Iterator[Progress]:
    """A line that counts and tells the rate, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda pushed: None
        return
    from rich.console import Console
    from rich.live import Live

    started = time.monotonic()
    with Live(console=Console(stderr=True), refresh_per_second=8, transient=True) as live:

        def progress(pushed: Pushed) -> None:
            rate = pushed.accepted / max(time.monotonic() - started, 1e-6)
            live.update(f"{pushed.accepted:,} accepted, {rate:,.0f}/s")

        yield progress


def _text(pushed: Pushed) -> None:
    if len(pushed.ids) == pushed.accepted <= 10:
        for job_id in pushed.ids:
            click.echo(job_id)
        return
    line = (
        f"{pushed.accepted} accepted in {pushed.seconds:.2f} s ({pushed.accepted / max(pushed.seconds, 1e-6):,.0f}/s)"
    )
    if pushed.ids:
        line += f", first {pushed.ids[0]}"
    if pushed.refused or pushed.unknown:
        line += f"; {pushed.refused} refused, {pushed.unknown} unknown (may be stored)"
    click.echo(line)
