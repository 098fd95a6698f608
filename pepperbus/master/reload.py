"""HUP and `reload`: a good file is taken where it differs, a bad one changes nothing and is explained."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pepperbus.config.load import load
from pepperbus.config.model import Config
from pepperbus.errors import ConfigError
from pepperbus.master.changes import Change, compare, longest_timeout_s
from pepperbus.master.children import Phase
from pepperbus.master.lines import Reply

if TYPE_CHECKING:
    from pepperbus.master.loop import Master

#: How long `reload` waits for every child before it says who is missing.
PATIENCE_S = 15.0


@dataclass
class Reloads:
    """The reload under way, who waits for it, and who asked for the next one meanwhile."""

    change: Change | None = None
    until: float = 0.0
    waiting: list[Reply] = field(default_factory=list)
    next: list[Reply] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)  # for `status`


def begin(master: Master, reply: Reply) -> None:
    """Read the file again. `reply` gets what changed once every child has it, or the mistakes at once."""
    reloads = master.reloads
    if master.stopping:
        reply({"ok": False, "error": "the bus is stopping"})
    elif reloads.change is not None:
        reloads.next.append(reply)
    else:
        reloads.waiting = [reply]
        _read(master)


def _read(master: Master) -> None:
    master.notifier.reloading()
    try:
        new = load(master.config.file)
        change = compare(master.config, new)
        new_wakes = master.births.take_config(change.config)
    except ConfigError as error:
        _refuse(master, list(error.mistakes))
        return
    except Exception as error:  # whatever is wrong with a file or with reading it: the bus goes on
        _refuse(master, [f"{type(error).__name__}: {error}"])
        return
    if new.gateway.processes != master.config.gateway.processes:
        master.gateways = new.gateway.processes
    master.reloads.change = change
    master.reloads.until = time.monotonic() + PATIENCE_S
    _take(master, change, new_wakes)


def _refuse(master: Master, mistakes: list[str]) -> None:
    for mistake in mistakes:
        master.log.error("reload_refused", mistake)
    _finish(master, {"ok": False, "generation": master.config.generation, "mistakes": mistakes})


def _take(master: Master, change: Change, new_wakes: dict[str, int]) -> None:
    old, master.config = master.config, change.config
    for place in master.children:
        if place.role == "worker" and place.group in change.groups and not place.retired:
            # A reload cuts no running job: the old process may finish as long as its jobs may run.
            grace = max(old.bus.grace, longest_timeout_s(old, place.group))
            master.retire(place, grace, "its queues changed")
        elif place.alive:
            line = master.lines[place.name]
            if place.role == "worker":
                line.tell({"op": "generation", "generation": change.config.generation})
            else:
                line.tell_many("wakes", "groups", new_wakes)
                line.tell({"op": "config", "config": change.config})
    master.children.forgive()


def look_whether_done(master: Master, now: float) -> None:
    change = master.reloads.change
    if change is None:
        return
    behind = _behind(master, change.config)
    if behind and now < master.reloads.until and not master.stopping:
        return
    answer = {"ok": not behind, **change.answer()}
    if behind:
        answer["error"] = "not there yet: " + ", ".join(f"{name} ({why})" for name, why in behind.items())
    words = {key: ",".join(answer[key]) for key in ("added", "changed", "removed", "needs_restart") if answer[key]}
    master.log.info("reloaded", generation=change.config.generation, **words)
    _finish(master, answer)


def _behind(master: Master, config: Config) -> dict[str, str]:
    """Who does not have that configuration yet, and why."""
    places = [place for place in master.children if not place.retired]
    return {
        place.name: place.reason or place.phase
        for place in places
        if place.phase is not Phase.READY or place.generation < config.generation
    }


def _finish(master: Master, answer: dict[str, Any]) -> None:
    reloads = master.reloads
    reloads.change = None
    reloads.last = {"at": time.time(), **answer}
    master.notifier.ready(master.summary())
    for reply in reloads.waiting:
        reply(answer)
    reloads.waiting, reloads.next = reloads.next, []
    if reloads.waiting:
        _read(master)
