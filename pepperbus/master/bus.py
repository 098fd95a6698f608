"""One running bus as its master keeps it: what it consists of, and what can be done to its processes.

Knows who should live and does what it is told; when is for `loop`, `reload`, `replacing` and `requests`, which stand above.
"""

from __future__ import annotations

import random
import time

from pepperbus.config.model import Config
from pepperbus.family.spec import ORPHAN_S
from pepperbus.log import Log
from pepperbus.master.births import Births
from pepperbus.master.changes import longest_timeout_s, wanted
from pepperbus.master.children import Children, Place, Wanted
from pepperbus.master.events import Events, Told
from pepperbus.master.handed import Handed
from pepperbus.master.lines import Line
from pepperbus.master.mold import Mold
from pepperbus.master.notify import Notifier
from pepperbus.master.opened import Opened

#: What a draining process may take beyond its grace to settle and leave.
MARGIN_S = 3.0
_LAST = ("ticker", "web")  # these drain after all others have left


class Bus:
    """`opened`: lock and sockets. `roles`: the mold's table, role -> "module:function".

    `failpoints` are for the children to obey. `mold`: one that was started already.
    """

    def __init__(
        self,
        config: Config,
        opened: Opened,
        log: Log,
        roles: dict[str, str],
        handed: Handed | None = None,
        failpoints: str = "",
        mold: Mold | None = None,
    ) -> None:
        self.config = config
        self.opened = opened
        self.log = log
        self.roles = roles
        self.since = time.time()
        self.gateways = config.gateway.processes
        self.workers: dict[str, int] = {}  # group -> how many, where the configuration gives a range
        self.children = Children()
        self.events = Events(opened.control, handed.clients if handed else ())
        self.births = Births(opened, roles, self.events, log, handed, failpoints, mold)
        self.notifier = Notifier()
        self.lines: dict[str, Line] = {}
        self._asked: tuple[Config, int, dict[str, int]] | None = None  # what `_wanted` is the answer to
        self._wanted: list[Wanted] = []
        self.stopping = False
        self.was_ready = False
        self.fatal = ""  # why serve must end with status 3
        if handed:
            self._adopt(handed)

    def _adopt(self, handed: Handed) -> None:
        """Go on where the master before this one stopped: it was the same process, so its children are ours."""
        self.since, self.was_ready = handed.since, True
        if self.config.gateway.processes == handed.processes:
            self.gateways = handed.gateways
        self.children.places = handed.places
        for name, line in handed.lines.items():
            self._listen_to(self.children.places[name], line)

    def _listen_to(self, place: Place, line: Line) -> None:
        self.lines[place.name] = line
        self.events.watch(line, lambda message: Told(place, message))

    def keep_count(self) -> None:
        """As many of each as the configuration says."""
        asked = self.config, self.gateways, dict(self.workers)
        if self._asked is None or self._asked[0] is not asked[0] or self._asked[1:] != asked[1:]:
            self._asked = asked  # a thousand queues are not gone through every second
            self._wanted = wanted(self.config, self.gateways, set(self.roles), self.workers)
        for one in self._wanted:
            for surplus in self.children.keep_count(one):
                grace = max(self.config.bus.grace, longest_timeout_s(self.config, one.group))
                self.retire(surplus, grace, "no longer wanted")

    def start_due(self, now: float) -> None:
        if not self.births.has_mold:
            return
        for place in self.children.due(now):
            if place.short_lives and not self.births.may_restart(now):
                continue
            self.children.start(place, self.births.new_boot(), self.config.generation, now)
            try:
                line = self.births.start(place)
            except OSError as error:  # no descriptor to be had: those that live go on
                self.children.exit(place, error.strerror or str(error), now, random.random())
                self.log.error("child_not_started", place.reason, name=place.name)
                continue
            self._listen_to(place, line)

    def stop(self, grace: float) -> None:
        """Drain everybody within `grace` seconds; gateways and workers first."""
        if not self.stopping:
            self.stopping = True
            self.log.info("stopping", grace=grace)
            self.notifier.stopping()
        for place in self.children.alive():
            if place.role not in _LAST:
                self.drain(place, grace, "the bus stops")

    def drain_the_last(self) -> None:
        """Ticker and web leave last, so that the ends of the others are still journalled, released and shown."""
        if all(place.role in _LAST for place in self.children.alive()):
            for place in self.children.alive():
                self.drain(place, ORPHAN_S, "the bus stops")

    def end(self, reason: str) -> None:
        """Stop because it makes no sense to go on."""
        self.fatal = self.fatal or reason
        self.stop(0.0)

    def drain(self, place: Place, grace: float, reason: str) -> None:
        if self.children.drain(place, time.monotonic() + grace + MARGIN_S, reason):
            self.lines[place.name].tell({"op": "drain", "grace": grace})

    def retire(self, place: Place, grace: float, reason: str) -> None:
        self.children.retire(place)
        self.drain(place, grace, reason)

    def reopen_logs(self) -> None:
        self.log.reopen()
        for line in self.lines.values():
            line.tell({"op": "reopen"})
        self.log.info("reopened")

    def scale(self, gateways: int) -> None:
        """That many gateway processes, 1 to 15: the job ids have four bits for them."""
        self.gateways = min(max(gateways, 1), 15)
        self.log.info("scaled", gateways=self.gateways)

    def scale_workers(self, group: str, workers: int) -> None:
        """That many worker processes, within the range its queues give; those too many finish what they have."""
        if self.workers.get(group) != workers:
            self.workers[group] = workers
            self.log.info("scaled", group=group, workers=workers)

    def summary(self) -> str:
        alive = self.children.alive()
        processes, queues = _count(len(alive), "process", "es"), _count(len(self.config.queues), "queue", "s")
        return f"{processes}, {queues}, generation {self.config.generation}"


def _count(n: int, what: str, plural: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}{plural}"
