"""Results in words: tables, times, durations, the life of a job. Text only; nothing is looked up here."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from pepperbus.operations.results import Event, Life, Percentiles, TopicLife


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they need; numbers to the right. Nothing is printed when there are no rows.

    Nor anything a terminal would obey: much of it was written by consumers, producers and people on the web pages.
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if not cells:
        return
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    right = [all(_is_number(row[i]) for row in cells) for i in range(len(head))]
    click.echo(click.style(_row(head, widths, right), bold=True))
    for row in cells:
        click.echo(_row(row, widths, right))
    click.echo()


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    return "  ".join(
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    ).rstrip()


def _is_number(text: str) -> bool:
    return not text or text.replace(".", "", 1).isdigit()


def when(ms: int) -> str:
    """A wall time to the millisecond, local; "" for none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000)) + f".{ms % 1000:03d}" if ms else ""


def span(seconds: float) -> str:
    """A duration in the unit that fits: 12 µs, 3.4 ms, 5.6 s, 12 min, 3.1 h, 2.5 d."""
    for limit, factor, unit in (
        (1e-3, 1e6, "µs"),
        (1.0, 1e3, "ms"),
        (120.0, 1.0, "s"),
        (7200.0, 1 / 60, "min"),
        (172800.0, 1 / 3600, "h"),
    ):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds / 86400:.3g} d"


def pair(percentiles: Percentiles) -> str:
    return f"{span(percentiles.p50_s)} / {span(percentiles.p99_s)}" if percentiles.count else "-"


def size(n: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.3g} {unit}"
        n /= 1024  # type: ignore[assignment]
    return f"{n:.3g} TiB"


def short(text: str, length: int) -> str:
    """One line of at most `length` characters, nothing that a terminal would obey."""
    line = printable(text)
    return line if len(line) <= length else line[: length - 1] + "…"


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def event(event: Event) -> str:
    """A journal row in one line, without its time, topic and id."""
    words = [event.event] if event.event != "attempt" else [f"attempt {event.attempt}"]
    if event.outcome:
        words.append(event.outcome)
    if event.event == "attempt":
        words.append(f"waited {span(event.wait_ms / 1000)}, ran {span(event.run_ms / 1000)}")
    if event.code:
        words.append(f"code {event.code}" + (f" {event.error_code}" if event.error_code else ""))
    if event.reason:
        words.append("- " + event.reason)
    return printable(" ".join(words))


def life(life: Life) -> None:
    """The whole life of a job, from its client to now."""
    origin = f" from {printable(life.client)}" if life.client else ""
    click.echo(f"job {life.id}")
    click.echo(f"accepted {when(life.accepted_ms)}{origin}" + (f", trace {life.trace}" if life.trace else ""))
    length = f"{size(life.size)}" if life.size else "its beginning"
    click.echo(f"content  ({length}{', base64' if life.encoding else ''}) {short(life.content, 2000)}")
    for error in life.errors:
        click.echo(click.style("! ", fg="red") + printable(error), err=True)
    for topic in life.topics:
        click.echo()
        _topic(topic, life.accepted_ms)


def _topic(topic: TopicLife, accepted_ms: int) -> None:
    click.echo(click.style(topic.topic, bold=True))
    for one in topic.events:
        at = one.at_ms
        click.echo(
            f"  {when(at)}  +{span((at - accepted_ms) / 1000)}  {event(one)}  [{one.node} {one.process}]".rstrip()
        )
        _block("answer", one.body)
        _block("stderr", one.stderr)
        if one.php_file:
            click.echo(f"    at     {printable(one.php_file)}:{one.php_line}")
    due = f", due {when(topic.job.due_ms)}" if topic.job and topic.job.due_ms else ""
    click.echo(f"  now: {topic.state} - {printable(topic.now)}{due}")


def _block(name: str, text: str) -> None:
    for i, line in enumerate(text.strip().splitlines()):
        click.echo(f"    {name if not i else '':6} {printable(line)}")
