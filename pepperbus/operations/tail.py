"""Journal rows as they happen.

Floor 4. The caller's loop: it may stop at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator

import gevent

from pepperbus.journal.contract import Row
from pepperbus.journal.follow import Follower
from pepperbus.operations.life import event
from pepperbus.operations.office import Office
from pepperbus.operations.results import Event, EventPage

POLL_S = 0.1


def tail(office: Office, name: str = "", failed: bool = False) -> Iterator[Event]:
    """Every event of a queue, a topic or (name "") of all, from now on; `failed`: only attempts that did not succeed.

    Never ends by itself. Raises NotFound for an unknown name.
    """
    topics = {topic.full_name for topic in office.named(name)} if name else None
    follower = Follower(office.config.bus.data_dir / "journal")
    try:
        while True:
            for row in follower.poll():
                if (topics is None or row.topic in topics) and (not failed or is_failure(row)):
                    yield event(row)
            gevent.sleep(POLL_S)
    finally:
        follower.close()


def history(
    office: Office,
    *,
    topic: str = "",
    outcome: str = "",
    since_ms: int = 0,
    error: str = "",
    text: str = "",
    limit: int = 100,
) -> EventPage:
    """What the journal holds, newest first. Stops looking after 2 s (`complete` False)."""
    found = office.journal.search(topic=topic, outcome=outcome, since_ms=since_ms, error=error, text=text, limit=limit)
    return EventPage([event(row) for row in found], found.complete)


def is_failure(row: Row) -> bool:
    return row.outcome in ("retry", "dead") or row.event == "released"
