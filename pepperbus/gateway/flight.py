"""One write of the group commit: pushes of many clients as one batch, limits looked at, sent again when unanswered.

Knows the storage contract, and of clients nothing: it says which parts ended how. Runs in a greenlet, because a storage
may block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import gevent

from pepperbus.clock import Clock
from pepperbus.errors import StorageUnavailable, StorageUnknown
from pepperbus.gateway.handful import Handful, columns
from pepperbus.gateway.once import OnceShare
from pepperbus.gateway.submission import FULL, STORED, UNAVAILABLE, UNKNOWN, Share
from pepperbus.storage.contract import Push, Storage

RETRY_AFTER = 0.05  # seconds before the one re-send of a write without answer
NO_ANSWER = "no answer from the storage; it may run"

Part = Handful | Share
Answered = TypeVar("Answered")
#: Told which parts ended how, and what to say about it. Called for each part exactly once.
Report = Callable[[Sequence[Part], int, str], None]


class Flight:
    """One write under way; until `deadline` (monotonic s) it is worth sending again."""

    __slots__ = ("deadline", "parts")

    def __init__(self, parts: list[Part], deadline: float) -> None:
        self.parts = parts
        self.deadline = deadline

    def write(self, storage: Storage, clock: Clock, report: Report) -> Exception | None:
        """Store all parts. Returns what kept the storage from it, None when nothing did."""
        parts, limits, trouble = self.parts, None, None
        if set(map(type, parts)) == {Handful}:
            batch: Sequence[Push] = columns(parts)  # type: ignore[arg-type]  # just looked
        else:
            if any(type(part) is OnceShare for part in parts):
                parts, trouble = self._write_once(storage, clock, report)
            if any(_limited(part) for part in parts):
                parts, full = _without_full(storage, parts, report)
                trouble = full or trouble
                limits = _limits(parts)
            batch = [push for part in parts for push in part.pushes]
        try:
            refused = self._twice(clock, lambda: storage.push(batch, limits)) if batch else ()
        except StorageUnavailable as error:
            report(parts, UNAVAILABLE, "")
            return error
        except Exception as error:  # StorageUnknown, or a bug of an engine: either way nobody knows
            report(parts, UNKNOWN, NO_ANSWER)
            return error
        if refused:
            parts = _report_refused(parts, frozenset(refused), report)
        report(parts, STORED, "")
        return trouble

    def _write_once(self, storage: Storage, clock: Clock, report: Report) -> tuple[list[Part], Exception | None]:
        """Store what has a rule `unique`. Returns the other parts, and what kept the storage from it."""
        mine = [part for part in self.parts if isinstance(part, OnceShare)]
        others = [part for part in self.parts if not isinstance(part, OnceShare)]
        limits = {name: most for part in mine for route, _ in part.answer.routes for name, most in route.limits.items()}
        once = [one for part in mine for one in part.once]
        plain = [push for part in mine for push in part.pushes]
        try:
            held = self._twice(clock, lambda: storage.push_once(once, limits or None), lambda held: not all(held))
            refused = self._twice(clock, lambda: storage.push(plain, limits or None)) if plain else ()
        except Exception as error:
            unknown = not isinstance(error, StorageUnavailable) or bool(once and plain)
            report(mine, UNKNOWN if unknown else UNAVAILABLE, NO_ANSWER if unknown else "")
            return others, error
        for part in mine:
            now_held, held = held[: len(part.once)], held[len(part.once) :]
            now_refused = [index for index in refused if 0 <= index < len(part.pushes)]
            refused = [index - len(part.pushes) for index in refused]
            report((part,), part.heard(now_held, now_refused), "")
        return others, None

    def _twice(
        self, clock: Clock, call: Callable[[], Answered], is_refusal: Callable[[Answered], bool] = bool
    ) -> Answered:
        """`call` the storage, and once more when no answer came and there is time."""
        try:
            return call()
        except StorageUnknown:
            if clock.monotonic() + RETRY_AFTER * 2 >= self.deadline:
                raise
        gevent.sleep(RETRY_AFTER)
        try:
            answered = call()
        except StorageUnavailable as error:  # about this re-send only: the first one stays unknown
            raise StorageUnknown(str(error)) from error
        if is_refusal(answered):  # the first one may have stored them, and a worker may have done them since
            raise StorageUnknown("no answer from the storage, then no room")
        return answered


def _limited(part: Part) -> bool:
    return any(route.limits for route, _ in part.answer.routes)


def _limits(parts: Sequence[Part]) -> dict[str, int] | None:
    limits: dict[str, int] = {}
    for part in parts:
        if part.jobs == 1:  # several were looked at before, as a whole
            for route, _ in part.answer.routes:
                limits.update(route.limits)
    return limits or None


def _without_full(storage: Storage, parts: Sequence[Part], report: Report) -> tuple[list[Part], Exception | None]:
    """A command of several values is refused whole, which the storage's own limit (per job) cannot do.

    Returns the others, and what kept the storage from saying how much lies there.
    """
    kept: list[Part] = []
    trouble = None
    for part in parts:
        if part.jobs > 1 and _limited(part):
            try:
                full = _is_full(storage, part)
            except Exception as error:  # the push itself will say so
                full, trouble = False, error
            if full:
                report((part,), FULL, "")
                continue
        kept.append(part)
    return kept, trouble


def _is_full(storage: Storage, part: Part) -> bool:
    more: dict[str, int] = {}
    for push in part.pushes:
        for topic in push.topics:
            more[topic] = more.get(topic, 0) + 1
    for route, _ in part.answer.routes:
        for topic, limit in route.limits.items():
            if topic in more:
                depth = storage.depth(topic)
                if depth.ready + depth.delayed + more[topic] > limit:
                    return True
    return False


def _report_refused(parts: Sequence[Part], refused: frozenset[int], report: Report) -> list[Part]:
    """Report the parts whose pushes were refused; return the others."""
    stored, index = [], 0
    for part in parts:
        indexes = range(index, index + part.jobs)
        index += part.jobs
        hit = sum(i in refused for i in indexes)
        if not hit:
            stored.append(part)
        else:
            report((part,), FULL if hit == len(indexes) else UNKNOWN, "")
    return stored
