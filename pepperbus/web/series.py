"""Prometheus' text form of what every topic has lines of: a histogram, the old summary, plain values. Floor 5, pure.

The client library makes objects of each line: with 1,000 topics three seconds and a hundred megabytes a scrape. What it
would say is said here (labels sorted, floats); names of queues and topics need no escaping.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from pepperbus import stats

_OCTAVES = range(8, 32)  # the bounds: 256 µs, doubling, to 36 minutes
_ENDS = slice(_OCTAVES[0] * stats.PER_OCTAVE - 1, _OCTAVES[-1] * stats.PER_OCTAVE, stats.PER_OCTAVE)
_BOUNDS = [repr(2**octave / 1e6) for octave in _OCTAVES]
_TAIL = "\0"  # where the labels of a topic go
_NONE = (0,) * len(_OCTAVES)
Series = Iterable[tuple[str, str, stats.Histogram]]  # queue, topic, what was measured


def histogram(metric: str, text: str, series: Series) -> Iterator[str]:
    """Header, then one piece a topic."""
    yield f"# HELP {metric} {text}\n# TYPE {metric} histogram\n"
    lines = [f'{metric}_bucket{{le="{bound}",{_TAIL}}} %d.0\n' for bound in _BOUNDS]
    lines += [f'{metric}_bucket{{le="+Inf",{_TAIL}}} %d.0\n', f"{metric}_count{{{_TAIL}}} %d.0\n"]
    frame = "".join([*lines, f"{metric}_sum{{{_TAIL}}} %r\n"])
    idle = frame % (*_NONE, 0, 0, 0.0)
    for queue, topic, found in series:
        piece = idle
        if found.count:
            below = [*accumulate(found.buckets)][_ENDS]
            piece = frame % (*below, found.count, found.count, found.sum_micros / 1e6)
        yield piece.replace(_TAIL, f'queue="{queue}",topic="{topic}"')


def summary(
    metric: str, text: str, series: Iterable[tuple[str, str, stats.Histogram, stats.Histogram]]
) -> Iterator[str]:
    """The same of quantiles of the last minute beside sum and count of all: queue, topic, of late, all. In milliseconds."""
    yield f"# HELP {metric} {text}\n# TYPE {metric} summary\n"
    lines = [f'{metric}{{quantile="{q}",{_TAIL}}} %s\n' for q in (0.5, 0.9, 0.99)]
    frame = "".join([*lines, f"{metric}_sum{{{_TAIL}}} %r\n", f"{metric}_count{{{_TAIL}}} %d.0\n"])
    for queue, topic, recent, total in series:
        shares = [repr(recent.percentile(q) * 1000) if recent.count else "NaN" for q in (0.5, 0.9, 0.99)]
        own = frame.replace(_TAIL, f'queue="{queue}",topic="{topic}"')
        yield own % (*shares, total.sum_micros / 1000, total.count)


def values(metric: str, kind: str, text: str, series: Iterable[tuple[str, str, float]]) -> Iterator[str]:
    """Header, then a line a topic: queue, topic ("" for a queue's own), value."""
    lines = [f"# HELP {metric} {text}\n# TYPE {metric} {kind}\n"]
    for queue, topic, value in series:
        labels = f'queue="{queue}",topic="{topic}"' if topic else f'queue="{queue}"'
        lines.append(f"{metric}{{{labels}}} {float(value)}\n")
    yield "".join(lines)
