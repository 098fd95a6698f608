"""USR2 and `upgrade`: new code without an end of service. Trial, rest, exec, replacing.

    trial      a process from the code on disk tries everything; a failed one changes nothing
    resting    a moment is awaited in which nobody is being born and no answer is outstanding
    exec       the same pid goes on as the new code with everything it had open (handover.py)
    replacing  old processes go one by one, each after its successor is ready (replacing.py)

Up to the exec the old code runs and may refuse; after it the new code does, and what cannot be replaced stays.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pepperbus import __version__
from pepperbus.config.load import load
from pepperbus.errors import ConfigError
from pepperbus.master import handover, signals
from pepperbus.master.lines import Reply
from pepperbus.master.replacing import Replacing
from pepperbus.master.trial import Trial, objection, restart_needed

if TYPE_CHECKING:
    from pepperbus.master.loop import Master

#: How long to wait for a quiet moment. A command relayed to a child is given up after 5 s, a birth takes one.
_REST_S = 20.0


@dataclass
class Upgrades:
    """The upgrade under way, or how the last one went."""

    number: int = 0
    state: str = ""  # as above, then "done" or "failed"
    reason: str = ""
    at: float = 0.0  # unix seconds of the last change of state
    before: str = ""  # versions
    after: str = ""
    trial: Trial | None = None
    rest_until: float = 0.0
    replacing: Replacing = field(default_factory=Replacing)
    waiting: Reply = lambda answer: None

    @property
    def under_way(self) -> bool:
        return self.state in ("trial", "resting", "replacing")

    def turn_to(self, state: str, reason: str = "") -> None:
        self.state, self.reason, self.at = state, reason, time.time()

    def facts(self) -> dict[str, Any]:
        """For `status`, and for the master after the exec."""
        return {
            "number": self.number,
            "state": self.state,
            "reason": self.reason,
            "at": self.at,
            "before": self.before,
            "after": self.after,
            "replaced": self.replacing.done,
            "left": len(self.replacing.left),
        }


def begin(master: Master, reply: Reply) -> None:
    """Start the trial. `reply` gets its outcome; what follows is seen in `status`."""
    upgrades = master.upgrades
    refusal = _refusal(master)
    if refusal:
        master.log.warning("upgrade_refused", refusal)
        reply({"ok": False, "error": refusal})
        return
    upgrades.number += 1
    upgrades.before, upgrades.after = __version__, ""
    upgrades.replacing = Replacing()
    upgrades.waiting = reply
    upgrades.turn_to("trial")
    try:
        upgrades.trial = Trial(master.config, master.roles)
    except OSError as error:
        _fail(master, f"no trial could be started: {error.strerror or error}")
        return
    master.log.info("upgrade_trial", pid=upgrades.trial.pid)


def _refusal(master: Master) -> str:
    if master.stopping:
        return "the bus is stopping"
    if not master.was_ready:
        return "the bus has not finished its start"
    if master.upgrades.under_way:
        return f"upgrade {master.upgrades.number} is under way ({master.upgrades.state})"
    return ""


def trial_ended(master: Master, status: int) -> None:
    """It was reaped: judge it."""
    upgrades = master.upgrades
    assert upgrades.trial is not None
    report, said = upgrades.trial.ended(status)
    upgrades.trial = None
    for line in said[:-1] if not report else said:
        master.log.warning("upgrade_said", line)
    if master.stopping:
        _fail(master, "the bus is stopping")
        return
    reason = said[-1] if not report else objection(report, master.config)
    if reason:
        _fail(master, f"the trial failed, nothing has changed: {reason}")
        return
    upgrades.after = report["version"]
    upgrades.rest_until = time.monotonic() + _REST_S
    upgrades.turn_to("resting")
    reply, upgrades.waiting = upgrades.waiting, lambda answer: None
    reply({"ok": True, "upgrade": upgrades.facts()})


def _fail(master: Master, reason: str) -> None:
    upgrades = master.upgrades
    upgrades.turn_to("failed", reason)
    master.log.error("upgrade_failed", reason)
    reply, upgrades.waiting = upgrades.waiting, lambda answer: None
    reply({"ok": False, "error": reason, "upgrade": upgrades.facts()})


def go_on(master: Master, now: float) -> None:
    """What is to be done for the upgrade in this turn."""
    upgrades = master.upgrades
    if upgrades.trial is not None:
        if master.stopping:
            upgrades.trial.kill()
        upgrades.trial.kill_if_late(now)
    elif upgrades.under_way and master.stopping:
        _fail(master, "the bus is stopping")
    elif upgrades.state == "resting":
        _rest(master, now)
    elif upgrades.state == "replacing":
        _replace(master, now)


def _rest(master: Master, now: float) -> None:
    restless = _restless(master)
    if not restless:
        _take_over(master)
    elif now >= master.upgrades.rest_until:
        _fail(master, f"no quiet moment within {_REST_S:g} s, nothing has changed: {restless}")


def _restless(master: Master) -> str:
    """What cannot cross an exec and is there now; empty when nothing is."""
    if master.reloads.change is not None:
        return "a reload is under way"
    if master.events:
        return "requests wait"
    for place in master.children.alive():
        line = master.lines[place.name]
        if not place.pid:
            return f"{place.name} is being born"
        if line.has_unsent:
            return f"{place.name} does not read what it is told"
        if line.has_unanswered:
            return f"{place.name} owes an answer"
    return ""


def _take_over(master: Master) -> None:
    """Become the new code. Returns only when the system would not."""
    trouble = _edited_since(master)
    if trouble:
        _fail(master, f"nothing has changed: {trouble}")
        return
    master.log.info("upgrade_exec", before=master.upgrades.before, after=master.upgrades.after)
    master.notifier.reloading()
    try:
        with handover.packed(master) as fd, signals.held_back():
            environ = {**os.environ, **master.notifier.variables, handover.VARIABLE: str(fd)}
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
    except OSError as error:
        master.notifier.ready(master.summary())
        _fail(master, f"{sys.executable} cannot be executed, nothing has changed: {error.strerror or error}")


def _edited_since(master: Master) -> str:
    """What an edit of the configuration after the trial has broken; the new code would end over it, with nobody behind it."""
    try:
        return restart_needed(handover.fixed(load(master.config.file)), master.config)
    except ConfigError as error:
        return f"the configuration was edited after the trial: {error.mistakes[0]}"


def resume(master: Master, facts: dict[str, Any]) -> None:
    """The first act of the new code: from here on old processes are replaced."""
    upgrades = master.upgrades
    upgrades.number, upgrades.before, upgrades.after = facts["number"], facts["before"], __version__
    upgrades.replacing = Replacing.of(master.children.alive())
    upgrades.turn_to("replacing")
    master.children.forgive()


def _replace(master: Master, now: float) -> None:
    trouble = master.upgrades.replacing.go_on(master, now)
    if trouble:
        master.notifier.ready(master.summary())
        _fail(master, trouble)
    elif not master.upgrades.replacing.left:
        upgrades = master.upgrades
        upgrades.turn_to("done")
        master.log.info("upgraded", before=upgrades.before, after=upgrades.after, replaced=upgrades.replacing.done)
        master.notifier.ready(master.summary())
