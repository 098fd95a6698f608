"""Queues as an operator edits them: the files of queues.d, changed key by key with comments and order kept.

Floor 4. A change is tried on the whole text first; only a text that validates replaces the file, by rename, and then the
running bus is told to reload. A removed queue's jobs stay where they are (detached).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pepperbus.accounts.model import EVERYWHERE, Right
from pepperbus.alarms.rules import RULES
from pepperbus.config.backoff import Backoff
from pepperbus.config.canary import Canary
from pepperbus.config.joboptions import Halt, Quiet, Rate, Unique
from pepperbus.config.limits import spell
from pepperbus.config.load import load_queue_text, queue_file
from pepperbus.config.model import Intake, Queue, Topic
from pepperbus.config.secret import Secret
from pepperbus.config.timing import Schedule
from pepperbus.errors import NotFound, NotReachable, PepperbusError, UsageError
from pepperbus.names import NAME_RULE, is_name
from pepperbus.operations import versions
from pepperbus.operations.editing import editing, put_text
from pepperbus.operations.office import Office
from pepperbus.operations.queue_text import (
    as_text,
    edited,
    filled,
    is_secret,
    parsed,
    parsed_or_empty,
    staying,
    system_in,
    text_of,
)
from pepperbus.operations.results import QueueFile, QueueInfo, TopicInfo
from pepperbus.operations.rights import may, note, operation, require
from pepperbus.operations.steer import trouble
from pepperbus.storage import drains

_HIDDEN = ("name", "queue", "topics", "file")


@operation(Right.VIEW)
def listing(office: Office) -> list[QueueInfo]:
    """Every queue with what it is set to; secrets never."""
    return [info(queue) for queue in office.config.queues.values() if may(office, Right.VIEW, queue.name)]


@operation(Right.VIEW, "name")
def show(office: Office, name: str) -> QueueInfo:
    """One queue. Raises NotFound."""
    return info(office.queue(name))


def info(queue: Queue) -> QueueInfo:
    topics = [
        TopicInfo(topic.full_name, topic.storage, topic.run, target(topic), _settings(topic))
        for topic in queue.topics.values()
    ]
    return QueueInfo(queue.name, str(queue.file or ""), _settings(queue), topics)


def target(topic: Topic) -> str:
    """Where the topic's jobs go, for people."""
    return f"{topic.pool}:{topic.script}" if topic.run == "fastcgi" else " ".join(topic.command or topic.urls)


@operation(Right.ADMIN, "name", system=lambda given: given["settings"].get("system", ""), tells=("file", "reload"))
def add(office: Office, name: str, settings: Mapping[str, str]) -> QueueFile:
    """A new queue. Keys are `key` (queue), `topic/key`, `topic/params/KEY`; without a password one is made.

    Raises PepperbusError when it exists, ConfigError when the text would be wrong.
    """
    if not is_name(name):
        raise UsageError(f"{name!r} cannot name a queue: {NAME_RULE}")
    file = queue_file(name, office.config)
    settings = dict(settings)
    if "password" not in settings and "open" not in settings:
        settings = {"password": secrets.token_hex(16), **settings}
    with editing(file):
        if file.exists():
            raise PepperbusError(f"queue {name!r} exists already ({file}); `queue set` changes it")
        _write(office, name, file, edited("", settings))
    return _told(office, QueueFile(name, str(file), "created"))


@operation(Right.ADMIN, "name", details=("unset",), tells=("what", "reload"))
def change(
    office: Office, name: str, settings: Mapping[str, str], unset: Iterable[str] = (), standing: Iterable[str] = ()
) -> QueueFile:
    """Set and unset keys of a queue, spelled as for `add`. `standing`: topics that must be there, not be made by this.

    Raises NotFound, UsageError, ConfigError.
    """
    return set_keys(office, name, settings, unset, standing)


def set_keys(
    office: Office, name: str, settings: Mapping[str, str], unset: Iterable[str] = (), standing: Iterable[str] = ()
) -> QueueFile:
    """The same as part of an operation that asks who may and is written down itself."""
    file = queue_file(name, office.config)
    with editing(file):
        before = text_of(file, name)
        _check_standing(before, name, standing)
        after = edited(before, settings, unset)
        if after == before:
            return QueueFile(name, str(file), "unchanged")
        _write(office, name, file, after)
    return _told(office, QueueFile(name, str(file), "changed"))


