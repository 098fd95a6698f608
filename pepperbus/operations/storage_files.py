"""Storages as an operator edits them: the section [storages] of the node's file, comments and order kept.

Floor 4. A change is tried on the whole configuration, and a Redis is asked whether it is there, before the file is replaced.
Urls may hold passwords: they are neither shown nor written into the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pepperbus.config.model import Config
from pepperbus.errors import BootError, NotFound, PepperbusError, UsageError
from pepperbus.names import NAME_RULE, is_name
from pepperbus.operations import node_file
from pepperbus.operations.office import Office
from pepperbus.operations.results import QueueFile
from pepperbus.operations.rights import Right, operation
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
    def put_storages(tree: Any) -> None:
        put(tree.setdefault("storages", {}))

    return node_file.edit(office, name, what, put_storages, lambda config: _ask(config, name))


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
