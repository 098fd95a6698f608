"""Journal rows as they happen.

Floor 4. The caller's loop: it may stop at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator

import gevent

from pepperbus.accounts.model import Right
from pepperbus.journal.contract import Row
from pepperbus.journal.follow import Follower
from pepperbus.operations.life import event
from pepperbus.operations.office import Office
from pepperbus.operations.results import Event, EventPage
from pepperbus.operations.rights import may, operation

POLL_S = 0.1
_AMONG_OTHERS = 20  # rows looked at for one that a person of a single system may see


@operation(Right.VIEW, "name")
def tail(office: Office, name: str = "", failed: bool = False) -> Iterator[Event]:
    """Every event of a queue, a topic or (name "") of all, from now on; `failed`: only attempts that did not succeed.

    Never ends by itself. Raises NotFound for an unknown name.
    """
    topics = {topic.full_name for topic in office.named(name)} if name else None
    follower = Follower(office.config.bus.data_dir / "journal")
    try:
        while True:
            for row in follower.poll():
                wanted = may(office, Right.VIEW, row.topic) if topics is None else row.topic in topics
                if wanted and (not failed or is_failure(row)):
                    yield event(row)
            gevent.sleep(POLL_S)
    finally:
        follower.close()


@operation(Right.VIEW, "topic")
def history(
    office: Office,
    *,
    topic: str = "",
    outcome: str = "",
    since_ms: int = 0,
    error: str = "",
    text: str = "",
    trace: str = "",
    field: str = "",
    limit: int = 100,
) -> EventPage:
    """What the journal holds, newest first. Stops looking after 2 s (`complete` False).

    `field`: `path=value` of a queue's `index`.
    """
    sees_all = bool(topic) or may(office, Right.VIEW)
    most = limit if sees_all else limit * _AMONG_OTHERS
    found = office.journal.search(
        topic=topic, outcome=outcome, since_ms=since_ms, error=error, text=text, trace=trace, field=field, limit=most
    )
    rows = found if sees_all else [row for row in found if may(office, Right.VIEW, row.topic)]
    complete = found.complete and (sees_all or len(found) < most or len(rows) >= limit)
    return EventPage([event(row) for row in rows[:limit]], complete, 0 if complete else found.reached_ms)


def is_failure(row: Row) -> bool:
    return row.outcome in ("retry", "dead") or row.event == "released"
