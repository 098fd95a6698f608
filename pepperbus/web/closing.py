"""Removes queues and topics that were closed for that, as soon as they are empty. Floor 5."""

from __future__ import annotations

import time

import gevent

from pepperbus.accounts.model import HOST_ROLES, Actor, Via
from pepperbus.config.model import Config
from pepperbus.errors import PepperbusError
from pepperbus.log import Log
from pepperbus.operations import closing, queues
from pepperbus.operations.office import Office
from pepperbus.web.desk import Desk

_EVERY_S = 1.0
#: Until every gateway has taken a new configuration.
_TAKEN_S = 2.0


class Leaving:
    """What waits to be empty. What a gateway had taken in just before it was closed must be stored by the time it goes."""

    def __init__(self, office: Office, log: Log) -> None:
        self._office, self._log = office, log
        self._empty: dict[str, float] = {}  # name -> since when it is empty (monotonic s)
        self._said: dict[str, str] = {}  # name -> why it could not be removed

    def look(self) -> list[str]:
        """One look; which queues and topics went."""
        wanted = closing.leaving(self._office.config)
        self._empty = {name: since for name, since in self._empty.items() if name in wanted}
        self._said = {name: why for name, why in self._said.items() if name in wanted}
        return [name for name in wanted if self._tried(name)]

    def _tried(self, name: str) -> bool:
        """Whatever goes wrong with one must not keep the others."""
        try:
            went = self._is_empty(name) and closing.finish(self._office, name)
        except Exception as error:
            text = str(error) if isinstance(error, PepperbusError) else repr(error)
            if self._said.get(name) != text:
                self._said[name] = text
                self._log.warning("closed_not_removed", text, name=name)
            return False
        self._said.pop(name, None)
        if went:
            self._log.info("closed_removed", f"{name} was closed and is empty", name=name)
        return went

    def _is_empty(self, name: str) -> bool:
        """For as long as a push may be under way."""
        if queues.lying(self._office, name):
            self._empty.pop(name, None)
            return False
        now = time.monotonic()
        return now - self._empty.setdefault(name, now) >= _patience_s(self._office.config, name)


def _patience_s(config: Config, name: str) -> float:
    queue = config.queues[name.partition("/")[0]]
    return _TAKEN_S + max(config.storages[topic.storage].store_timeout for topic in queue.topics.values())


def run(desk: Desk, log: Log) -> None:
    """For ever."""
    office = desk.base.acting(Actor("the bus", Via.CLI, roles=HOST_ROLES))
    leaving = Leaving(office, log)
    while True:
        gevent.sleep(_EVERY_S)
        office.config = desk.base.config
        if leaving.look():
            desk.monitor.forget()
