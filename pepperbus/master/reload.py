"""HUP and `reload`: a good file is taken where it differs, a bad one changes nothing and is explained."""

from __future__ import annotations

import time
from typing import Any

from pepperbus.config.known import Known
from pepperbus.config.load import load
from pepperbus.config.model import Config
from pepperbus.errors import ConfigError
from pepperbus.master.bus import Bus
from pepperbus.master.changes import Change, compare, longest_timeout_s
from pepperbus.master.children import Phase
from pepperbus.master.lines import Reply

#: How long `reload` waits for every child before it says who is missing.
PATIENCE_S = 15.0


class Reload:
    """The reload under way, who waits for it, and who asked for the next one meanwhile. `known`: the files, as read before."""

    def __init__(self, bus: Bus, known: Known | None = None) -> None:
        self.change: Change | None = None
        self.last: dict[str, Any] = {}  # for `status`
        self._bus = bus
        self._known = Known() if known is None else known
        self._until = 0.0
        self._waiting: list[Reply] = []
        self._next: list[Reply] = []

    def begin(self, reply: Reply) -> None:
        """Read the file again. `reply` gets what changed once every child has it, or the mistakes at once."""
        if self._bus.stopping:
            reply({"ok": False, "error": "the bus is stopping"})
        elif self.change is not None:
            self._next.append(reply)
        else:
            self._waiting = [reply]
            self._read()

    def _read(self) -> None:
        self._bus.notifier.reloading()
        try:
            new = load(self._bus.config.file, known=self._known)
            change = compare(self._bus.config, new)
            new_wakes = self._bus.births.take_config(change.config)
        except ConfigError as error:
            self._refuse(list(error.mistakes))
            return
        except Exception as error:  # whatever is wrong with a file or with reading it: the bus goes on
            self._refuse([f"{type(error).__name__}: {error}"])
            return
        if new.gateway.processes != self._bus.config.gateway.processes:
            self._bus.gateways = new.gateway.processes
        self.change = change
        self._until = time.monotonic() + PATIENCE_S
        self._take(change, new_wakes)

    def _refuse(self, mistakes: list[str]) -> None:
        for mistake in mistakes:
            self._bus.log.error("reload_refused", mistake)
        self._finish({"ok": False, "generation": self._bus.config.generation, "mistakes": mistakes})

    def _take(self, change: Change, new_wakes: dict[str, int]) -> None:
        old, self._bus.config = self._bus.config, change.config
        for place in self._bus.children:
            if place.role == "worker" and place.group in change.groups and not place.retired:
                # A reload cuts no running job: the old process may finish as long as its jobs may run.
                grace = max(old.bus.grace, longest_timeout_s(old, place.group))
                self._bus.retire(place, grace, "its queues changed")
            elif place.alive:
                line = self._bus.lines[place.name]
                if place.role == "worker":
                    line.tell({"op": "generation", "generation": change.config.generation})
                else:
                    line.tell_many("wakes", "groups", new_wakes)
                    line.tell({"op": "config", "config": change.config})
        self._bus.children.forgive()

    def look_whether_done(self, now: float) -> None:
        change = self.change
        if change is None:
            return
        behind = self._behind(change.config)
        if behind and now < self._until and not self._bus.stopping:
            return
        answer = {"ok": not behind, **change.answer()}
        if behind:
            answer["error"] = "not there yet: " + ", ".join(f"{name} ({why})" for name, why in behind.items())
        words = {key: ",".join(answer[key]) for key in ("added", "changed", "removed", "needs_restart") if answer[key]}
        self._bus.log.info("reloaded", generation=change.config.generation, **words)
        self._finish(answer)

    def _behind(self, config: Config) -> dict[str, str]:
        """Who does not have that configuration yet, and why."""
        places = [place for place in self._bus.children if not place.retired]
        return {
            place.name: place.reason or place.phase
            for place in places
            if place.phase is not Phase.READY or place.generation < config.generation
        }

    def _finish(self, answer: dict[str, Any]) -> None:
        self.change = None
        self.last = {"at": time.time(), **answer}
        self._bus.notifier.ready(self._bus.summary())
        for reply in self._waiting:
            reply(answer)
        self._waiting, self._next = self._next, []
        if self._waiting:
            self._read()
