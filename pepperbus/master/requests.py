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
from typing import TYPE_CHECKING, Any

from pepperbus import __version__
from pepperbus.master import reload, upgrade
from pepperbus.master.children import Phase, Place
from pepperbus.master.lines import Reply
from pepperbus.master.memory import Usage

if TYPE_CHECKING:
    from pepperbus.master.loop import Master

_TELL_TIMEOUT_S = 5.0
_usage = Usage()


def handle(master: Master, request: dict[str, Any], reply: Reply) -> None:
    """Answer now or later; never raises for what a client sent."""
    verb = _VERBS.get(str(request.get("op")))
    if verb is None:
        reply({"ok": False, "error": f"unknown op {request.get('op')!r}; there are {', '.join(sorted(_VERBS))}"})
        return
    try:
        verb(master, request, reply)
    except (KeyError, TypeError, ValueError) as error:
        reply({"ok": False, "error": f"{request['op']}: {type(error).__name__}: {error}"})


def _status(master: Master, request: dict[str, Any], reply: Reply) -> None:
    reply({"ok": True, **status(master)})


def status(master: Master) -> dict[str, Any]:
    places = sorted(master.children, key=lambda place: (place.role, place.group, place.index))
    _usage.keep_only({place.pid for place in places} | {os.getpid(), master.births.mold_pid})
    replacing = master.upgrades.replacing
    awaited = [place for place in places if not (place.retired or replacing.covers(place))]
    return {
        "version": __version__,
        "node": master.config.bus.node,
        "boot": master.births.boot,
        "pid": os.getpid(),
        "since": master.since,
        "config": str(master.config.file),
        "generation": master.config.generation,
        "state": "draining" if master.stopping else "running" if master.was_ready else "starting",
        "ready": master.was_ready and not master.stopping and all(place.phase is Phase.READY for place in awaited),
        "last_reload": master.reloads.last,
        "upgrade": master.upgrades.facts(),
        "gateways": master.gateways,
        "listeners": {role: list(socks) for role, socks in master.opened.listeners.items()},
        "processes": [
            _plain("master", os.getpid(), time.time() - master.since),
            *(
                [_plain("mold", master.births.mold_pid, master.births.mold_uptime(time.monotonic()))]
                if master.births.has_mold
                else []
            ),
            *(_process(place) for place in places),
        ],
    }


def _plain(role: str, pid: int, uptime: float) -> dict[str, Any]:
    rss, cpu = _usage.of(pid)
    return {"role": role, "name": role, "pid": pid, "state": "ready", "uptime": uptime, "rss": rss, "cpu": cpu}


def _process(place: Place) -> dict[str, Any]:
    rss, cpu = _usage.of(place.pid) if place.pid else (0, 0.0)
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


def _reload(master: Master, request: dict[str, Any], reply: Reply) -> None:
    reload.begin(master, reply)


def _upgrade(master: Master, request: dict[str, Any], reply: Reply) -> None:
    upgrade.begin(master, reply)


def _stop(master: Master, request: dict[str, Any], reply: Reply) -> None:
    grace = float(request.get("grace", master.config.bus.grace))
    reply({"ok": True, "grace": grace, "pid": os.getpid()})
    master.stop(grace)


def _reopen(master: Master, request: dict[str, Any], reply: Reply) -> None:
    master.reopen_logs()
    reply({"ok": True})


def _scale(master: Master, request: dict[str, Any], reply: Reply) -> None:
    if "group" in request:
        master.scale_workers(str(request["group"]), int(request["workers"]))
        reply({"ok": True})
        return
    by = request.get("by")
    master.scale(int(request["gateways"]) if by is None else master.gateways + int(by))
    reply({"ok": True, "gateways": master.gateways})


def _restart(master: Master, request: dict[str, Any], reply: Reply) -> None:
    place = master.children.places.get(str(request["name"]))
    if place is None or not place.alive:
        reply(_nobody(master, request["name"]))
        return
    if place.phase is Phase.READY:
        master.drain(place, master.config.bus.grace, "somebody asked for it")
    reply({"ok": True, "pid": place.pid})


def _nobody(master: Master, name: object) -> dict[str, Any]:
    known = ", ".join(place.name for place in master.children.alive())
    return {"ok": False, "error": f"no process {name!r} lives; there are {known}"}


def _tell(master: Master, request: dict[str, Any], reply: Reply) -> None:
    command = request["command"]
    until = time.monotonic() + float(request.get("timeout", _TELL_TIMEOUT_S))
    if "name" in request:
        place = master.children.places.get(request["name"])
        if place is None or not place.alive:
            reply(_nobody(master, request["name"]))
            return
        master.lines[place.name].ask(command, lambda answer: reply({"ok": True, "answer": answer}), until)
        return
    asked = [place.name for place in master.children.alive() if place.role == request["role"]]
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
        master.lines[name].ask(command, collect(name), until)


_VERBS: dict[str, Callable[[Master, dict[str, Any], Reply], None]] = {
    "status": _status,
    "reload": _reload,
    "upgrade": _upgrade,
    "stop": _stop,
    "reopen": _reopen,
    "restart": _restart,
    "scale": _scale,
    "tell": _tell,
}
