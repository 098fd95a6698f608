"""The master's loop: one queue for signals, children's messages and control requests, one `match`, then upkeep.

It keeps alive who should live; it never looks at a job. Plain Python: no gevent, no thread, because
a patched master misses SIGCHLD and a thread in a process that starts others ends in deadlocks.
`Master.turn` is one pass; running and draining are the same passes.
"""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

from pepperbus.config.known import Known
from pepperbus.errors import BootError
from pepperbus.family import beats
from pepperbus.master import memory
from pepperbus.master.births import describe
from pepperbus.master.bus import Bus
from pepperbus.master.children import Phase, Place
from pepperbus.master.events import Event, MoldTold, Requested, Told
from pepperbus.master.handed import Handed
from pepperbus.master.reload import Reload
from pepperbus.master.requests import Requests
from pepperbus.master.starved import LOOK_AHEAD_S, Waits
from pepperbus.master.upgrade import Upgrade
from pepperbus.names import owner_name

#: The loop looks around at least this often; much more time gone means that the machine or the master stood still.
TURN_S = 1.0
_STOOD_STILL_S = 3.0
#: A process of ours is announced within this time of its birth. Later its number may be another's.
_UNCLAIMED_S = 30.0
_ABORT_TO_KILL_S = 2.0
_FAMILY_EVERY_S = 10.0
_FAT_EVERY_S = 2.0


