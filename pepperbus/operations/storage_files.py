"""Storages as an operator edits them: the section [storages] of the node's file, comments and order kept.

Floor 4. A change is tried on the whole configuration, and a Redis is asked whether it is there, before the file is replaced.
Urls may hold passwords: they are neither shown nor written into the audit log.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pepperbus.config.load import load
from pepperbus.config.model import Config
from pepperbus.errors import BootError, ConfigError, NotFound, NotReachable, PepperbusError, UsageError
from pepperbus.names import NAME_RULE, is_name
from pepperbus.operations import queues
from pepperbus.operations.office import Office
from pepperbus.operations.queue_text import as_text, parsed, text_of
from pepperbus.operations.results import QueueFile
from pepperbus.operations.rights import Right, operation
from pepperbus.operations.steer import trouble
from pepperbus.storage import open_storage

KEYS = ("type", "url", "mode", "store_timeout")


@operation(Right.ADMIN, details=("name",), tells=("what", "reload"))
def add(office: Office, name: str, settings: Mapping[str, str]) -> QueueFile:
    """A new storage. Raises UsageError, ConfigError, and PepperbusError when it exists or does not answer as it must."""
    if not is_name(name):
        raise UsageError(f"{name!r} cannot name a storage: {NAME_RULE}")

    def put(storages: Any) -> None:
        if name in storages or name in office.config.storages:
            raise PepperbusError(f"storage {name!r} exists already; `storage set` changes it")
        storages[name] = _checked(settings)

    return _edit(office, name, "created", put)


@operation(Right.ADMIN, details=("name", "unset"), tells=("what", "reload"))
def change(office: Office, name: str, settings: Mapping[str, str], unset: Iterable[str] = ()) -> QueueFile:
    """Set and unset keys of a storage. Raises as `add`. What lies there must lie where it then leads to."""

    def put(storages: Any) -> None:
        if name not in storages:
            raise NotFound(f"the node's file has no storage {name!r}")
        for key in unset:
            storages[name].pop(key, None)
        storages[name].update(_checked(settings))

    return _edit(office, name, "changed", put)


@operation(Right.ADMIN, details=("name",), tells=("what", "reload"))
def remove(office: Office, name: str) -> QueueFile:
    """Take a storage out. Raises PepperbusError while a topic names it or jobs lie there."""
    users = sorted(topic.full_name for topic in office.topics() if topic.storage == name)
    if users:
        raise PepperbusError(f"{len(users)} topics lie in {name} ({', '.join(users[:5])} …); drain them first")
    if name in office.config.storages and (left := office.storage(name).topics()):
        raise PepperbusError(f"jobs of {', '.join(sorted(left)[:5])} still lie in {name}; drain or purge them first")

    def put(storages: Any) -> None:
        if name not in storages:
            raise NotFound(f"the node's file has no storage {name!r}")
        del storages[name]

    return _edit(office, name, "removed", put)


def _checked(settings: Mapping[str, str]) -> dict[str, str]:
    for key in settings:
        if key not in KEYS:
            raise UsageError(f"{key}: a storage has the keys {', '.join(KEYS)}")
    return dict(settings)


def _edit(office: Office, name: str, what: str, put: Callable[[Any], None]) -> QueueFile:
    file = office.config.file
    with queues.editing(file):  # asking takes a while, and another editor's change must not be lost meanwhile
        before = text_of(file, name)
        tree = parsed(before)
        put(tree.setdefault("storages", {}))
        after = as_text(tree, before)
        _ask(_tried(file, after), name)
        queues.put_text(file, after, office.config.bus)
    done = QueueFile(name, str(file), what)
    try:
        answer = office.ask({"op": "reload"})
    except NotReachable as error:
        done.reload = str(error)
        return done
    done.reloaded = bool(answer.get("ok"))
    done.refused, done.reload = not done.reloaded, trouble(answer)
    return done


def _tried(file: Path, text: str) -> Config:
    """The configuration as it would be. Raises ConfigError in the words of `check`."""
    trial = file.with_name(f".{file.name}.trial")
    try:
        fd = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as out:
            out.write(text)
        return load(trial)
    except ConfigError as error:
        raise ConfigError(*(mistake.replace(trial.name, file.name) for mistake in error.mistakes)) from error
    except OSError as error:
        raise PepperbusError(f"{error.filename or file}: {error.strerror or error}") from error
    finally:
        trial.unlink(missing_ok=True)


def _ask(config: Config, name: str) -> None:
    """Is it there, and may it be used? An embedded one is made when it is first needed."""
    made = config.storages.get(name)
    if made is None or made.type == "embedded":
        return
    storage = open_storage(made)
    try:
        storage.open()
    except (PepperbusError, BootError) as error:
        raise PepperbusError(f"{error}; nothing was changed") from error
    finally:
        storage.close()
