"""Prometheus' text form of what every topic has dozens of lines of: a histogram, the old summary. Floor 5, pure.

The client library makes an object of each line: with 1,000 topics that was three seconds and a hundred megabytes a scrape. Its
text is kept to the letter (labels sorted, floats); names of queues and topics need no escaping.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pepperbus import stats

_OCTAVES = range(8, 32)  # the bounds: 256 µs, doubling, to 36 minutes
_BOUNDS = [repr(2**octave / 1e6) for octave in _OCTAVES]
Series = Iterable[tuple[str, str, stats.Histogram]]  # queue, topic, what was measured


def histogram(metric: str, text: str, series: Series) -> Iterator[str]:
    """Header, then one piece a topic."""
    yield f"# HELP {metric} {text}\n# TYPE {metric} histogram\n"
    for queue, topic, found in series:
        tail = f'queue="{queue}",topic="{topic}"}}'
        seen, at, lines = 0, 0, []
        for octave, bound in zip(_OCTAVES, _BOUNDS, strict=True):
            end = octave * stats.PER_OCTAVE
            if found.count:
                seen += sum(found.buckets[at:end])
            at = end
            lines.append(f'{metric}_bucket{{le="{bound}",{tail} {float(seen)}\n')
        lines.append(f'{metric}_bucket{{le="+Inf",{tail} {float(found.count)}\n')
        lines.append(f"{metric}_count{{{tail} {float(found.count)}\n")
        lines.append(f"{metric}_sum{{{tail} {found.sum_micros / 1e6}\n")
        yield "".join(lines)


def summary(
    metric: str, text: str, series: Iterable[tuple[str, str, stats.Histogram, stats.Histogram]]
) -> Iterator[str]:
    """The same of quantiles of the last minute beside sum and count of all: queue, topic, of late, all. In milliseconds."""
    yield f"# HELP {metric} {text}\n# TYPE {metric} summary\n"
    for queue, topic, recent, total in series:
        tail = f'queue="{queue}",topic="{topic}"'
        lines = []
        for q in (0.5, 0.9, 0.99):
            value = repr(recent.percentile(q) * 1000) if recent.count else "NaN"
            lines.append(f'{metric}{{quantile="{q}",{tail}}} {value}\n')
        lines.append(f"{metric}_sum{{{tail}}} {total.sum_micros / 1000}\n")
        lines.append(f"{metric}_count{{{tail}}} {float(total.count)}\n")
        yield "".join(lines)