class Master:
    """What runs one bus. `handed`: what the code before this one left, after an upgrade. `known`: the files as first read."""

    def __init__(self, bus: Bus, handed: Handed | None = None, known: Known | None = None) -> None:
        self.bus = bus
        self.reload = Reload(bus, known)
        self.upgrade = Upgrade(bus, self.reload)
        self._requests = Requests(bus, self.reload, self.upgrade)
        self._unclaimed: dict[int, tuple[int, float]] = {}  # pid nobody has announced yet -> exit status, when
        self._strangers: set[int] = set()  # pids whose ends mean nothing here
        self._waits = Waits()
        self._last_turn = time.monotonic()
        self._excused_until = 0.0
        self._next_fat = self._next_family = self._next_watchdog = 0.0
        if handed:
            self.reload.last = handed.last_reload
            self._strangers = handed.strangers
            self.upgrade.resume(handed.upgrade)

    def run(self) -> int:
        """Until everything has ended. The exit status of `serve`. Raises BootError when the bus cannot boot."""
        self.bus.log.info("start", f"configuration {self.bus.config.file}", pid=os.getpid(), boot=self.bus.births.boot)
        self.bus.births.keep_mold(self.bus.config, time.monotonic())  # one that was started before is ours to reap
        while not self.bus.stopping or self.bus.children.alive():
            self.turn()
        self.bus.births.close()
        if self.bus.fatal:
            raise BootError(self.bus.fatal)
        self.bus.log.info("stopped")
        return 0

    def turn(self) -> None:
        """One pass: everything that has happened, then upkeep, then sleep until the next deadline or event."""
        bus, now = self.bus, time.monotonic()
        self.look_at_clock(now)
        while bus.events:
            self._handle(bus.events.take())
        self.reap()
        if not bus.stopping:
            bus.keep_count()
            bus.births.keep_mold(bus.config, now)
            bus.start_due(now)
            self.recycle_fat(now)
        else:
            bus.drain_the_last()
        self.kill_overdue(now)
        self.tell_family(now)
        self.give_up_waiting(now)
        self.upgrade.go_on(now)
        self.look_whether_ready()
        self.feed_watchdog(now)
        self.sleep_until_next_deadline()

    def _handle(self, event: Event) -> None:
        bus = self.bus
        match event:
            case signal.SIGTERM:
                bus.stop(0.0 if bus.stopping else bus.config.bus.grace)
            case signal.SIGINT | signal.SIGQUIT:
                bus.stop(0.0)
            case signal.SIGHUP:
                self.reload.begin(lambda answer: None)
            case signal.SIGUSR1:
                bus.reopen_logs()
            case signal.SIGUSR2:
                self.upgrade.begin(lambda answer: None)
            case signal.SIGTTIN:
                bus.scale(bus.gateways + 1)
            case signal.SIGTTOU:
                bus.scale(bus.gateways - 1)
            case Requested(request, reply):
                self._requests.handle(request, reply)
            case MoldTold(message):
                self._not_born(bus.births.heard(message))
            case Told(place, message):
                self._hear(place, message)

    def _hear(self, place: Place, message: dict[str, Any]) -> None:
        """What a child says."""
        match message.get("op"):
            case "born":
                place.pid = int(message["pid"])
            case "ready":
                self.bus.children.ready(place)
                place.generation = int(message["generation"])
                self.bus.log.info("child_ready", name=place.name, pid=place.pid)
                self._next_family = 0.0
            case "generation":
                place.generation = int(message["generation"])
                if message["error"]:
                    self.bus.drain(
                        place, self.bus.config.bus.grace, f"refused the new configuration: {message['error']}"
                    )
            case "failed":
                place.last_words = str(message["reason"])
                place.definite = bool(message["definite"])
            case "answer":
                self.bus.lines[place.name].answered(int(message["id"]), message["answer"])
            case "ask":
                line, number = self.bus.lines[place.name], message["id"]
                self.bus.events.put(
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
            self.bus.log.warning("stood_still", f"nothing happened for {gone:.1f} s")

    def reap(self) -> None:
        """Take the exit status of everything that ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            if pid == self.bus.births.mold_pid:
                self._mold_ended(status)
            elif self.upgrade.trial is not None and pid == self.upgrade.trial.pid:
                self.upgrade.trial_ended(status)
            elif pid in self._strangers:
                self._strangers.discard(pid)
            else:
                self._unclaimed[pid] = status, time.monotonic()
        for pid, (status, at) in list(self._unclaimed.items()):
            if place := self.bus.children.by_pid(pid):
                del self._unclaimed[pid]
                self._exited(place, status)
            elif time.monotonic() - at > _UNCLAIMED_S:  # what a worker's command left behind came to us, too
                del self._unclaimed[pid]

    def _mold_ended(self, status: int) -> None:
        reason = self.bus.births.mold_ended(status, describe(status), time.monotonic())
        if reason and not self.bus.was_ready:
            self.bus.end(f"the mold cannot boot: {reason}")

    def _exited(self, place: Place, status: int) -> None:
        for message in self.bus.lines[place.name].read():
            self._hear(place, message)
        reason = place.last_words or describe(status)
        self._lost(place, f"{reason} after {beats.LIMIT_S:g} s of silence" if place.aborted_at else reason)

    def _not_born(self, boot: str) -> None:
        for place in self.bus.children.alive():
            if place.boot == boot:
                self._lost(place, "it could not be forked")

    def _lost(self, place: Place, reason: str) -> None:
        """The process of that place is gone, for this reason."""
        self.bus.events.forget(self.bus.lines.pop(place.name))
        self.bus.births.page.forget(place.beat)
        self._next_family = 0.0
        pid, asked = place.pid, place.phase is Phase.DRAINING
        self.bus.children.exit(place, reason, time.monotonic(), random.random(), gave_up=bool(place.last_words))
        if asked:
            self.bus.log.info("child_left", place.reason, name=place.name, pid=pid)
            return
        self.bus.log.error("child_died", reason, name=place.name, pid=pid)
        if place.phase is Phase.FAILED:
            why = f"{place.boot_failures} boot failures in a row, not tried again before a reload: {reason}"
            self.bus.log.error("child_failed", why, name=place.name)
        if place.role == "gateway" and not self.bus.was_ready and (place.definite or place.phase is Phase.FAILED):
            self.bus.end(f"{place.name} cannot boot: {reason}")

    def kill_overdue(self, now: float) -> None:
        """End what is silent (first with a traceback, then for sure) and what drains beyond its limit."""
        for place in self.bus.children.alive():
            if place.phase is Phase.DRAINING and now >= place.kill_at and place.pid:
                self._kill(place, signal.SIGKILL, "still there after its grace")
            elif not place.pid and not self.bus.lines[place.name].is_open:
                self._lost(place, "it died at birth")
            elif now >= self._excused_until and self._is_stuck(place, now):
                self._end_stuck(place, now)

    def _is_stuck(self, place: Place, now: float) -> bool:
        """Whether it broke its promise, and not for want of a core; who is not born yet is the mold's to bring forth."""
        births = self.bus.births
        page = births.page
        soon_s = page.overdue_s(place.beat, now + LOOK_AHEAD_S)
        overdue_s = page.overdue_s(place.beat, now)
        return self._waits.is_stuck(place.name, place.pid or births.mold_pid, now, soon_s, overdue_s)

    def _end_stuck(self, place: Place, now: float) -> None:
        if not place.pid:
            self.bus.births.kill_mold()
            self._lost(place, "it was never born")
        elif not place.aborted_at:
            place.aborted_at = now
            self._kill(place, signal.SIGABRT, f"silent for more than {beats.LIMIT_S:g} s; its traceback follows")
        elif now - place.aborted_at >= _ABORT_TO_KILL_S:
            self._kill(place, signal.SIGKILL, "it did not end by itself")

    def _kill(self, place: Place, number: signal.Signals, why: str) -> None:
        self.bus.log.error("child_killed", why, name=place.name, pid=place.pid, signal=number.name)
        os.kill(place.pid, number)  # not reaped yet, so the pid is still its own

    def recycle_fat(self, now: float) -> None:
        """Drain and replace what grew over the memory limit."""
        limit = self.bus.config.bus.memory_limit
        if not limit or now < self._next_fat:
            return
        self._next_fat = now + _FAT_EVERY_S
        for place in self.bus.children.alive():
            if place.phase is Phase.READY and (used := memory.private_bytes(place.pid)) > limit:
                why = f"{used >> 20} MiB of memory, [bus] memory_limit is {limit >> 20} MiB"
                self.bus.log.warning("child_fat", why, name=place.name, pid=place.pid)
                self.bus.drain(place, self.bus.config.bus.grace, why)

    def tell_family(self, now: float) -> None:
        """Tell the ticker now and then who lives: it gives back what the dead had leased."""
        if now < self._next_family:
            return
        self._next_family = now + _FAMILY_EVERY_S
        alive = self.bus.children.alive()
        owners = [owner_name(self.bus.config.bus.node, place.name, place.boot) for place in alive]
        command = {"op": "family", "names": [place.name for place in alive], "owners": owners}
        for place in self.bus.children.of("ticker"):
            if place.phase is Phase.READY:
                self.bus.lines[place.name].tell({"op": "command", "id": 0, "command": command})

    def give_up_waiting(self, now: float) -> None:
        for line in self.bus.lines.values():
            line.give_up(now)
        self.reload.look_whether_done(now)

    def look_whether_ready(self) -> None:
        if not self.bus.was_ready and not self.bus.stopping and self.bus.children.settled():
            self.bus.was_ready = True
            self.bus.log.info("ready", self.bus.summary())
            self.bus.notifier.ready(self.bus.summary())

    def feed_watchdog(self, now: float) -> None:
        if self.bus.notifier.watchdog_every and now >= self._next_watchdog:
            self._next_watchdog = now + self.bus.notifier.watchdog_every
            self.bus.notifier.watchdog()

    def sleep_until_next_deadline(self) -> None:
        if not self.bus.events and not (self.bus.stopping and not self.bus.children.alive()):
            until = self.bus.children.next_time() - time.monotonic()
            self.bus.events.sleep(min(max(until, 0.02), TURN_S))
