"""The trial: before an upgrade, a process from the code on disk does what the new processes will have to do.

It imports everything that master and mold import, loads the configuration, opens the storages that are used, reports and
ends. It holds no lock and no socket of the bus, takes no lease and gives nothing back: a failed trial changes nothing.
What it finds wrong is the last line of its standard error, also when this file itself is what is broken.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

# ruff: noqa: E402
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from pepperbus import __version__
from pepperbus.config.load import load
from pepperbus.config.model import Config
from pepperbus.errors import PepperbusError
from pepperbus.master import handover
from pepperbus.master.mold import preload
from pepperbus.storage import open_storage

_ENTRIES = ("pepperbus.cli.serve", "pepperbus.master.serve", "pepperbus.mold")


def attempt(config_path: Path, roles: dict[str, str]) -> dict[str, Any]:
    """Everything; the report. Raises PepperbusError for what an operator can mend, anything else for broken code."""
    for name in _ENTRIES:
        importlib.import_module(name)
    for path in roles.values():
        module, _, function = path.partition(":")
        getattr(importlib.import_module(module), function)
    config = load(config_path)
    for name in preload(config, roles):
        importlib.import_module(name)
    _open_storages(config)
    return {"version": __version__, "handover": handover.VERSION, "fixed": handover.fixed(config)}


def _open_storages(config: Config) -> None:
    used = {topic.storage for queue in config.queues.values() for topic in queue.topics.values()}
    for name in sorted(used):
        storage = open_storage(config.storages[name])
        try:
            storage.open()
        finally:
            storage.close()


def main(fd: int, config_path: str, roles: str) -> None:
    """Try, and write the report to `fd` as one JSON object."""
    try:
        report = attempt(Path(config_path), json.loads(roles))
    except PepperbusError as error:
        sys.exit("; ".join(str(error).splitlines()))
    os.write(fd, json.dumps(report).encode())
