"""Elements become jobs: each batch together with its token, so that a batch is stored once whatever dies in between.

Floor 4. The token lies in every storage the queue's topics use, changed in the same step that stores the jobs: whoever finds a
batch unfinished in the list reads there whether it is stored, also when its jobs are done and gone by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from pepperbus.config.model import Config, Queue
from pepperbus.errors import PepperbusError, StorageUnavailable
from pepperbus.job import Job
from pepperbus.names import topic_name
from pepperbus.storage.contract import LEVELS, Push, Storage
from pepperbus.ticker.intake_elements import Element, Listed
from pepperbus.ticker.maker import Maker


class Full(PepperbusError):
    """A topic has no room: try again later."""


class Store:
    """Where one list's elements go. Raises StorageError and what else is wrong with the place as PepperbusError."""

    def __init__(
        self,
        name: str,
        what: Listed,
        maker: Maker,
        storages: Mapping[str, Storage],
        config: Callable[[], Config],
    ) -> None:
        """`name`: under which the tokens lie."""
        self._name = name
        self._what = what
        self._maker = maker
        self._storages = storages
        self._config = config
        self._tokens: dict[str, str] = {}  # storage -> the last batch that is stored there

    @property
    def _queue(self) -> Queue:
        found = self._config().queues.get(self._what.queue)
        if found is None:
            raise PepperbusError(f"there is no queue {self._what.queue} any more")
        return found

    def _places(self) -> dict[str, list[str]]:
        """Storage -> the topics (full names) that get the jobs. Raises PepperbusError when none takes any: nothing may then
        leave the list."""
        queue, topic = self._queue, self._what.intake.topic
        found: dict[str, list[str]] = {}
        for one in queue.takers:
            if topic in ("", one.name):
                found.setdefault(one.storage or queue.storage, []).append(one.full_name)
        if not found:
            raise PepperbusError(f"{topic_name(queue.name, topic) if topic else queue.name} takes no jobs any more")
        return found

    def _storage(self, name: str) -> Storage:
        """The open storage of that name, if it is as the queue wants it."""
        storage = self._storages.get(name)
        if storage is None:
            raise StorageUnavailable(f"storage {name} is not open")
        wanted = self._queue.durability
        if LEVELS.index(storage.durability) < LEVELS.index(wanted):
            lines = "; ".join(storage.advice(wanted).splitlines())
            raise StorageUnavailable(
                f"storage {name} gives durability {storage.durability}, the queue asks for {wanted}: {lines}"
            )
        return storage

    @property
    def closed(self) -> str:
        """The storage that is not open yet, or not any more; "" when all are."""
        return next((name for name in self._places() if name not in self._storages), "")

    def resume(self) -> None:
        """Read anew which batch came last."""
        self._tokens = {name: self._storage(name).recall(self._name) for name in self._places()}

    def has(self, token: str) -> bool:
        """Whether that batch is stored in every place."""
        return bool(self._tokens) and all(known == token for known in self._tokens.values())

    def room(self, most: int) -> int:
        """How many jobs may come now, `most` at most. Raises Full when none."""
        topics = self._queue.topics
        for storage, names in self._places().items():
            found = self._storage(storage)
            for name in names:
                if limit := topics[name.partition("/")[2]].max_length:
                    depth = found.depth(name)
                    most = min(most, limit - depth.ready - depth.delayed)
                    if most <= 0:
                        raise Full(f"{name} is full: max_length = {limit}")
        return most

    def store(self, token: str, elements: Sequence[bytes]) -> list[bytes]:
        """Store them as that batch, once. Returns the elements that are no jobs at all.

        The token is the first of as many ids as there are elements: those of jobs that bring none.
        """
        made, refused = self._read(elements)
        places = self._places()
        found = {name: self._storage(name) for name in places}
        numbered = self._numbered(int(token), made, [(found[name], topics) for name, topics in places.items()])
        for name, topics in places.items():
            if name not in self._tokens:  # its topics take jobs again
                self._tokens[name] = found[name].recall(self._name)
            if (known := self._tokens[name]) == token:
                continue
            batch = [Push(n, body, tuple(topics), one.due_ms, dead=one.dead) for n, body, one in numbered]
            now = found[name].swap(self._name, known, token, batch)
            if now != token:
                raise PepperbusError(f"another stored a batch of {self._what.key} meanwhile")
            self._tokens[name] = token
            waiting = [push for push in batch if not push.dead]
            if waiting:
                self._maker.stored(self._queue, topics, len(waiting))
        return refused

    def _read(self, elements: Iterable[bytes]) -> tuple[list[Element], list[bytes]]:
        made, refused = [], []
        for element in elements:
            try:
                made.append(self._what.read(element))
            except ValueError:
                refused.append(element)
        return made, refused

    def _numbered(
        self, first: int, made: Sequence[Element], places: Sequence[tuple[Storage, list[str]]]
    ) -> list[tuple[int, bytes, Element]]:
        """Each with its id and stored form. An id that another job has already (the Go system's are not unique) is not kept."""
        fresh = range(first, first + len(made))
        bodies = self._maker.bodies(fresh, [one.content for one in made], f"intake {self._what.intake.name}")
        used: set[int] = set()
        found = []
        for job_id, body, one in zip(fresh, bodies, made, strict=True):
            keeps = one.job_id and one.job_id not in used
            if keeps and not any(storage.find(one.job_id, topics) for storage, topics in places):
                used.add(one.job_id)
                job = Job.decode(body)._replace(id=one.job_id)
                job_id, body = one.job_id, (job._replace(trace=one.trace) if one.trace else job).encode()
            found.append((job_id, body, one))
        return found
