"""Jobs as they lie in a topic: listings by state, error text and time, and the selections that replay and purge act on.

Floor 4. A listing pages by the storage's own cursor and looks at a bounded number of jobs a page, so a filter that matches
little gives short pages with a cursor, never a long wait.
"""

from __future__ import annotations

from collections.abc import Iterator

from pepperbus import names
from pepperbus.accounts.model import Right
from pepperbus.errors import NotFound, UsageError
from pepperbus.ids import parse_id
from pepperbus.job import Job, State
from pepperbus.operations.office import Office
from pepperbus.operations.results import JobPage, JobView, to_text
from pepperbus.operations.rights import operation
from pepperbus.storage.contract import Stored
from pepperbus.storage.selection import Selection

PAGE = 500
LOOK_AT_MOST = 20_000  # jobs looked at for one page of a listing
PREVIEW = 1024


def select(topic: str, ids: tuple[str, ...] = (), state: str = "", error: str = "", since_ms: int = 0) -> Selection:
    """A selection from words as people type them. Raises UsageError naming the word that is wrong."""
    try:
        names.split_topic(topic)
        numbers = tuple(parse_id(text) for text in ids)
        chosen = State(state or "dead")
    except ValueError as error_:
        allowed = ", ".join(State)
        raise UsageError(f"{error_}" if "State" not in str(error_) else f"no state {state!r}: {allowed}") from error_
    if ids and (error or since_ms):
        raise UsageError("job ids and a filter exclude each other")
    return Selection(topic, numbers, chosen, error, since_ms)


@operation(Right.VIEW, "selection")
def jobs(office: Office, selection: Selection, cursor: str = "", n: int = 100) -> JobPage:
    """A page of at most `n` jobs, next in line first (dead: newest first). Raises NotFound for an unknown topic."""
    storage = office.holder(selection.topic)
    if selection.ids:
        found = [one for i in selection.ids for one in storage.find(i, [selection.topic])]
        return JobPage([view(stored) for stored in found], "", len(found))
    page = JobPage([])
    while len(page.jobs) < n and page.looked_at < LOOK_AT_MOST:
        piece = storage.peek(selection.topic, selection.state, cursor, min(n - len(page.jobs), PAGE))
        page.looked_at += len(piece.jobs)
        page.jobs += [view(stored) for stored in piece.jobs if selection.matches(stored)]
        cursor = page.cursor = piece.cursor
        if not cursor:
            break
    return page


def stored_of(office: Office, selection: Selection) -> Iterator[Stored]:
    """A whole selection. Read it to its end before anything is changed: a cursor over jobs that move would skip some."""
    storage = office.holder(selection.topic)
    if selection.ids:
        for job_id in selection.ids:
            found = storage.find(job_id, [selection.topic])
            if not found:
                raise NotFound(f"no job {job_id} in {selection.topic}")
            yield found[0]
        return
    cursor = ""
    while True:
        piece = storage.peek(selection.topic, selection.state, cursor, PAGE)
        yield from (stored for stored in piece.jobs if selection.matches(stored))
        cursor = piece.cursor
        if not cursor:
            return


def view(stored: Stored, preview: int = PREVIEW) -> JobView:
    """A stored job for people; `preview` bytes of its content."""
    shown = JobView(
        str(stored.job_id),
        stored.topic,
        str(stored.state),
        stored.attempts,
        stored.crashes,
        due_ms=stored.due_ms,
        dead_ms=stored.dead_ms,
        reason=stored.reason,
        owner=stored.owner,
    )
    try:
        job = Job.decode(stored.body)
    except ValueError:
        return shown
    shown.accepted_ms, shown.client, shown.trace, shown.size = job.accepted_ms, job.client, job.trace, len(job.content)
    shown.content, shown.encoding = preview_text(job.content, preview)
    return shown


def preview_text(content: bytes, limit: int) -> tuple[str, str]:
    """The first `limit` bytes as (text, encoding), without cutting through a character."""
    if len(content) <= limit:
        return to_text(content)
    piece = content[:limit]
    for cut in range(4):
        text, encoding = to_text(piece[: limit - cut])
        if not encoding:
            return text, ""
    return to_text(piece)
