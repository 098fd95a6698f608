"""Births: the mold is kept alive, and forks what the loop wants started.

Knows what every child inherits (lock, listeners, wakes, beats, configuration); never decides who should live.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from pepperbus.config.model import Config
from pepperbus.family import beats
from pepperbus.family.spec import Spec
from pepperbus.log import Log
from pepperbus.master.children import Place
from pepperbus.master.events import Events, MoldTold
from pepperbus.master.handed import Handed
from pepperbus.master.lines import Line, new_line, new_wake
from pepperbus.master.mold import Mold, preload
from pepperbus.master.opened import Opened

#: All restarts after a death taken together.
_RESTARTS_PER_S = 5.0
_MOLD_BACKOFF_CAP_S = 30.0


class Births:
    """`boot` names this start of the bus; every child's incarnation begins with it. `mold`: one that was started already."""

    def __init__(
        self,
        opened: Opened,
        roles: dict[str, str],
        events: Events,
        log: Log,
        handed: Handed | None = None,
        failpoints: str = "",
        mold: Mold | None = None,
    ) -> None:
        self.boot = handed.boot if handed else f"{time.time_ns() // 1_000_000:x}-{os.getpid():x}"
        self.count = handed.births if handed else 0
        self.wakes: dict[str, int] = handed.wakes if handed else {}
        self.page = beats.Beats(handed.beats if handed else None)
        self._opened = opened
        self._roles = roles
        self._events = events
        self._log = log
        self._failpoints = failpoints
        self._mold: Mold | None = None
        self._first_mold = mold
        self._mold_since = 0.0
        self._tokens, self._tokens_at = _RESTARTS_PER_S, 0.0
        self._failures, self._next_mold, self._reason = 0, 0.0, ""

    @property
    def has_mold(self) -> bool:
        return self._mold is not None

    @property
    def mold_pid(self) -> int:
        return self._mold.pid if self._mold else 0

    def keep_mold(self, config: Config, now: float) -> None:
        """Have a mold: without one nothing can be born."""
        if self._mold is not None or now < self._next_mold:
            return
        try:
            mold = self._first_mold or Mold(self._roles)
        except OSError as error:  # no process or descriptor to be had: those that live go on
            self._log.error("mold_failed", error.strerror or str(error))
            self._put_off(now)
            return
        self._mold, self._mold_since, self._first_mold = mold, now, None
        mold.meet(preload(config, self._roles), self.page, self._opened.lock_fd, self._failpoints)
        for role, socks in self._opened.listeners.items():
            mold.listen(role, {address: sock.fileno() for address, sock in socks.items()})
        self._add_wakes(config)
        mold.take_wakes(self.wakes)
        mold.take_config(config)
        self._events.watch(mold.line, MoldTold)

    def heard(self, message: dict[str, Any]) -> str:
        """What the mold says. The answer is the incarnation it could not fork, or empty."""
        match message.get("op"):
            case "mold_ready":
                self._failures = 0
            case "mold_failed":
                self._reason = str(message["reason"])
            case "fork_failed":
                self._log.error("fork_failed", str(message["reason"]), boot=message["boot"])
                return str(message["boot"])
        return ""

    def mold_ended(self, status: int, why: str, now: float) -> str:
        """It was reaped. The answer is its reason when it never got as far as to be ready, else empty."""
        mold = self._mold
        assert mold is not None
        self._mold = None
        for message in mold.line.read():
            self.heard(message)
        self._events.forget(mold.line)
        mold.ended(status)
        reason, self._reason = self._reason or why, ""
        self._put_off(now)
        self._log.error("mold_died", reason, pid=mold.pid)
        return reason if self._failures > 1 or reason != why else ""

    def _put_off(self, now: float) -> None:
        self._failures += 1
        self._next_mold = now + min(_MOLD_BACKOFF_CAP_S, 0.1 * 4.0 ** (self._failures - 1))

    def kill_mold(self) -> None:
        """It takes births and brings nobody forth. The loop reaps it, and then there will be a new one."""
        if self._mold is not None:
            self._log.error("mold_killed", "nobody was born in time", pid=self._mold.pid)
            os.kill(self._mold.pid, signal.SIGKILL)

    def mold_uptime(self, now: float) -> float:
        return now - self._mold_since

    def may_restart(self, now: float) -> bool:
        """Take one of the few restarts a second."""
        self._tokens = min(_RESTARTS_PER_S, self._tokens + (now - self._tokens_at) * _RESTARTS_PER_S)
        self._tokens_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def new_boot(self) -> str:
        self.count += 1
        return f"{self.boot}.{self.count}"

    def start(self, place: Place) -> Line:
        """Have `place` born as `place.boot`; it says so with its pid on the returned line. Raises OSError."""
        assert self._mold is not None
        line, theirs = new_line(place.name)
        # Before the fork: a child that hangs in its boot must be found as well.
        self.page.promise(place.beat, beats.BOOT_LIMIT_S)
        self._mold.spawn(
            Spec(place.role, place.name, place.index, place.group, place.boot, self.boot, place.beat), theirs.fileno()
        )
        theirs.close()
        return line

    def take_config(self, config: Config) -> dict[str, int]:
        """What is born from now on gets this configuration. The answer: new groups and their eventfds.

        Raises OSError when there are no descriptors for them; nothing has changed then.
        """
        new = self._add_wakes(config)
        if self._mold is not None:
            self._mold.take_wakes(new)
            self._mold.take_config(config)
        return new

    def _add_wakes(self, config: Config) -> dict[str, int]:
        """An eventfd for whoever sleeps. They are never closed: a group that comes back finds its own again."""
        new = {name: new_wake() for name in config.sleepers() if name not in self.wakes}
        self.wakes.update(new)
        return new

    def close(self) -> None:
        """The mold ends by itself when its line does."""
        if self._mold is not None:
            self._events.forget(self._mold.line)


def describe(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    return f"ended by signal {-code}"
