"""Failures put together: the same words in the same topic are one error, with how often, since when, and one example.

Floor 4. Read from the journal, newest first, for a bounded time; numbers, ids and quoted words do not tell errors apart.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from pepperbus.errors import UsageError
from pepperbus.journal.contract import Row
from pepperbus.operations import marks
from pepperbus.operations.life import php_place
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, may, operation

LOOK_AT_MOST = 4000  # rows of each outcome
TREND = 24
_VARYING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b|'[^']*'|\"[^\"]*\"|\d+", re.IGNORECASE)
_COUNTED = re.compile(r"^(attempt \d+ of \d+ failed: |sendToCGI fail: )+")


class ErrorGroup(Result):
    """One error of one topic. `dead`: how many of `count` ended a job. `trend`: counts over the time looked at.

    `state`: open, acknowledged, resolved, or returned: it came again after somebody had called it resolved.
    """

    key: str
    topic: str
    text: str
    count: int = 0
    dead: int = 0
    first_ms: int = 0
    last_ms: int = 0
    example: str = ""
    reason: str = ""
    php_file: str = ""
    php_line: int = 0
    state: str = "open"
    marked_by: str = ""
    trend: list[int] = msgspec.field(default_factory=lambda: [0] * TREND)


class ErrorPage(Result):
    """Most recent first. `complete` False: there were more failures than were looked at; `from_ms`: how far it came."""

    groups: list[ErrorGroup]
    looked_at: int
    complete: bool
    from_ms: int


@operation(Right.VIEW, "topic")
def groups(office: Office, topic: str = "", since_ms: int = 0, text: str = "") -> ErrorPage:
    """The errors since then, of one `queue/topic` or of all that this person may see. Raises UsageError for a bad time."""
    now_ms = office.clock.now_ms()
    if not 0 <= since_ms < now_ms:
        raise UsageError("since: a time in the past is wanted")
    rows: list[Row] = []
    complete = True
    for outcome in ("retry", "dead"):
        found = office.journal.search(topic=topic, outcome=outcome, since_ms=since_ms, error=text, limit=LOOK_AT_MOST)
        complete = complete and found.complete and len(found) < LOOK_AT_MOST
        rows += [row for row in found if may(office, Right.VIEW, row.topic)]
    begin = since_ms or min((row.at_ms for row in rows), default=now_ms)
    made: dict[str, ErrorGroup] = {}
    for row in sorted(rows, key=lambda row: -row.at_ms):
        _count(made, row, begin, now_ms)
    known = marks.read(office)
    for group in made.values():
        _mark(group, known.get(marks.name(group.topic, group.key)))
    return ErrorPage(list(made.values()), len(rows), complete, begin)


def _mark(group: ErrorGroup, mark: marks.Mark | None) -> None:
    if mark is not None:
        group.marked_by = mark.who
        group.state = "returned" if mark.state == "resolved" and group.last_ms > mark.at_ms else mark.state


def _count(made: dict[str, ErrorGroup], row: Row, begin: int, now_ms: int) -> None:
    reason = _COUNTED.sub("", row.reason) or row.error_code or f"Code {row.code}"
    text = shape(reason)
    key = hashlib.blake2b(f"{row.topic}\0{text}".encode(), digest_size=8).hexdigest()
    group = made.get(key)
    if group is None:
        place = php_place(row.stderr.decode(errors="replace"))
        group = made[key] = ErrorGroup(
            key, row.topic, text, 0, 0, row.at_ms, row.at_ms, str(row.job_id), reason, *place
        )
    group.count += 1
    group.dead += row.outcome == "dead"
    group.first_ms = row.at_ms
    group.trend[min(TREND - 1, (row.at_ms - begin) * TREND // max(now_ms - begin, 1))] += 1


def shape(reason: str) -> str:
    """A reason without what differs from job to job."""
    return _VARYING.sub("…", reason.split("\n", 1)[0])[:300]
