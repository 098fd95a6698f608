"""Removes queues that were closed for that, as soon as they are empty. Floor 5."""

from __future__ import annotations

import gevent

from pepperbus.accounts.model import HOST_ROLES, Actor, Via
from pepperbus.errors import PepperbusError
from pepperbus.log import Log
from pepperbus.operations import closing, queues
from pepperbus.web.desk import Desk

_EVERY_S = 2.0
#: Looks in a row that must find it empty: what a gateway had taken in just before it was closed is stored by then.
_LOOKS = 2


def run(desk: Desk, log: Log) -> None:
    """For ever."""
    office = desk.base.acting(Actor("the bus", Via.CLI, roles=HOST_ROLES))
    empty: dict[str, int] = {}
    while True:
        gevent.sleep(_EVERY_S)
        office.config = desk.base.config
        waiting = [queue.name for queue in office.config.queues.values() if queue.closed == "remove"]
        empty = {name: n for name, n in empty.items() if name in waiting}
        for name in waiting:
            try:
                empty[name] = empty.get(name, 0) + 1 if not queues.lying(office, name) else 0
                if empty[name] >= _LOOKS and closing.finish(office, name):
                    log.info("queue_removed", f"{name} was closed and is empty", queue=name)
                    desk.monitor.forget()
            except PepperbusError as error:
                log.warning("queue_not_removed", str(error), queue=name)
