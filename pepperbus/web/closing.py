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
#: After a try that failed.
_FIRST_WAIT_S, _LAST_WAIT_S = 5.0, 600.0


class Leaving:
    """What waits to be empty. What a gateway had taken in just before it was closed must be stored by the time it goes."""

    def __init__(self, office: Office, log: Log, stuck: dict[str, str]) -> None:
        """`stuck`: name -> why it could not be removed, for the pages."""
        self._office, self._log, self._stuck = office, log, stuck
        self._empty: dict[str, float] = {}  # name -> since when it is empty (monotonic s)
        self._again: dict[str, tuple[float, float]] = {}  # name -> when to try again, and how long that wait is
        self._read: Config | None = None  # the configuration that `_wanted` is of
        self._wanted: list[str] = []

    def look(self) -> list[str]:
        """One look; which queues and topics went."""
        if self._office.config is not self._read:
            self._read = self._office.config
            self._wanted = closing.leaving(self._read)
        wanted = self._wanted
        self._empty = {name: since for name, since in self._empty.items() if name in wanted}
        for name in [name for name in self._stuck if name not in wanted]:
            self._forget(name)
        return [name for name in wanted if self._tried(name)]

    def _tried(self, name: str) -> bool:
        """Whatever goes wrong with one must not keep the others."""
        at, wait = self._again.get(name, (0.0, _FIRST_WAIT_S))
        if time.monotonic() < at:
            return False
        try:
            if not self._is_empty(name):
                return False
            self._again[name] = time.monotonic() + wait, min(wait * 3, _LAST_WAIT_S)  # each is in the audit log
            went = closing.finish(self._office, name)
        except Exception as error:
            text = str(error) if isinstance(error, PepperbusError) else repr(error)
            if self._stuck.get(name) != text:
                self._stuck[name] = text
                self._log.warning("closed_not_removed", text, name=name)
            return False
        self._forget(name)
        if went:
            self._log.info("closed_removed", f"{name} was closed and is empty", name=name)
        return went

    def _forget(self, name: str) -> None:
        self._stuck.pop(name, None)
        self._again.pop(name, None)

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
    leaving = Leaving(office, log, desk.stuck)
    while True:
        gevent.sleep(_EVERY_S)
        office.config = desk.base.config
        if leaving.look():
            desk.monitor.forget()
