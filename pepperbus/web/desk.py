"""What the parts of the sidecar share. Floor 5."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from gevent.lock import RLock

from pepperbus.config.model import Config
from pepperbus.operations.office import Office
from pepperbus.storage.contract import Storage
from pepperbus.web.monitor import Monitor


class SharedOffice(Office):
    """An office for many greenlets: each storage is opened once, whoever comes first."""

    _opening: defaultdict[str, RLock] | None = None

    def storage(self, name: str) -> Storage:
        if self._opening is None:
            self._opening = defaultdict(RLock)
        with self._opening[name]:
            return super().storage(name)

    def take(self, config: Config) -> None:
        """Go on with a new configuration; storages it changes are let go and opened again when needed."""
        old, self.config = self.config, config
        for name in [n for n in self._storages if old.storages.get(n) != config.storages.get(n)]:
            self._storages.pop(name).close()


@dataclass(slots=True)
class Desk:
    """One sidecar's working place."""

    office: SharedOffice
    monitor: Monitor
