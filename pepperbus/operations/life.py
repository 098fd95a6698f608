"""The whole life of one job: accepted from whom, waited where, every attempt, what became of it.

Floor 4. Put together from the storages (where it is now) and the journal (what happened); either may know nothing.
"""

from __future__ import annotations

import re
from typing import Any

from pepperbus.accounts.model import Right
from pepperbus.counted import Reader
from pepperbus.errors import NotFound, PepperbusError, UsageError
from pepperbus.ids import id_time_ms, parse_id
from pepperbus.job import Job
from pepperbus.journal.contract import Row
from pepperbus.journal.failures import uncounted
from pepperbus.operations.jobs import preview_text, view
from pepperbus.operations.office import Office
from pepperbus.operations.results import Event, Life, TopicLife, to_text
from pepperbus.operations.rights import may, operation
from pepperbus.storage.contract import Stored

SHOWN_CONTENT = 64 << 10
#: PHP's own wording: "… in /data/app/x.php:12" or "… in /data/app/x.php on line 12".
#: A script may say anything: without bounds 64 KiB of it cost half a minute, and a number of 5000 digits is none.
_LAST = 16 << 10  # characters of stderr
_PHP_PLACE = re.compile(r" in (?P<file>/[^:\r\n]{1,1024}?)(?::| on line )(?P<line>[0-9]{1,9})\b")


@operation(Right.VIEW)
def life(office: Office, job_id: str) -> Life:
    """Everything known of a job. Raises UsageError for what is no id, NotFound when nobody knows it."""
    try:
        number = parse_id(job_id)
    except ValueError as error:
        raise UsageError(str(error)) from error
    rows = office.journal.life(number)
    errors: list[str] = []
    stored = _find(office, number, {row.topic for row in rows}, errors)
    rows = [row for row in rows if may(office, Right.VIEW, row.topic)]
    stored = [one for one in stored if may(office, Right.VIEW, one.topic)]
    if not rows and not stored:
        raise NotFound(f"no job {job_id}" + (f" (not asked: {'; '.join(errors)})" if errors else ""))
    told = _told(job_id, rows, stored, errors)
    _say_who_waits(office, told)
    return told


def _find(office: Office, job_id: int, journalled: set[str], errors: list[str]) -> list[Stored]:
    """Look into every storage, under every topic that it may hold."""
    topics: dict[str, set[str]] = {name: set() for name in office.config.storages}
    for topic in office.topics():
        topics[topic.storage].add(topic.full_name)
    found: list[Stored] = []
    for name, configured in topics.items():
        try:
            storage = office.storage(name)
            found += storage.find(job_id, sorted(configured | journalled | set(storage.topics())))
        except PepperbusError as error:
            errors.append(f"storage {name}: {error}")
    return found


def _told(job_id: str, rows: list[Row], stored: list[Stored], errors: list[str]) -> Life:
    told = Life(job_id, id_time_ms(int(job_id)), errors=errors)
    _origin(told, rows, stored)
    here = {one.topic: one for one in stored}
    for topic in sorted({row.topic for row in rows} | here.keys()):
        events = [event(row) for row in rows if row.topic == topic]
        told.topics.append(_in_topic(topic, events, here.get(topic)))
    return told


def _say_who_waits(office: Office, told: Life) -> None:
    """A job that is next in line and does not run: because of its topic, whose trouble stands elsewhere."""
    waiting = [one for one in told.topics if one.state == "ready"]
    if not waiting:
        return
    states = Reader(office.config.bus.run_dir / "stats").worker_states()
    for one in waiting:
        if _is_paused(office, one.topic):
            one.now += f"; {one.topic} is paused: `pepperbus resume {one.topic}`"
        elif states.get(one.topic) in ("down", "stopped"):
            one.now += f"; its consumer is {states[one.topic]}: `pepperbus status` says why"


def _is_paused(office: Office, topic: str) -> bool:
    known = office.config.topic(topic)
    try:
        return (known is not None and known.paused) or topic in office.holder(topic).paused()
    except PepperbusError:
        return False  # its storage is away: that is said elsewhere


def _origin(told: Life, rows: list[Row], stored: list[Stored]) -> None:
    if stored:
        job = Job.decode(stored[0].body)
        told.accepted_ms, told.client, told.trace, told.size = (
            job.accepted_ms,
            job.client,
            job.trace,
            len(job.content),
        )
        told.content, told.encoding = preview_text(job.content, SHOWN_CONTENT)
        return
    for row in rows:
        told.accepted_ms = row.accepted_ms or told.accepted_ms
        told.client = told.client or row.client
        told.trace = told.trace or row.in_trace
        if row.content and not told.content:
            told.content, told.encoding = to_text(row.content)


def _in_topic(topic: str, events: list[Event], stored: Stored | None) -> TopicLife:
    if stored:
        return TopicLife(topic, str(stored.state), _now_stored(stored), view(stored), events)
    last = events[-1] if events else None
    final = [one for one in events if one.outcome == "done" or one.event in ("popped", "removed")]
    if final:
        state = final[-1].event if final[-1].event in ("popped", "removed") else "done"
        words = {
            "done": f"done at attempt {final[-1].attempt}",
            "popped": "taken by RPOP",
            "removed": "removed by hand",
        }
        return TopicLife(topic, state, words[state], None, events)
    known = f"last heard of: {last.outcome or last.event}" if last else "nothing is known"
    return TopicLife(topic, "gone", f"in no storage any more; {known}", None, events)


def _now_stored(stored: Stored) -> str:
    match str(stored.state):
        case "dead":
            return f"dead after {_times(stored.attempts)}: {uncounted(stored.reason) or 'no reason kept'}"
        case "leased":
            return f"with {stored.owner or 'a worker'}"
        case "delayed":
            return "waits for its time" + (f" after {_times(stored.attempts)}" if stored.attempts else "")
        case _:
            return "waits in line" + (f" after {_times(stored.attempts)}" if stored.attempts else "")


def event(row: Row) -> Event:
    """A journal row for people."""
    fields: dict[str, Any] = {name: getattr(row, name) for name in row.__struct_fields__}
    fields["id"] = str(fields.pop("job_id"))
    fields["process"] = row.process.removeprefix(f"{row.node}/").partition("/")[0]  # of an owner's name, the process
    stderr = row.stderr.decode(errors="replace")
    fields["body"], fields["stderr"] = row.body.decode(errors="replace"), stderr
    fields["content"], encoding = preview_text(row.content, len(row.content))
    php_file, php_line = php_place(stderr)
    return Event(**fields, encoding=encoding, php_file=php_file, php_line=php_line)


def php_place(stderr: str) -> tuple[str, int]:
    """File and line of PHP's last message, ("", 0) when there is none."""
    places = list(_PHP_PLACE.finditer(stderr[-_LAST:]))
    return (places[-1]["file"], int(places[-1]["line"])) if places else ("", 0)


def _times(n: int) -> str:
    return f"{n} attempt{'' if n == 1 else 's'}"
