"""What can be asked of the master, over the control socket or by a child: one JSON object, one answer.

Every answer has `ok`; when it is false `error` (or `mistakes`) says why.

    {"op": "status"}                                  who lives, since when, what happened to whom
    {"op": "reload"}                                  answered when every child has the new configuration
    {"op": "upgrade"}                                 answered after the trial; the rest is in `status`
    {"op": "stop", "grace": 30}                       grace in seconds, default [bus] grace
    {"op": "reopen"}                                  log files, after rotation
    {"op": "scale", "gateways": 2} or {"by": 1}       gateway processes, 1 to 15
    {"op": "scale", "group": "orders", "workers": 3}  worker processes, within the range of `workers`
    {"op": "restart", "name": "worker.orders.0"}      drained within [bus] grace, then another takes its place
    {"op": "tell", "name": "ticker", "command": {…}}  relayed to that child; `role` instead of `name`: to all of it
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from pepperbus import __version__
from pepperbus.master.bus import Bus
from pepperbus.master.children import Phase, Place
from pepperbus.master.lines import Reply
from pepperbus.master.memory import Usage
from pepperbus.master.reload import Reload
from pepperbus.master.upgrade import Upgrade

_TELL_TIMEOUT_S = 5.0


class Requests:
    """Answers them all."""

    def __init__(self, bus: Bus, reload: Reload, upgrade: Upgrade) -> None:
        self._bus = bus
        self._reloads = reload
        self._upgrades = upgrade
        self._usage = Usage()
        self._verbs: dict[str, Callable[[dict[str, Any], Reply], None]] = {
            "status": self._status,
            "reload": self._reload,
            "upgrade": self._upgrade,
            "stop": self._stop,
            "reopen": self._reopen,
            "restart": self._restart,
            "scale": self._scale,
            "tell": self._tell,
        }

    def handle(self, request: dict[str, Any], reply: Reply) -> None:
        """Answer now or later; never raises for what a client sent."""
        verb = self._verbs.get(str(request.get("op")))
        if verb is None:
            reply(
                {"ok": False, "error": f"unknown op {request.get('op')!r}; there are {', '.join(sorted(self._verbs))}"}
            )
            return
        try:
            verb(request, reply)
        except (KeyError, TypeError, ValueError) as error:
            reply({"ok": False, "error": f"{request['op']}: {type(error).__name__}: {error}"})

    def _status(self, request: dict[str, Any], reply: Reply) -> None:
        reply({"ok": True, **self._facts()})

    def _facts(self) -> dict[str, Any]:
        bus = self._bus
        places = sorted(bus.children, key=lambda place: (place.role, place.group, place.index))
        self._usage.keep_only({place.pid for place in places} | {os.getpid(), bus.births.mold_pid})
        replacing = self._upgrades.replacing
        awaited = [place for place in places if not (place.retired or replacing.covers(place))]
        return {
            "version": __version__,
            "node": bus.config.bus.node,
            "boot": bus.births.boot,
            "pid": os.getpid(),
            "since": bus.since,
            "config": str(bus.config.file),
            "generation": bus.config.generation,
            "state": "draining" if bus.stopping else "running" if bus.was_ready else "starting",
            "ready": bus.was_ready and not bus.stopping and all(place.phase is Phase.READY for place in awaited),
            "last_reload": self._reloads.last,
            "upgrade": self._upgrades.facts(),
            "gateways": bus.gateways,
            "listeners": {role: list(socks) for role, socks in bus.opened.listeners.items()},
            "processes": [
                self._plain("master", os.getpid(), time.time() - bus.since),
                *(
                    [self._plain("mold", bus.births.mold_pid, bus.births.mold_uptime(time.monotonic()))]
                    if bus.births.has_mold
                    else []
                ),
                *(self._process(place) for place in places),
            ],
        }

    def _reload(self, request: dict[str, Any], reply: Reply) -> None:
        self._reloads.begin(reply)

    def _upgrade(self, request: dict[str, Any], reply: Reply) -> None:
        self._upgrades.begin(reply)

    def _stop(self, request: dict[str, Any], reply: Reply) -> None:
        grace = float(request.get("grace", self._bus.config.bus.grace))
        reply({"ok": True, "grace": grace, "pid": os.getpid()})
        self._bus.stop(grace)

    def _reopen(self, request: dict[str, Any], reply: Reply) -> None:
        self._bus.reopen_logs()
        reply({"ok": True})

    def _scale(self, request: dict[str, Any], reply: Reply) -> None:
        if "group" in request:
            self._bus.scale_workers(str(request["group"]), int(request["workers"]))
            reply({"ok": True})
            return
        by = request.get("by")
        self._bus.scale(int(request["gateways"]) if by is None else self._bus.gateways + int(by))
        reply({"ok": True, "gateways": self._bus.gateways})

    def _restart(self, request: dict[str, Any], reply: Reply) -> None:
        place = self._bus.children.places.get(str(request["name"]))
        if place is None or not place.alive:
            reply(self._nobody(request["name"]))
            return
        if place.phase is Phase.READY:
            self._bus.drain(place, self._bus.config.bus.grace, "somebody asked for it")
        reply({"ok": True, "pid": place.pid})

    def _nobody(self, name: object) -> dict[str, Any]:
        known = ", ".join(place.name for place in self._bus.children.alive())
        return {"ok": False, "error": f"no process {name!r} lives; there are {known}"}

    def _tell(self, request: dict[str, Any], reply: Reply) -> None:
        command = request["command"]
        until = time.monotonic() + float(request.get("timeout", _TELL_TIMEOUT_S))
        if "name" in request:
            place = self._bus.children.places.get(request["name"])
            if place is None or not place.alive:
                reply(self._nobody(request["name"]))
                return
            self._bus.lines[place.name].ask(command, lambda answer: reply({"ok": True, "answer": answer}), until)
            return
        asked = [place.name for place in self._bus.children.alive() if place.role == request["role"]]
        answers: dict[str, Any] = {}

        def collect(name: str) -> Reply:
            def keep(answer: dict[str, Any]) -> None:
                answers[name] = answer
                if len(answers) == len(asked):
                    reply({"ok": True, "answers": answers})

            return keep

        if not asked:
            reply({"ok": True, "answers": {}})
        for name in asked:
            self._bus.lines[name].ask(command, collect(name), until)

    def _plain(self, role: str, pid: int, uptime: float) -> dict[str, Any]:
        rss, cpu = self._usage.of(pid)
        return {"role": role, "name": role, "pid": pid, "state": "ready", "uptime": uptime, "rss": rss, "cpu": cpu}

    def _process(self, place: Place) -> dict[str, Any]:
        rss, cpu = self._usage.of(place.pid) if place.pid else (0, 0.0)
        return {
            "role": place.role,
            "name": place.name,
            "group": place.group,
            "index": place.index,
            "pid": place.pid,
            "boot": place.boot,
            "state": place.phase,
            "retired": place.retired,
            "generation": place.generation,
            "uptime": time.monotonic() - place.started if place.alive else 0.0,
            "restarts": place.restarts,
            "reason": place.reason,
            "rss": rss,
            "cpu": cpu,
        }