def _check_standing(text: str, name: str, topics: Iterable[str]) -> None:
    """Raises NotFound for a topic that somebody removed meanwhile: setting its keys would make it anew."""
    there = parsed_or_empty(text).get("topics", {})
    for topic in topics:
        if topic not in there:
            raise NotFound(f"queue {name} has no topic {topic!r} any more: somebody removed it meanwhile")


@operation(Right.ADMIN, "name", system=lambda given: system_in(given["text"]), tells=("what", "reload"))
def put(office: Office, name: str, text: str) -> QueueFile:
    """A queue's whole file, new or in the place of the one there is. `***` stands for the secret that stands there.

    Raises UsageError, ConfigError when the text would be wrong.
    """
    if not is_name(name):
        raise UsageError(f"{name!r} cannot name a queue: {NAME_RULE}")
    file = queue_file(name, office.config)
    with editing(file):
        before = file.read_text() if file.exists() else ""
        require_standing(office, name, before)
        after = filled(text, before)
        if after == before:
            return QueueFile(name, str(file), "unchanged")
        _write(office, name, file, after)
    return _told(office, QueueFile(name, str(file), "changed" if before else "created"))


@operation(Right.ADMIN, "name", details=("keep_jobs",), tells=("file", "reload"))
def remove(office: Office, name: str, *, keep_jobs: bool = False) -> QueueFile:
    """Remove a queue, or a `queue/topic`, from the configuration.

    Refused while jobs lie there, unless `keep_jobs`: then they stay in their storage, visible as detached.
    """
    queue, _, topic = name.partition("/")
    if (jobs := lying(office, name)) and not keep_jobs:
        where = ", ".join(f"{n} in {full_name}" for full_name, n in jobs.items())
        raise PepperbusError(f"jobs lie there ({where}); purge them, or keep them in the storage with --keep-jobs")
    file = queue_file(queue, office.config)
    with editing(file):
        if topic:
            tree = parsed(text := text_of(file, queue))
            if topic not in tree.get("topics", {}):
                raise NotFound(f"{file} has no topic {topic!r} any more; reload takes it as it is")
            del tree["topics"][topic]
            _write(office, queue, file, as_text(tree, text))
        else:
            with versions.keeping(office, queue, file):
                file.unlink()
    return _told(office, QueueFile(name, str(file), "removed"))


@operation(Right.ADMIN, "name", details=("at_ms",), tells=("what", "reload"))
def rollback(office: Office, name: str, at_ms: int, seen: int = 0) -> QueueFile:
    """The queue's file as it was until `at_ms` (see `versions`), also of a queue that was removed since.

    What was to go then (`closed = remove`) stays, unless it is to go now too: it is brought back to be there. `seen`: the
    latest change that whoever asks has seen. Raises NotFound, ConfigError when that text would no longer be right, and
    PepperbusError when there was a later change.
    """
    file = queue_file(name, office.config)
    with editing(file):
        if seen and versions.newest(office, name) != seen:
            raise PepperbusError(f"{name} was changed since this list was opened: look at it again")
        now = file.read_text() if file.exists() else ""
        _write(office, name, file, staying(versions.text_of(office, name, at_ms), now))
    return _told(office, QueueFile(name, str(file), "changed"))


@operation(Right.VIEW, "name")
def lying(office: Office, name: str) -> dict[str, int]:
    """topic -> how many jobs lie in it, in whatever state, also where it is moving away from; empty topics are left out."""
    moving = drains.moving(office.config.bus.data_dir)
    counts = {}
    for topic in office.named(name):
        places = {topic.storage, moving.get(topic.full_name, topic.storage)} & office.config.storages.keys()
        counts[topic.full_name] = sum(sum(office.storage(place).depth(topic.full_name)[:4]) for place in places)
    return {full_name: n for full_name, n in counts.items() if n}


# -- file ----------------------------------------------------------------------------------------------------------


def _write(office: Office, name: str, file: Path, text: str) -> None:
    before, after = office.config.queues.get(name), load_queue_text(text, name, office.config)
    if after.system != (before.system if before else ""):
        require(office, Right.ADMIN, after.system or EVERYWHERE, f"move {name} there")
    _check_commands(office, before, after)
    _check_intakes(office, before, after)
    if before is not None:
        _check_stranded(office, before, after)
    elif removed_ms := versions.newest(office, name):  # jobs and history of a queue that was removed are under its name
        require_standing(office, name, versions.text_of(office, name, removed_ms))
    _note(before, after)
    with versions.keeping(office, name, file):
        put_text(file, text, office.config.bus)


def require_standing(office: Office, name: str, before: str) -> None:
    """A file the bus has not taken, or that was removed, belongs to the system it names, not to whoever replaces it.

    Raises Forbidden.
    """
    if before and name not in office.config.queues:
        require(office, Right.ADMIN, system_in(before) or EVERYWHERE, f"replace the file of {name}")


