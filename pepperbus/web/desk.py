"""What the parts of the sidecar share. Floor 5."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from flask import g, has_request_context
from gevent.lock import RLock

from pepperbus.accounts.model import HOST_ROLES, Actor, Via
from pepperbus.config.model import Config
from pepperbus.operations.office import Office
from pepperbus.operations.results import Status
from pepperbus.operations.status import visible
from pepperbus.storage.contract import Storage
from pepperbus.web.monitor import Monitor
from pepperbus.web.neighbourhood import Neighbourhood

NOBODY = Actor("nobody", Via.WEB)
_ITSELF = Actor("sidecar", Via.WEB, roles=HOST_ROLES)


class SharedOffice(Office):
    """An office for many greenlets: each storage is opened once, whoever comes first."""

    def __init__(self, config: Config, *words: Any, **more: Any) -> None:
        super().__init__(config, *words, **more)
        self.actor = NOBODY
        self._opening: defaultdict[str, RLock] = defaultdict(RLock)

    def storage(self, name: str) -> Storage:
        with self._opening[name]:
            return super().storage(name)

    def take(self, config: Config) -> None:
        """Go on with a new configuration; storages it changes are let go and opened again when needed."""
        old, self.config = self.config, config
        for name in [n for n in self._storages if old.storages.get(n) != config.storages.get(n)]:
            self._storages.pop(name).close()


@dataclass(slots=True)
class Desk:
    """One sidecar's working place. `base` is nobody's office: its operations refuse everything."""

    base: SharedOffice
    monitor: Monitor
    stuck: dict[str, str] = field(
        default_factory=dict
    )  # queue or topic that should go once it is empty -> why it cannot
    neighbourhood: Neighbourhood = field(init=False)

    def __post_init__(self) -> None:
        self.neighbourhood = Neighbourhood(lambda: self.itself)

    @property
    def office(self) -> SharedOffice:
        """The office with the person in it who sent this request."""
        actor: Actor | None = g.get("actor") if has_request_context() else None
        return self.base.acting(actor) if actor else self.base

    @property
    def itself(self) -> SharedOffice:
        """The office with the sidecar in it, for what it shows to everybody who may ask at all."""
        return self.base.acting(_ITSELF)

    def status(self) -> Status:
        """The node, at most a second old: what of it this request's person may see."""
        return visible(self.office, self.monitor.status())
