"""Find jobs by what one knows: an id, a trace, `path=value` of an index or its value alone, any text inside, an error.

Floor 4. Most exact first, and the first way that finds something is the answer. Jobs that have not run yet are in no journal:
what waits, or is dead, is looked through too. Bounded: 2 s for the journal, 1 s for what lies in the storages, and 2 s
for errors when no content held the text.
"""

from __future__ import annotations

import time

import gevent

from pepperbus.config.model import Topic
from pepperbus.errors import PepperbusError, UsageError
from pepperbus.ids import parse_id
from pepperbus.job import Job, State
from pepperbus.operations.jobs import view
from pepperbus.operations.life import life
from pepperbus.operations.office import Office
from pepperbus.operations.results import Event, EventPage, JobView
from pepperbus.operations.rights import Right, may, operation
from pepperbus.operations.tail import history
from pepperbus.storage.contract import Depth, Stored

LYING_S = 1.0
_PAGE = 200
_STATES = (State.READY, State.DELAYED, State.LEASED, State.DEAD)


class Finding(EventPage):
    """`by`: id, trace, field, value (of an index), text, error (its text or code), or "" when nothing was found."""

    by: str = ""


@operation(Right.VIEW)
def find(office: Office, word: str, limit: int = 100) -> Finding:
    """Everything this person may see that `word` points to, newest first. Raises UsageError for an empty word."""
    word = word.strip()
    if not word:
        raise UsageError(
            "word: what is known of the job is wanted: an id, a trace, order_id=123, a text inside it, or of its error"
        )
    if found := _by_id(office, word, limit) or _by_trace(office, word, limit) or _by_field(office, word, limit):
        return found
    found = _by_text(office, word, limit)
    return found if found.events else _by_error(office, word, limit) or found


def _by_id(office: Office, word: str, limit: int) -> Finding | None:
    try:
        parse_id(word)
        told = life(office, word)
    except (ValueError, PepperbusError):
        return None
    events = [event for topic in told.topics for event in topic.events]
    events += [_lying(topic.job, told.content) for topic in told.topics if topic.job]
    return Finding(sorted(events, key=lambda event: -event.at_ms)[:limit], by="id")


def _by_trace(office: Office, word: str, limit: int) -> Finding | None:
    number = word.partition("-")[0]
    if "-" not in word or not number.isdecimal() or len(number) != 20:
        return None
    return _found("trace", history(office, trace=word, limit=limit))


def _by_field(office: Office, word: str, limit: int) -> Finding | None:
    """`path=value`, or a value that any index knows."""
    paths = {
        path for queue in office.config.queues.values() if may(office, Right.VIEW, queue.name) for path in queue.index
    }
    path, equals, _ = word.partition("=")
    if equals and path in paths:
        return _found("field", history(office, field=word, limit=limit))
    events: list[Event] = []
    for path in sorted(paths):
        events += history(office, field=f"{path}={word}", limit=limit).events
    return _found("value", EventPage(sorted(events, key=lambda event: -event.at_ms)[:limit]))


def _by_text(office: Office, word: str, limit: int) -> Finding:
    path, equals, value = word.partition("=")
    known = any(path in queue.index for queue in office.config.queues.values())
    inside = value if equals and known else word  # a job that has not run yet is in no index
    page = EventPage([]) if equals and known else history(office, text=word, limit=limit)
    lying, complete = _look_through(office, inside.encode(), limit)
    events = sorted([*lying, *page.events], key=lambda event: -event.at_ms)[:limit]
    return Finding(events, page.complete and complete, page.reached_ms, by="text" if events else "")


def _by_error(office: Office, word: str, limit: int) -> Finding | None:
    """Failures whose reason or error code holds it: who was called at night knows that and nothing else."""
    return _found("error", history(office, error=word, limit=limit))


def _found(by: str, page: EventPage) -> Finding | None:
    return Finding(page.events, page.complete, page.reached_ms, by) if page.events else None


def _look_through(office: Office, inside: bytes, limit: int) -> tuple[list[Event], bool]:
    """Jobs that lie in the storages and hold these bytes."""
    deadline = time.monotonic() + LYING_S
    found: list[Event] = []
    for topic, depth in _waiting(office):
        storage = office.storage(topic.storage)
        for state, count in zip(_STATES, depth[:4], strict=True):
            cursor, more = "", count > 0
            while more:
                if time.monotonic() > deadline or len(found) >= limit:
                    return found, False
                jobs, cursor = storage.peek(topic.full_name, state, cursor, _PAGE)
                found += [_lying(view(one), "") for one in jobs if inside in one.body and _holds(one, inside)]
                more = bool(cursor)
                gevent.sleep(0)
    return found, True


def _waiting(office: Office) -> list[tuple[Topic, Depth]]:
    """The topics that this person may see, of the storages that answer; the overview says which do not."""
    seen: dict[str, list[Topic]] = {}
    for topic in office.topics():
        if may(office, Right.VIEW, topic.full_name):
            seen.setdefault(topic.storage, []).append(topic)
    found: list[tuple[Topic, Depth]] = []
    for place, topics in seen.items():
        try:
            depths = office.storage(place).depths([topic.full_name for topic in topics])
        except PepperbusError:
            continue
        found += [(topic, depths[topic.full_name]) for topic in topics if topic.full_name in depths]
    return found


def _holds(stored: Stored, inside: bytes) -> bool:
    """In its content, not in what else is stored with it."""
    try:
        return inside in Job.decode(stored.body).content
    except ValueError:
        return False


def _lying(job: JobView, content: str) -> Event:
    """A job as it lies there, as if it were an event."""
    at_ms = job.dead_ms or job.accepted_ms
    content = content or job.content
    return Event(
        job.state, job.id, job.topic, at_ms, job.attempts, reason=job.reason, in_trace=job.trace, content=content
    )
