"""Storages: where jobs rest. `contract` is the page to read, `open_storage` the door; engines are found by their type.

Other packages add engines through the entry-point group `pepperbus.storage`: the entry's name is the type, its object
is called like a class of the table below.
"""

from __future__ import annotations

from importlib import import_module

from pepperbus.clock import Clock, SystemClock
from pepperbus.config.model import StorageConfig
from pepperbus.errors import ConfigError
from pepperbus.log import Log
from pepperbus.storage.contract import Storage

GROUP = "pepperbus.storage"
ENGINES = {
    "embedded": "pepperbus.storage.embedded:EmbeddedStorage",
    "redis": "pepperbus.storage.redis:RedisStorage",
    "memory": "pepperbus.storage.memory:MemoryStorage",
}


def open_storage(config: StorageConfig, clock: Clock | None = None, log: Log | None = None) -> Storage:
    """The engine of `config.type` for this entry, not opened yet. Raises ConfigError when nothing provides the type.

    `log` hears when the engine is lost and found again; without one it is silent.
    """
    made: Storage = _engine(config)(config, clock or SystemClock(), log)
    return made


def _engine(config: StorageConfig):  # type: ignore[no-untyped-def]  # any callable of an installed package
    if path := ENGINES.get(config.type):
        module, _, attribute = path.partition(":")
        return getattr(import_module(module), attribute)
    from importlib.metadata import entry_points  # slow to import, and hardly ever wanted

    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if entry := others.get(config.type):
        return entry.load()
    known = ", ".join(sorted({*ENGINES, *others}))
    raise ConfigError(f"storage {config.name}: type {config.type!r} is not installed; known types: {known}")
