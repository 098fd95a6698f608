"""Queues' files as wholes: taken along, tried before they are put in place, and those of queues that were removed.

Floor 4. Secrets never leave in one: they are stars, and stars that come back stand for what is there.
"""

from __future__ import annotations

from pepperbus.accounts.model import EVERYWHERE, Right
from pepperbus.config.load import load_queue_text, queue_file
from pepperbus.errors import ConfigError, UsageError
from pepperbus.names import NAME_RULE, is_name
from pepperbus.operations import drafts, queues, versions
from pepperbus.operations.office import Office
from pepperbus.operations.queue_text import filled, starred, system_in, text_of
from pepperbus.operations.results import Result
from pepperbus.operations.rights import operation, require


class QueueText(Result):
    """A queue's file, as it may be taken along."""

    name: str
    text: str


class Trial(Result):
    """What putting a file there would do. `what`: created, changed, unchanged or refused."""

    name: str
    what: str
    draft: drafts.Draft


@operation(Right.ADMIN, "name", audited=False)
def export(office: Office, name: str) -> str:
    """The queue's file, comments and all; secrets as `***`. Raises NotFound."""
    return starred(text_of(queue_file(name, office.config), name))


@operation(Right.ADMIN, "name", audited=False, system=lambda given: system_in(given["text"]))
def trial(office: Office, name: str, text: str) -> Trial:
    """What `queues.put` with this text would do. Never raises for what is wrong with it."""
    draft = drafts.Draft()
    before = ""
    try:
        if not is_name(name):
            raise UsageError(f"{name!r} cannot name a queue: {NAME_RULE}")
        file = queue_file(name, office.config)
        before = file.read_text() if file.exists() else ""
        queues.require_standing(office, name, before)
        after = filled(text, before)
        draft.diff = versions.diff(before, after)
        made = load_queue_text(after, name, office.config)
        if made.system != (office.config.queues[name].system if name in office.config.queues else ""):
            require(office, Right.ADMIN, made.system or EVERYWHERE, f"move {name} there")
        draft.retries = {topic.name: drafts.retries(topic) for topic in made.topics.values()}
    except ConfigError as error:
        draft.mistakes = [drafts.Mistake("", line) for line in error.mistakes]  # with its line of the file
    except UsageError as error:
        draft.mistakes = [drafts.Mistake("", str(error))]
    what = "refused" if draft.mistakes else ("changed" if before else "created") if draft.diff else "unchanged"
    return Trial(name, what, draft)


@operation(Right.ADMIN, audited=False)
def removed(office: Office) -> dict[str, int]:
    """Queue that was removed -> when (ms); its last text is kept and can be put back with `queues.rollback`."""
    directory = office.config.bus.data_dir / "versions"
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    gone = [name for name in names if is_name(name) and not queue_file(name, office.config).exists()]
    return {name: at_ms for name in sorted(gone) if (at_ms := versions.newest(office, name))}
