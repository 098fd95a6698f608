"""Failures put together: the same words in the same topic are one error, with how often, since when, and one example.

Floor 4. Counted by the journal while it takes rows over; numbers, ids and quoted words do not tell errors apart.
"""

from __future__ import annotations

import msgspec

from pepperbus.errors import UsageError
from pepperbus.journal import failures
from pepperbus.journal.contract import Row
from pepperbus.journal.failures import Counted, Failure
from pepperbus.journal.store import error_text
from pepperbus.operations import marks
from pepperbus.operations.life import php_place
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, may, operation


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
    trend: list[int] = msgspec.field(default_factory=list)


class ErrorPage(Result):
    """Most recent first. `failures`: of all groups, since `from_ms`; a point of a trend is `step_s` long."""

    groups: list[ErrorGroup]
    failures: int
    from_ms: int
    step_s: int


@operation(Right.VIEW, "topic")
def groups(office: Office, topic: str = "", since_ms: int = 0, text: str = "") -> ErrorPage:
    """The errors since then, of one `queue/topic` or of all that this person may see. Raises UsageError for a bad time.

    Counting begins up to a point of a trend earlier. `text`: what stands in the error's words or in its latest example.
    """
    now_ms = office.clock.now_ms()
    if not 0 <= since_ms < now_ms:
        raise UsageError("since: a time in the past is wanted")
    counted = office.journal.failed(topic, since_ms, now_ms)
    visible: dict[str, bool] = {}
    known = marks.read(office)
    made: list[ErrorGroup] = []
    for one in sorted(counted.failures, key=lambda one: -one.last_ms):
        if one.topic not in visible:
            visible[one.topic] = may(office, Right.VIEW, one.topic)
        if visible[one.topic] and one.example and _says(one.example, text.lower()):
            group = _group(one, one.example, counted, now_ms)
            _mark(group, known.get(marks.name(group.topic, group.key)))
            made.append(group)
    return ErrorPage(made, sum(group.count for group in made), counted.from_ms, counted.width_ms // 1000)


def _says(row: Row, text: str) -> bool:
    return not text or text in error_text(row) or text in failures.shape(failures.words(row)).lower()


def _group(one: Failure, row: Row, counted: Counted, now_ms: int) -> ErrorGroup:
    reason = failures.words(row)
    text = failures.shape(reason)
    if one.key != failures.key(one.topic, text):
        text = failures.OTHERS  # too many different ones: the latest is only one of them
    made = ErrorGroup(one.key, one.topic, text, one.count, one.dead, one.first_ms, one.last_ms, str(row.job_id), reason)
    if row.stderr:
        made.php_file, made.php_line = php_place(row.stderr.decode(errors="replace"))
    points = range(counted.from_ms, now_ms + 1, counted.width_ms)
    made.trend = [one.bins.get(at, 0) for at in points]
    return made


def _mark(group: ErrorGroup, mark: marks.Mark | None) -> None:
    if mark is not None:
        group.marked_by = mark.who
        group.state = "returned" if mark.state == "resolved" and group.last_ms > mark.at_ms else mark.state
