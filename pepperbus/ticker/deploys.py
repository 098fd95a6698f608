"""Marks that the bus sets by itself: it started, runs other code than before, took another configuration. Floor 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pepperbus
from pepperbus.clock import Clock
from pepperbus.config.model import Config
from pepperbus.journal import deploys
from pepperbus.journal.deploys import Deploy

_MOST_NAMED = 20


class Marks:
    """The ticker's. What cannot be written is said in the log and forgotten."""

    def __init__(self, clock: Clock, log: Any) -> None:
        self._clock = clock
        self._log = log

    def started(self, config: Config, boot: str) -> None:
        """A ticker has begun: is this another bus, or other code, than what the last one was part of?"""
        known = [one for one in deploys.read(config.bus.data_dir) if one.boot]
        last = known[-1] if known else None
        if last is None or last.boot != boot:
            self._add(config, Deploy(self._clock.now_ms(), "start", pepperbus.__version__, boot=boot, code=_CODE))
        elif last.code != _CODE:
            self._add(config, Deploy(self._clock.now_ms(), "upgrade", pepperbus.__version__, boot=boot, code=_CODE))

    def took(self, old: Config, new: Config) -> None:
        """Another configuration is in force; one in which no queue differs is not worth a mark."""
        names = sorted(old.queues.keys() | new.queues.keys())
        changed = tuple(name for name in names if old.queues.get(name) != new.queues.get(name))
        if changed:
            text = f"{len(changed)} queues" if len(changed) > _MOST_NAMED else ""
            self._add(new, Deploy(self._clock.now_ms(), "reload", text, queues=changed[:_MOST_NAMED]))

    def _add(self, config: Config, deploy: Deploy) -> None:
        try:
            deploys.add(config.bus.data_dir, deploy)
        except OSError as error:
            self._log.warning("chore_failed", str(error), chore="marks")


def _code() -> str:
    """Which code is imported: when it was changed last, as an upgrade need not have another version."""
    changed = max(int(path.stat().st_mtime) for path in Path(pepperbus.__file__).parent.rglob("*.py"))
    return f"{pepperbus.__version__} {changed:x}"


_CODE = _code()  # looked up with the import: what lies on the disk later is not what runs
