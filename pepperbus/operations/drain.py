"""A topic's or a queue's jobs to another storage, while producers and consumers go on. Floor 4.

The file names the new storage first, so pushes go there at once; what lies in the old one is moved by the ticker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from pepperbus.config.load import queue_file
from pepperbus.config.model import Topic
from pepperbus.errors import NotFound, PepperbusError, UsageError
from pepperbus.operations import queues
from pepperbus.operations.office import Office
from pepperbus.operations.queue_text import parsed, parsed_or_empty, text_of
from pepperbus.operations.results import QueueFile, Result
from pepperbus.operations.rights import Right, may, note, operation
from pepperbus.storage import drains as store
from pepperbus.storage.contract import LEVELS

#: So long the file may take to name the new storage after the record was made.
_BEGINS_MS = 60_000


class DrainStatus(Result):
    """`state`: moving or done. `left`: jobs in the old storage, those with workers too. `trouble`: why it stands."""

    topic: str
    source: str
    target: str
    since_ms: int
    who: str = ""
    state: str = "moving"
    moved: int = 0
    left: int = 0
    ended_ms: int = 0
    trouble: str = ""


@operation(Right.VIEW)
def drains(office: Office) -> list[DrainStatus]:
    """The last drain of every topic this person may see, the latest first."""
    found = [one for one in store.read(office.config.bus.data_dir).values() if may(office, Right.VIEW, one.topic)]
    return [
        msgspec.convert(msgspec.to_builtins(one), DrainStatus) for one in sorted(found, key=lambda one: -one.since_ms)
    ]


@operation(Right.ADMIN, "name", details=("to",), tells=("what", "reload"))
def drain(office: Office, name: str, to: str, *, alone: bool = False) -> QueueFile:
    """Move `queue` or `queue/topic` to storage `to`. `alone`: other nodes that share a storage have been seen to.

    Raises NotFound, and PepperbusError when it cannot be: the new storage does not answer or gives too little, an earlier
    drain is under way, other nodes would go on with the old one, the bus refuses the file.
    """
    if to not in office.config.storages:
        raise NotFound(f"no storage {to!r}; known: {', '.join(office.config.storages)}")
    topics = [topic for topic in office.named(name) if topic.storage != to]
    if not topics:
        raise UsageError(f"{name} lies in {to} already")
    queue = office.queue(name.partition("/")[0])
    target = office.storage(to)
    if LEVELS.index(target.durability) < LEVELS.index(queue.durability):
        advice = "; ".join(target.advice(queue.durability).splitlines())
        raise PepperbusError(
            f"{to} gives durability {target.durability}, {queue.name} asks for {queue.durability}: {advice}"
        )
    if not alone:
        _check_alone(office, {topic.storage for topic in topics} | {to})
    _check_still(office, topics, store.read(office.config.bus.data_dir))
    for topic in topics:
        if topic.full_name in office.storage(topic.storage).paused():
            target.set_paused(topic.full_name, True)
    note(
        before={topic.full_name: topic.storage for topic in topics},
        after=dict.fromkeys((t.full_name for t in topics), to),
    )
    return _begun(office, name, topics, to)


def _begun(office: Office, name: str, topics: list[Topic], to: str) -> QueueFile:
    """The records first: with them the change of the file is allowed, and a crash in between leaves a drain that waits."""
    now_ms, data_dir = office.clock.now_ms(), office.config.bus.data_dir
    made = [store.Drain(one.full_name, one.storage, to, now_ms, office.actor.name) for one in topics]
    before = store.read(data_dir)

    def put(known: dict[str, store.Drain]) -> None:
        _check_still(office, topics, known)  # somebody else may have begun one this moment
        known.update({one.topic: one for one in made})

    def put_back(known: dict[str, store.Drain]) -> None:
        for one in made:
            known.pop(one.topic, None)
            if one.topic in before:
                known[one.topic] = before[one.topic]

    _update(office, put)
    try:
        done = queues.change(office, topics[0].queue, *_settings(office, name, to))
    except BaseException:
        _update(office, put_back)
        raise
    if done.refused:
        raise PepperbusError(
            f"the file names {to}, but the bus does not take it: {done.reload}; the drain waits for a reload"
        )
    return done


def _update(office: Office, change: Callable[[dict[str, store.Drain]], None]) -> None:
    try:
        store.update(office.config.bus.data_dir, change)
    except OSError as error:
        raise PepperbusError(f"{error.filename or store.FILE}: {error.strerror or error}; nothing was begun") from error


def _settings(office: Office, name: str, to: str) -> tuple[dict[str, str], list[str]]:
    """What to set and unset in the file. A whole queue: at its level, and nowhere else."""
    queue, _, topic = name.partition("/")
    if topic:
        return {f"{topic}/storage": to}, []
    sections = parsed(text_of(queue_file(queue, office.config), queue)).get("topics", {})
    return {"storage": to}, [f"{one}/storage" for one, keys in sections.items() if "storage" in keys]


def _check_alone(office: Office, names: set[str]) -> None:
    for name in sorted(names):
        others = sorted(set(office.storage(name).nodes()) - {office.config.bus.node})
        if others:
            raise PepperbusError(
                f"storage {name} is used by {', '.join(others)} too: name the new storage in the queue's file there at the "
                "same time, or they go on with the old one; then drain with --alone"
            )


def _check_still(office: Office, topics: list[Topic], known: Mapping[str, store.Drain]) -> None:
    for topic in topics:
        one = known.get(topic.full_name)
        if one is not None and one.state == "moving" and _has_begun(office, topic, one):
            raise PepperbusError(
                f"{topic.full_name} is still on its way from {one.source} to {one.target}; wait for its end"
            )


def _has_begun(office: Office, topic: Topic, one: store.Drain) -> bool:
    """Not when whoever began it was killed before the file named the new storage: then nothing moves, and never will."""
    if topic.storage == one.target or office.clock.now_ms() - one.since_ms < _BEGINS_MS:
        return True
    tree = parsed_or_empty(text_of(queue_file(topic.queue, office.config), topic.queue))
    named = tree.get("topics", {}).get(topic.name, {}).get("storage") or tree.get("storage")
    return bool(named == one.target)
