"""Where an operator stands: the configuration, and storages, journal and control socket opened when first needed.

Floor 4. Knows no click and no flask. It does not import the master either: whoever makes an office hands in `ask` (the
command line: the control socket's client; the sidecar: its `Child.ask_master`).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from pepperbus.accounts.audit import Audit
from pepperbus.accounts.model import HOST_ROLES, Actor
from pepperbus.accounts.patience import Patience
from pepperbus.accounts.store import Store
from pepperbus.clock import Clock, SystemClock
from pepperbus.config.model import Config, Queue, Topic
from pepperbus.errors import NotFound, NotReachable, PepperbusError

if TYPE_CHECKING:  # a `reload` or `stop` needs neither, and they bring gevent
    from pepperbus.journal.log import LogWriter
    from pepperbus.journal.reader import Reader
    from pepperbus.storage.contract import Storage

Ask = Callable[[dict[str, Any]], dict[str, Any]]


def _nobody(request: dict[str, Any]) -> dict[str, Any]:
    raise NotReachable("no bus to ask")


class Office:
    """One operator's view of one node. Use from a process patched by gevent as soon as storages are touched."""

    def __init__(self, config: Config, ask: Ask = _nobody, clock: Clock | None = None, who: str = "") -> None:
        self.config = config
        self.ask = ask
        self.clock = clock or SystemClock()
        self.who = who or f"cli.{os.getpid()}"
        self.actor = Actor(self.who, roles=HOST_ROLES)
        self.patience = Patience(self.clock)  # with those who guess, from within a session, the password of its account
        self._storages: dict[str, Storage] = {}

    def acting(self, actor: Actor) -> Self:
        """The same office with somebody else in it: what is open is shared."""
        other = copy.copy(self)
        other.actor = actor
        return other

    @property
    def accounts(self) -> Store:
        return Store(self.config.bus.data_dir, self.clock)

    @property
    def audit(self) -> Audit:
        return Audit(self.config.bus.data_dir, self.clock)

    @property
    def journal(self) -> Reader:
        from pepperbus.journal.reader import Reader

        data_dir = self.config.bus.data_dir
        return Reader(data_dir / "journal.db", data_dir / "journal")

    @contextmanager
    def journal_writer(self) -> Iterator[LogWriter]:
        """Where an operator's deeds (replayed, removed) are written down."""
        from pepperbus.journal.log import LogWriter

        writer = LogWriter(self.config.bus.data_dir / "journal", self.who, self.config.journal.content)
        try:
            yield writer
        finally:
            writer.close()

    def queue(self, name: str) -> Queue:
        found = self.config.queues.get(name)
        if found is None:
            raise NotFound(f"no queue {name!r}{did_you_mean(name, self.config.queues)}")
        return found

    def topic(self, name: str) -> Topic:
        """`queue/topic` -> its Topic. Raises NotFound with the nearest name."""
        found = self.config.topic(name)
        if found is None:
            known = [topic.full_name for topic in self.topics()]
            raise NotFound(f"no topic {name!r}{did_you_mean(name, known)}")
        return found

    def topics(self) -> list[Topic]:
        return [topic for queue in self.config.queues.values() for topic in queue.topics.values()]

    def named(self, name: str) -> list[Topic]:
        """The topics meant by `queue` (all of it) or `queue/topic`."""
        return [self.topic(name)] if "/" in name else list(self.queue(name).topics.values())

    def storage(self, name: str) -> Storage:
        """The open storage of that name. Raises StorageUnavailable or StorageRefused as its `open` does."""
        found = self._storages.get(name)
        if found is None:
            from pepperbus.storage import open_storage

            found = open_storage(self.config.storages[name], self.clock)
            found.open()
            self._storages[name] = found
        return found

    def holder(self, topic: str) -> Storage:
        """The storage in which a topic's jobs lie, also for a topic that is in no configuration any more (detached)."""
        known = self.config.topic(topic)
        if known:
            return self.storage(known.storage)
        for name in self.config.storages:
            try:
                if topic in self.storage(name).topics():
                    return self.storage(name)
            except PepperbusError:
                continue  # another storage's trouble; if it holds the topic, the answer below stays honest
        return self.storage(self.topic(topic).storage)

    def wake(self, topic: str) -> None:
        """Tell this node's workers, or its gateways where clients fetch, that `topic` was paused, resumed or replayed.

        Without a bus nobody needs to know.
        """
        known = self.config.topic(topic)
        roles = ["worker"] * (known is None or not known.pulled) + ["gateway"] * (known is not None and known.taken)
        for role in roles:
            try:
                self.ask({"op": "tell", "role": role, "command": {"op": "wake", "topic": topic}, "timeout": 1})
            except NotReachable:
                pass

    def close(self) -> None:
        for storage in self._storages.values():
            storage.close()
        self._storages.clear()


def did_you_mean(name: str, known: Any) -> str:
    """` (did you mean 'x'?)`, or "" when nothing is near."""
    import difflib

    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
