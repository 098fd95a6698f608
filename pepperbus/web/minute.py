"""The counters of the last minute, second by second: rates, courses, and what the queues of each system add up to.

Floor 5, pure: no clock, no file. What did not move costs one comparison a second and no memory, so a look at all of a
thousand topics costs what the moving ones among them cost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pepperbus import stats

SECONDS = 60
Counts = dict[str, list[int]]
_INDEX = {name: i for i, name in enumerate(stats.COUNTERS)}
_PUSHED, _DONE, _FAILED = (_INDEX[name] for name in ("pushed", "done", "failed"))
_NOTHING = (0,) * len(stats.COUNTERS)
_NONE = (0, 0, 0)


@dataclass(slots=True)
class Course:
    """What a system did, a second for each second of the minute, oldest first; `failed_rate` over all of it."""

    pushed: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    failed_rate: float = 0.0


class _Second:
    """What moved between two looks, by how much, and how long that was; its sums are made once, for who first asks."""

    __slots__ = ("_sums", "_systems", "grown", "seconds")

    def __init__(self, seconds: float, grown: Counts) -> None:
        self.seconds = seconds
        self.grown = grown
        self._systems: Mapping[str, str] = {}
        self._sums: dict[str, list[int]] = {}

    def sums(self, systems: Mapping[str, str]) -> dict[str, list[int]]:
        """By system: pushed to its queues; done and failed of its topics."""
        if self._systems is not systems:
            self._systems, self._sums = systems, {}
            for name, words in self.grown.items():
                if (system := systems.get(name)) is None:
                    continue
                mine = self._sums.setdefault(system, [0, 0, 0])
                if "/" in name:
                    mine[1] += words[_DONE]
                    mine[2] += words[_FAILED]
                else:
                    mine[0] += words[_PUSHED]
        return self._sums


class Minute:
    """`remember` once a second; the readers cost nothing that grows with what stands still."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, Counts]] = deque(maxlen=SECONDS + 1)
        self._moved: deque[_Second] = deque(maxlen=SECONDS)
        self._given: Counts | None = None

    def remember(self, now: float, counts: Counts) -> set[str]:
        """The counters of every name at `now` (monotonic seconds). Returns the names that moved since the last time.

        The same object again says that none did.
        """
        moved: set[str] = set()
        given, self._given = self._given, counts
        if given is counts:
            then, counts = self._counts[-1]
            self._moved.append(_Second(max(now - then, 0.001), {}))
        elif self._counts:
            then, before = self._counts[-1]
            moved = {name for name, words in counts.items() if before.get(name) != words}
            grown = {
                name: [max(a - b, 0) for a, b in zip(counts[name], before.get(name, _NOTHING), strict=True)]
                for name in moved
            }
            self._moved.append(_Second(max(now - then, 0.001), grown))
            counts = {name: words if name in moved else before[name] for name, words in counts.items()}
        self._counts.append((now, counts))
        return moved

    def rate(self, name: str, counter: str, seconds: int = 10) -> float:
        """Per second, over the last `seconds`."""
        return self._rates([name], counter, seconds).get(name, 0.0)

    def rates(self, counter: str, seconds: int = 10) -> dict[str, float]:
        """The same of every name for which it is not 0."""
        return self._rates(None, counter, seconds)

    def _rates(self, names: Iterable[str] | None, counter: str, seconds: int) -> dict[str, float]:
        if len(self._counts) < 2:
            return {}
        now, counts = self._counts[-1]
        then, before = self._counts[max(0, len(self._counts) - 1 - seconds)]
        i, passed, found = _INDEX[counter], max(now - then, 0.001), {}
        for name in counts if names is None else names:
            words, was = counts.get(name), before.get(name)
            if words is not was and words is not None and (more := words[i] - (was[i] if was else 0)) > 0:
                found[name] = more / passed
        return found

    def course(self, name: str, counter: str) -> list[float]:
        """Per second, for each second of the last minute, oldest first."""
        i = _INDEX[counter]
        return [second.grown.get(name, _NOTHING)[i] / second.seconds for second in self._moved]

    def by_system(self, systems: Mapping[str, str]) -> dict[str, Course]:
        """`systems`: queue and queue/topic -> system; give the same object again as long as it says the same."""
        found: dict[str, Course] = {system: Course() for system in systems.values()}
        passed = sum(second.seconds for second in self._moved)
        sums = [(second.seconds, second.sums(systems)) for second in self._moved]
        for system, course in found.items():
            failed = 0
            for seconds, by_name in sums:
                mine = by_name.get(system, _NONE)
                course.pushed.append(mine[0] / seconds)
                course.done.append(mine[1] / seconds)
                course.failed.append(mine[2] / seconds)
                failed += mine[2]
            course.failed_rate = failed / passed if passed else 0.0
        return found
