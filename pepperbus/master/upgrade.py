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
from typing import Any

from pepperbus import __version__
from pepperbus.config.load import load
from pepperbus.errors import ConfigError
from pepperbus.master import handover, signals
from pepperbus.master.bus import Bus
from pepperbus.master.lines import Reply
from pepperbus.master.reload import Reload
from pepperbus.master.replacing import Replacing
from pepperbus.master.trial import Trial, objection, restart_needed

#: How long to wait for a quiet moment. A command relayed to a child is given up after 5 s, a birth takes one.
_REST_S = 20.0


class Upgrade:
    """The upgrade under way, or how the last one went."""

    def __init__(self, bus: Bus, reload: Reload) -> None:
        self.trial: Trial | None = None
        self.replacing = Replacing()
        self._bus = bus
        self._reload = reload
        self._number = 0
        self._state = ""  # as above, then "done" or "failed"
        self._reason = ""
        self._at = 0.0  # unix seconds of the last change of state
        self._before = ""  # versions
        self._after = ""
        self._rest_until = 0.0
        self._waiting: Reply = lambda answer: None

    @property
    def under_way(self) -> bool:
        return self._state in ("trial", "resting", "replacing")

    def _turn_to(self, state: str, reason: str = "") -> None:
        self._state, self._reason, self._at = state, reason, time.time()

    def facts(self) -> dict[str, Any]:
        """For `status`, and for the master after the exec."""
        return {
            "number": self._number,
            "state": self._state,
            "reason": self._reason,
            "at": self._at,
            "before": self._before,
            "after": self._after,
            "replaced": self.replacing.done,
            "left": len(self.replacing.left),
        }

    def begin(self, reply: Reply) -> None:
        """Start the trial. `reply` gets its outcome; what follows is seen in `status`."""
        refusal = self._refusal()
        if refusal:
            self._bus.log.warning("upgrade_refused", refusal)
            reply({"ok": False, "error": refusal})
            return
        self._number += 1
        self._before, self._after = __version__, ""
        self.replacing = Replacing()
        self._waiting = reply
        self._turn_to("trial")
        try:
            self.trial = Trial(self._bus.config, self._bus.roles)
        except OSError as error:
            self._fail(f"no trial could be started: {error.strerror or error}")
            return
        self._bus.log.info("upgrade_trial", pid=self.trial.pid)

    def _refusal(self) -> str:
        if self._bus.stopping:
            return "the bus is stopping"
        if not self._bus.was_ready:
            return "the bus has not finished its start"
        if self.under_way:
            return f"upgrade {self._number} is under way ({self._state})"
        return ""

    def trial_ended(self, status: int) -> None:
        """It was reaped: judge it."""
        assert self.trial is not None
        report, said = self.trial.ended(status)
        self.trial = None
        for line in said[:-1] if not report else said:
            self._bus.log.warning("upgrade_said", line)
        if self._bus.stopping:
            self._fail("the bus is stopping")
            return
        reason = said[-1] if not report else objection(report, self._bus.config)
        if reason:
            self._fail(f"the trial failed, nothing has changed: {reason}")
            return
        self._after = report["version"]
        self._rest_until = time.monotonic() + _REST_S
        self._turn_to("resting")
        reply, self._waiting = self._waiting, lambda answer: None
        reply({"ok": True, "upgrade": self.facts()})

    def _fail(self, reason: str) -> None:
        self._turn_to("failed", reason)
        self._bus.log.error("upgrade_failed", reason)
        reply, self._waiting = self._waiting, lambda answer: None
        reply({"ok": False, "error": reason, "upgrade": self.facts()})

    def go_on(self, now: float) -> None:
        """What is to be done for the upgrade in this turn."""
        if self.trial is not None:
            if self._bus.stopping:
                self.trial.kill()
            self.trial.kill_if_late(now)
        elif self.under_way and self._bus.stopping:
            self._fail("the bus is stopping")
        elif self._state == "resting":
            self._rest(now)
        elif self._state == "replacing":
            self._replace(now)

    def _rest(self, now: float) -> None:
        restless = self._restless()
        if not restless:
            self._take_over()
        elif now >= self._rest_until:
            self._fail(f"no quiet moment within {_REST_S:g} s, nothing has changed: {restless}")

    def _restless(self) -> str:
        """What cannot cross an exec and is there now; empty when nothing is."""
        if self._reload.change is not None:
            return "a reload is under way"
        if self._bus.events:
            return "requests wait"
        for place in self._bus.children.alive():
            line = self._bus.lines[place.name]
            if not place.pid:
                return f"{place.name} is being born"
            if line.has_unsent:
                return f"{place.name} does not read what it is told"
            if line.has_unanswered:
                return f"{place.name} owes an answer"
        return ""

    def _take_over(self) -> None:
        """Become the new code. Returns only when the system would not."""
        trouble = self._edited_since()
        if trouble:
            self._fail(f"nothing has changed: {trouble}")
            return
        self._bus.log.info("upgrade_exec", before=self._before, after=self._after)
        self._bus.notifier.reloading()
        try:
            with handover.packed(self._bus, self.facts(), self._reload.last) as fd, signals.held_back():
                environ = {**os.environ, **self._bus.notifier.variables, handover.VARIABLE: str(fd)}
                os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
        except OSError as error:
            self._bus.notifier.ready(self._bus.summary())
            self._fail(f"{sys.executable} cannot be executed, nothing has changed: {error.strerror or error}")

    def _edited_since(self) -> str:
        """What an edit of the file after the trial has broken; the new code would end over it, with nobody behind it."""
        try:
            return restart_needed(handover.fixed(load(self._bus.config.file)), self._bus.config)
        except ConfigError as error:
            return f"the configuration was edited after the trial: {error.mistakes[0]}"

    def resume(self, facts: dict[str, Any]) -> None:
        """The first act of the new code: from here on old processes are replaced."""
        self._number, self._before, self._after = facts["number"], facts["before"], __version__
        self.replacing = Replacing.of(self._bus.children.alive())
        self._turn_to("replacing")
        self._bus.children.forgive()

    def _replace(self, now: float) -> None:
        trouble = self.replacing.go_on(self._bus, now)
        if trouble:
            self._bus.notifier.ready(self._bus.summary())
            self._fail(trouble)
        elif not self.replacing.left:
            self._turn_to("done")
            self._bus.log.info("upgraded", before=self._before, after=self._after, replaced=self.replacing.done)
            self._bus.notifier.ready(self._bus.summary())
