"""The intakes of all queues: who takes from which list, and how that goes. Floor 4.

Each list has a greenlet. Whatever goes wrong ends its turn; the next one begins with what lies unfinished, exactly as after
a kill -9, so there is one way back only.
"""

from __future__ import annotations

import hashlib
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import gevent
import redis

from pepperbus.child import Child
from pepperbus.config.model import Config
from pepperbus.storage.contract import Storage
from pepperbus.ticker.intake_elements import Listed, lists_of
from pepperbus.ticker.intake_source import Source
from pepperbus.ticker.intake_store import Full, Store
from pepperbus.ticker.maker import Maker

BATCH = 200
_COMMAND = re.compile(r"\ACommand # \d+ \(.*\) of pipeline caused error: ", re.S)
_FIRST_WAIT_S, _LAST_WAIT_S = 0.2, 5.0
_IDLE_FIRST_S, _IDLE_LAST_S = 0.05, 1.0
_ASK_AGAIN_S = 3.0  # whether the other taker is still there
_LOOK_S = 2.0  # between looks at how much waits
_SAY_AGAIN_S = 60.0
_RATE_S = 10.0
_LEAVE_S = 3.0


class Intakes:
    """All of a node's. `follow` a configuration as often as there is a new one."""

    def __init__(
        self, child: Child, maker: Maker, storages: Mapping[str, Storage], config: Callable[[], Config]
    ) -> None:
        self._child = child
        self._maker = maker
        self._storages = storages
        self._config = config
        self._taking: dict[Listed, tuple[_Taking, Any]] = {}

    def follow(self) -> None:
        """Begin with the lists of the present configuration that are new, leave those that are no longer in it."""
        wanted = {one: queue for queue in self._config().queues.values() for one in lists_of(queue)}
        for one in self._taking.keys() - wanted.keys():
            self._taking.pop(one)[1].kill(block=False)
        for one in [one for one in wanted if one not in self._taking]:  # in their files' order, as they are shown
            taking = _Taking(one, self._child, self._maker, self._storages, self._config)
            self._taking[one] = taking, gevent.spawn(taking.run)

    def stop(self) -> None:
        """Leave all lists; what is under way is finished by whoever comes next."""
        greenlets = [greenlet for _, greenlet in self._taking.values()]
        self._taking.clear()
        gevent.killall(greenlets, block=False)
        gevent.joinall(greenlets, timeout=_LEAVE_S)  # they say that they leave; one whose Redis hangs is not waited for

    def report(self) -> list[dict[str, Any]]:
        """How each list goes, as the status shows it."""
        return [taking.report() for taking, _ in self._taking.values()]


class _Taking:
    """One list, taken from for ever."""

    def __init__(
        self,
        what: Listed,
        child: Child,
        maker: Maker,
        storages: Mapping[str, Storage],
        config: Callable[[], Config],
    ) -> None:
        self.what = what
        self._child = child
        bus = config().bus
        self._me = f"{bus.node} {socket.gethostname()}:{bus.data_dir} {what.queue}/{what.intake.name}"
        mark = hashlib.sha1(what.key.encode()).hexdigest()
        self._store = Store(f"intake:{what.queue}/{what.intake.name}:{mark}", what, maker, storages, config)
        self._maker = maker
        self.holder = self.error = ""
        self.moved = self.refused = self.waiting = 0
        self._moments: deque[tuple[float, int]] = deque()
        self._idle_s = _IDLE_FIRST_S
        self._looked = self._said_at = 0.0
        self._said = ""

    def run(self) -> None:
        wait = _FIRST_WAIT_S
        while True:
            moved = self.moved
            intake = self.what.intake
            source = None
            try:
                while storage := self._store.closed:
                    self.error = f"storage {storage} is not open"
                    gevent.sleep(_FIRST_WAIT_S)
                source = Source(intake.url.reveal(), self.what.key, intake.end, intake.mode, self._me)
                self._take_from(source)
            except Exception as error:  # whatever it is: a list that nobody takes from any more is lost work
                self._failed(error)
            finally:
                if source is not None:
                    source.close()
            wait = _FIRST_WAIT_S if self.moved > moved else min(wait * 2, _LAST_WAIT_S)
            gevent.sleep(wait)

    def _take_from(self, source: Source) -> None:
        while holder := source.claim():
            self.holder = holder
            self._look(source)
            gevent.sleep(_ASK_AGAIN_S)
        self.holder = ""
        try:
            self._finish(source)
            while True:
                self._turn(source)
        except gevent.GreenletExit:
            with suppress(redis.RedisError):  # away: then our claim expires; but this list is left whatever happens
                source.leave()
            raise

    def _finish(self, source: Source) -> None:
        """What a predecessor began: stored already, or not yet."""
        token, elements = source.left()
        self._store.resume()
        if token and self._store.has(token):
            source.done(elements)
        elif elements:
            self._move(source, elements, token)

    def _turn(self, source: Source) -> None:
        source.keep()
        self._look(source)
        room = self._store.room(BATCH)
        elements = source.take(room)
        if elements:
            self._move(source, elements)
            self._idle_s = _IDLE_FIRST_S
        elif not source.waits:
            gevent.sleep(self._idle_s)
            self._idle_s = min(self._idle_s * 2, _IDLE_LAST_S)
        self.error = ""

    def _move(self, source: Source, elements: list[bytes], token: str = "") -> None:
        if not token:
            token = str(self._maker.ids(len(elements))[0])
            source.begin(token, len(elements))
        refused = self._store.store(token, elements)
        source.done(elements, refused)
        self.moved += len(elements) - len(refused)
        if refused:
            self._say(f"no job of the Go system ({len(refused)} of {len(elements)}): now in {source.refused}")

    def _look(self, source: Source) -> None:
        now = time.monotonic()
        self._moments.append((now, self.moved))
        while now - self._moments[0][0] > _RATE_S:
            self._moments.popleft()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            self.waiting, self.refused = source.lengths()

    def _failed(self, error: Exception) -> None:
        text = _COMMAND.sub("", str(error))  # it may hold a job's content
        self.error = " ".join(text.split()) or type(error).__name__
        if not isinstance(error, Full):
            self._say(self.error)

    def _say(self, text: str) -> None:
        now = time.monotonic()
        if text != self._said or now - self._said_at >= _SAY_AGAIN_S:
            self._said, self._said_at = text, now
            self._child.log.warning("intake_failed", text, queue=self.what.queue, intake=self.what.intake.name)

    def report(self) -> dict[str, Any]:
        then, before = self._moments[0] if self._moments else (time.monotonic(), self.moved)
        return {
            "queue": self.what.queue,
            "name": self.what.intake.name,
            "key": self.what.key,
            "moved": self.moved,
            "rate": (self.moved - before) / max(time.monotonic() - then, 1.0),
            "waiting": self.waiting,
            "refused": self.refused,
            "holder": self.holder,
            "error": self.error,
        }
