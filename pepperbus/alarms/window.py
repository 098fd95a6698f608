"""What happened in the last minutes: attempts, failures, percentiles of each topic. Floor 3, pure.

Fed with the counters as they stand; what did not move costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from pepperbus.stats import COUNTERS, Histogram, Totals

_DONE, _FAILED = COUNTERS.index("done"), COUNTERS.index("failed")


class Window:
    """The looks of the last `length_s` seconds."""

    def __init__(self, length_s: float) -> None:
        self.length_s = length_s
        self._counts: Mapping[str, list[int]] | None = None
        self._totals: dict[str, Totals] = {}
        self._began = 0.0
        self._grown: deque[tuple[float, dict[str, tuple[int, int]], dict[str, dict[str, Histogram]]]] = deque()

    def moved(self, counts: Mapping[str, list[int]]) -> set[str]:
        """Names whose counters are other ones than at the last look."""
        before = self._counts or {}
        return {name for name, words in counts.items() if before.get(name) != words}

    def add(self, now: float, counts: Mapping[str, list[int]], totals: Mapping[str, Totals]) -> None:
        """One look at `now` (monotonic s). `totals`: of names that moved and whose percentiles are wanted.

        What was counted before the first look is not ours to date.
        """
        if self._counts is None:
            self._began = now
        else:
            grown = {}
            for name in self.moved(counts):
                was = self._counts.get(name)
                done, failed = (max(counts[name][i] - (was[i] if was else 0), 0) for i in (_DONE, _FAILED))
                if done or failed:
                    grown[name] = done, failed
            timed = {name: _since(self._totals.get(name), total) for name, total in totals.items()}
            self._grown.append((now, grown, timed))
        self._totals.update(totals)
        self._counts = counts
        while self._grown and self._grown[0][0] <= now - self.length_s:
            self._grown.popleft()

    def attempts(self, name: str) -> tuple[int, int]:
        """(all, failed) attempts that ended."""
        mine = [grown[name] for _, grown, _ in self._grown if name in grown]
        failed = sum(one[1] for one in mine)
        return sum(one[0] for one in mine) + failed, failed

    def is_whole(self, now: float) -> bool:
        """Whether it reaches back over its whole length: only then does nothing mean that nothing happened."""
        return self._counts is not None and now - self._began >= self.length_s

    def percentile(self, name: str, which: str, q: float) -> tuple[float, int]:
        """(seconds, how many were measured)."""
        merged = Histogram()
        for _, _, timed in self._grown:
            if name in timed:
                merged.add(timed[name][which])
        return merged.percentile(q), merged.count


def _since(before: Totals | None, now: Totals) -> dict[str, Histogram]:
    return {
        which: now.histograms[which].minus(before.histograms[which]) if before else now.histograms[which]
        for which in ("wait", "run")
    }
