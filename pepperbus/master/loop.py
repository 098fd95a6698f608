"""The master's loop: one queue for signals, children's messages and control requests, one `match`, then upkeep.

It knows who should live and keeps them alive; it never looks at a job. Plain Python: no gevent, no thread, because
a patched master misses SIGCHLD and a thread in a process that starts others ends in deadlocks.
`Master.turn` is one pass; running and draining are the same passes.
"""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

from pepperbus.config.model import Config
from pepperbus.errors import BootError
from pepperbus.family import beats
from pepperbus.family.spec import ORPHAN_S
from pepperbus.log import Log
from pepperbus.master import memory, reload, requests, upgrade
from pepperbus.master.births import Births, describe
from pepperbus.master.changes import longest_timeout_s, wanted
from pepperbus.master.children import Children, Phase, Place
from pepperbus.master.events import Event, Events, MoldTold, Requested, Told
from pepperbus.master.handover import Handed
from pepperbus.master.lines import Line
from pepperbus.master.notify import Notifier
from pepperbus.master.opened import Opened
from pepperbus.names import owner_name

#: The loop looks around at least this often; much more time gone means that the machine or the master stood still.
TURN_S = 1.0
_STOOD_STILL_S = 3.0
#: A process of ours is announced within this time of its birth. Later its number may be another's.
_UNCLAIMED_S = 30.0
_ABORT_TO_KILL_S = 2.0
#: What a draining process may take beyond its grace to settle and leave.
MARGIN_S = 3.0
_FAMILY_EVERY_S = 10.0
_FAT_EVERY_S = 2.0
_LAST = ("ticker", "web")  # these drain after all others have left


