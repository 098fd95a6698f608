"""A batch of pushes as columns, for engines that store new jobs by the column. Floor 3, pure."""

from __future__ import annotations

from collections.abc import Sequence

from pepperbus.storage.contract import Line, Lines, Push


def as_lines(batch: Sequence[Push]) -> Sequence[Line]:
    """`batch` as columns; none when there is a job among them that needs more than to join its lines."""
    if isinstance(batch, Lines):
        return batch.lines
    lines: dict[tuple[str, ...], Line] = {}
    for job_id, body, topics, due_ms, front, dead, past in batch:
        line = lines.get(topics)
        if line is None:
            line = lines[topics] = Line(topics, [], [])
        if due_ms or front or dead or past or (line.ids and job_id <= line.ids[-1]):
            return ()
        line.ids.append(job_id)
        line.bodies.append(body)
    return list(lines.values())