def _check_commands(office: Office, before: Queue | None, after: Queue) -> None:
    """A command runs as the bus' user: an administrator of some systems only may not say which. Raises Forbidden."""
    known = {name: _what_runs(topic) for name, topic in before.topics.items()} if before else {}
    for name, topic in after.topics.items():
        if topic.run == "command" and _what_runs(topic) != known.get(name):
            require(office, Right.ADMIN, EVERYWHERE, f"let {topic.full_name} run a command")


def _check_intakes(office: Office, before: Queue | None, after: Queue) -> None:
    """An intake empties whatever list it names, wherever the bus reaches: not for an administrator of some systems only.

    Raises Forbidden.
    """
    known = {(one.url, one.key) for one in before.intakes} if before else set()
    for one in after.intakes:
        if (one.url, one.key) not in known:
            require(office, Right.ADMIN, EVERYWHERE, f"let {after.name} take from {one.key}")


def _what_runs(topic: Topic) -> tuple[object, ...]:
    return topic.run, topic.command, topic.feed, topic.entry, topic.user, topic.directory, topic.environment


def _check_stranded(office: Office, before: Queue, after: Queue) -> None:
    """Another storage in the file would leave behind what lies in the old one. Raises PepperbusError unless it is a drain."""
    known = drains.read(office.config.bus.data_dir)
    for topic in after.topics.values():
        old, moving = before.topics.get(topic.name), known.get(topic.full_name)
        if old is None or old.storage == topic.storage or (moving and moving.target == topic.storage):
            continue
        if lies := sum(office.storage(old.storage).depth(topic.full_name)[:4]):
            raise PepperbusError(
                f"{lies} jobs of {topic.full_name} lie in {old.storage} and would stay there; "
                f"`pepperbus storage drain {topic.full_name} {topic.storage}` moves them, and producers notice nothing"
            )


def _note(before: Queue | None, after: Queue) -> None:
    """For the audit log: the settings that are other ones than before, as they may be shown."""
    was, now = _flat(before) if before else {}, _flat(after)
    changed = [key for key in {**was, **now} if was.get(key, ("", ""))[0] != now.get(key, ("", ""))[0]]
    note(
        before={key: was[key][1] for key in changed if key in was},
        after={key: now[key][1] for key in changed if key in now},
    )


def _told(office: Office, done: QueueFile) -> QueueFile:
    """Let the running bus take the change; one that does not run reads it when it starts."""
    try:
        answer = office.ask({"op": "reload"})
    except NotReachable as error:
        done.reload = str(error)
        return done
    done.reloaded = bool(answer.get("ok"))
    done.refused = not done.reloaded
    done.reload = trouble(answer)
    return done


# -- settings ------------------------------------------------------------------------------------------------------


def _settings(made: Queue | Topic) -> dict[str, Any]:
    shown = {field.name: _plain(getattr(made, field.name)) for field in fields(made) if field.name not in _HIDDEN}
    for extras in ("headers", "params", "environment"):
        if extras in shown:
            hidden = shown["hidden"]
            shown[extras] = [
                [name, "***" if name in hidden or is_secret(name) else value] for name, value in shown[extras]
            ]
    if isinstance(made, Topic):
        shown["alarms"] = [f"{rule} = {spell(limit, RULES[rule].unit)}" for rule, limit in made.alarms]
    shown.pop("hidden", None)
    return shown


def _flat(queue: Queue) -> dict[str, tuple[Any, Any]]:
    """`key` and `topic/key` -> what it is, and what of it may be shown."""
    made: dict[str, Queue | Topic] = {"": queue, **{f"{topic.name}/": topic for topic in queue.topics.values()}}
    return {
        where + key: (getattr(one, key), value) for where, one in made.items() for key, value in _settings(one).items()
    }


def _plain(value: Any) -> Any:
    match value:
        case Secret():
            return "***" if value else ""
        case Backoff():
            return f"{value.kind} {', '.join(f'{step:g}s' for step in value.steps)}{' jitter' if value.jitter else ''}"
        case Path() | Unique() | Rate() | Quiet() | Halt() | Canary():
            return str(value)
        case Schedule():
            return f"{value.timing.expression} {value.timing.zone}".strip()
        case dict():
            return {key: _plain(one) for key, one in value.items()}
        case None:
            return ""
        case tuple():
            return [_plain(part) for part in value]
        case Intake():
            return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        case _:
            return value