class Master:
    """One running bus. `opened`: lock and sockets. `roles`: the mold's table, role -> "module:function".

    `failpoints` are for the children to obey.
    """

    def __init__(
        self,
        config: Config,
        opened: Opened,
        log: Log,
        roles: dict[str, str],
        handed: Handed | None = None,
        failpoints: str = "",
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
        self.births = Births(opened, roles, self.events, log, handed, failpoints)
        self.notifier = Notifier()
        self.reloads = reload.Reloads()
        self.upgrades = upgrade.Upgrades()
        self.lines: dict[str, Line] = {}
        self.stopping = False
        self.was_ready = False
        self.fatal = ""  # why serve must end with status 3
        self._unclaimed: dict[int, tuple[int, float]] = {}  # pid nobody has announced yet -> exit status, when
        self._strangers: set[int] = set()  # pids whose ends mean nothing here
        self._last_turn = time.monotonic()
        self._excused_until = 0.0
        self._next_fat = self._next_family = self._next_watchdog = 0.0

        if handed:
            self._adopt(handed)

    def _adopt(self, handed: Handed) -> None:
        """Go on where the master before this one stopped: it was the same process, so its children are ours."""
        self.since, self.was_ready = handed.since, True
        if self.config.gateway.processes == handed.processes:
            self.gateways = handed.gateways
        self.children.places = handed.places
        self.reloads.last = handed.last_reload
        self._strangers = handed.strangers
        for name, line in handed.lines.items():
            self._listen_to(self.children.places[name], line)
        upgrade.resume(self, handed.upgrade)

    def _listen_to(self, place: Place, line: Line) -> None:
        self.lines[place.name] = line
        self.events.watch(line, lambda message: Told(place, message))

    def run(self) -> int:
        """Until everything has ended. The exit status of `serve`. Raises BootError when the bus cannot boot."""
        self.log.info("start", f"configuration {self.config.file}", pid=os.getpid(), boot=self.births.boot)
        while not self.stopping or self.children.alive():
            self.turn()
        self.births.close()
        if self.fatal:
            raise BootError(self.fatal)
        self.log.info("stopped")
        return 0

    def turn(self) -> None:
        """One pass: everything that has happened, then upkeep, then sleep until the next deadline or event."""
        now = time.monotonic()
        self.look_at_clock(now)
        while self.events:
            self._handle(self.events.take())
        self.reap()
        if not self.stopping:
            self.keep_count()
            self.births.keep_mold(self.config, now)
            self.start_due(now)
            self.recycle_fat(now)
        else:
            self.drain_the_last()
        self.kill_overdue(now)
        self.tell_family(now)
        self.give_up_waiting(now)
        upgrade.go_on(self, now)
        self.look_whether_ready()
        self.feed_watchdog(now)
        self.sleep_until_next_deadline()

    def _handle(self, event: Event) -> None:
        match event:
            case signal.SIGTERM:
                self.stop(0.0 if self.stopping else self.config.bus.grace)
            case signal.SIGINT | signal.SIGQUIT:
                self.stop(0.0)
            case signal.SIGHUP:
                reload.begin(self, lambda answer: None)
            case signal.SIGUSR1:
                self.reopen_logs()
            case signal.SIGUSR2:
                upgrade.begin(self, lambda answer: None)
            case signal.SIGTTIN:
                self.scale(self.gateways + 1)
            case signal.SIGTTOU:
                self.scale(self.gateways - 1)
            case Requested(request, reply):
                requests.handle(self, request, reply)
            case MoldTold(message):
                self._not_born(self.births.heard(message))
            case Told(place, message):
                self._hear(place, message)

    def _hear(self, place: Place, message: dict[str, Any]) -> None:
        """What a child says."""
        match message.get("op"):
            case "born":
                place.pid = int(message["pid"])
            case "ready":
                self.children.ready(place)
                place.generation = int(message["generation"])
                self.log.info("child_ready", name=place.name, pid=place.pid)
                self._next_family = 0.0
            case "generation":
                place.generation = int(message["generation"])
                if message["error"]:
                    self.drain(place, self.config.bus.grace, f"refused the new configuration: {message['error']}")
            case "failed":
                place.last_words = str(message["reason"])
                place.definite = bool(message["definite"])
            case "answer":
                self.lines[place.name].answered(int(message["id"]), message["answer"])
            case "ask":
                line, number = self.lines[place.name], message["id"]
                self.events.put(
                    Requested(
                        message["request"], lambda answer: line.tell({"op": "answer", "id": number, "answer": answer})
                    )
                )

    # --- upkeep

    def look_at_clock(self, now: float) -> None:
        """After the machine or this process stood still nobody is judged before he could beat again."""
        gone = now - self._last_turn
        self._last_turn = now
        if gone > _STOOD_STILL_S:
            self._excused_until = now + beats.LIMIT_S
            self.log.warning("stood_still", f"nothing happened for {gone:.1f} s")

    def reap(self) -> None:
        """Take the exit status of everything that ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            if pid == self.births.mold_pid:
                self._mold_ended(status)
            elif self.upgrades.trial is not None and pid == self.upgrades.trial.pid:
                upgrade.trial_ended(self, status)
            elif pid in self._strangers:
                self._strangers.discard(pid)
            else:
                self._unclaimed[pid] = status, time.monotonic()
        for pid, (status, at) in list(self._unclaimed.items()):
            if place := self.children.by_pid(pid):
                del self._unclaimed[pid]
                self._exited(place, status)
            elif time.monotonic() - at > _UNCLAIMED_S:  # what a worker's command left behind came to us, too
                del self._unclaimed[pid]

    def _mold_ended(self, status: int) -> None:
        reason = self.births.mold_ended(status, describe(status), time.monotonic())
        if reason and not self.was_ready:
            self.end(f"the mold cannot boot: {reason}")

    def _exited(self, place: Place, status: int) -> None:
        for message in self.lines[place.name].read():
            self._hear(place, message)
        reason = place.last_words or describe(status)
        self._lost(place, f"{reason} after {beats.LIMIT_S:g} s of silence" if place.aborted_at else reason)

    def _not_born(self, boot: str) -> None:
        for place in self.children.alive():
            if place.boot == boot:
                self._lost(place, "it could not be forked")

    def _lost(self, place: Place, reason: str) -> None:
        """The process of that place is gone, for this reason."""
        self.events.forget(self.lines.pop(place.name))
        self.births.page.forget(place.beat)
        self._next_family = 0.0
        pid, asked = place.pid, place.phase is Phase.DRAINING
        self.children.exit(place, reason, time.monotonic(), random.random(), gave_up=bool(place.last_words))
        if asked:
            self.log.info("child_left", place.reason, name=place.name, pid=pid)
            return
        self.log.error("child_died", reason, name=place.name, pid=pid)
        if place.phase is Phase.FAILED:
            why = f"{place.boot_failures} boot failures in a row, not tried again before a reload: {reason}"
            self.log.error("child_failed", why, name=place.name)
        if place.role == "gateway" and not self.was_ready and (place.definite or place.phase is Phase.FAILED):
            self.end(f"{place.name} cannot boot: {reason}")

    def keep_count(self) -> None:
        """As many of each as the configuration says."""
        for one in wanted(self.config, self.gateways, set(self.roles), self.workers):
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

    def kill_overdue(self, now: float) -> None:
        """End what is silent (first with a traceback, then for sure) and what drains beyond its limit."""
        for place in self.children.alive():
            if place.phase is Phase.DRAINING and now >= place.kill_at and place.pid:
                self._kill(place, signal.SIGKILL, "still there after its grace")
            elif not place.pid and not self.lines[place.name].is_open:
                self._lost(place, "it died at birth")
            elif now >= self._excused_until and self.births.page.overdue_s(place.beat, now):
                self._end_stuck(place, now)

    def _end_stuck(self, place: Place, now: float) -> None:
        if not place.pid:
            self.births.kill_mold()
            self._lost(place, "it was never born")
        elif not place.aborted_at:
            place.aborted_at = now
            self._kill(place, signal.SIGABRT, f"silent for more than {beats.LIMIT_S:g} s; its traceback follows")
        elif now - place.aborted_at >= _ABORT_TO_KILL_S:
            self._kill(place, signal.SIGKILL, "it did not end by itself")

    def _kill(self, place: Place, number: signal.Signals, why: str) -> None:
        self.log.error("child_killed", why, name=place.name, pid=place.pid, signal=number.name)
        os.kill(place.pid, number)  # not reaped yet, so the pid is still its own

    def recycle_fat(self, now: float) -> None:
        """Drain and replace what grew over the memory limit."""
        limit = self.config.bus.memory_limit
        if not limit or now < self._next_fat:
            return
        self._next_fat = now + _FAT_EVERY_S
        for place in self.children.alive():
            if place.phase is Phase.READY and (used := memory.private_bytes(place.pid)) > limit:
                why = f"{used >> 20} MiB of memory, [bus] memory_limit is {limit >> 20} MiB"
                self.log.warning("child_fat", why, name=place.name, pid=place.pid)
                self.drain(place, self.config.bus.grace, why)

    def tell_family(self, now: float) -> None:
        """Tell the ticker now and then who lives: it gives back what the dead had leased."""
        if now < self._next_family:
            return
        self._next_family = now + _FAMILY_EVERY_S
        alive = self.children.alive()
        owners = [owner_name(self.config.bus.node, place.name, place.boot) for place in alive]
        command = {"op": "family", "names": [place.name for place in alive], "owners": owners}
        for place in self.children.of("ticker"):
            if place.phase is Phase.READY:
                self.lines[place.name].tell({"op": "command", "id": 0, "command": command})

    def give_up_waiting(self, now: float) -> None:
        for line in self.lines.values():
            line.give_up(now)
        reload.look_whether_done(self, now)

    def look_whether_ready(self) -> None:
        if not self.was_ready and not self.stopping and self.children.settled():
            self.was_ready = True
            self.log.info("ready", self.summary())
            self.notifier.ready(self.summary())

    def feed_watchdog(self, now: float) -> None:
        if self.notifier.watchdog_every and now >= self._next_watchdog:
            self._next_watchdog = now + self.notifier.watchdog_every
            self.notifier.watchdog()

    def sleep_until_next_deadline(self) -> None:
        if not self.events and not (self.stopping and not self.children.alive()):
            until = self.children.next_time() - time.monotonic()
            self.events.sleep(min(max(until, 0.02), TURN_S))

    # --- verbs

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
