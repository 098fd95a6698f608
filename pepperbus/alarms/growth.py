"""When a storage will be full, if it goes on growing as it did. Floor 3, pure."""

from __future__ import annotations

from collections.abc import Sequence

#: Looks at a storage are this far apart and remembered for so long (s); less than the least says nothing about days.
EVERY_S, KEPT_S, LEAST_S = 600, 86_400, 3 * 3600
FOR_EVER = 10 * 365 * 86_400.0


def left_s(looks: Sequence[tuple[int, int]], limit: int) -> float | None:
    """Seconds until `limit` bytes are used, from (unix s, bytes) oldest first; FOR_EVER when it does not grow.

    The line of least squares through all looks, so that one night's import does not stand for every night. None: it cannot
    be known.
    """
    if not limit or len(looks) < 3 or looks[-1][0] - looks[0][0] < LEAST_S:
        return None
    n, begin = len(looks), looks[0][0]
    mean_at = sum(at - begin for at, _ in looks) / n
    mean_used = sum(used for _, used in looks) / n
    spread = sum((at - begin - mean_at) ** 2 for at, _ in looks)
    slope = sum((at - begin - mean_at) * (used - mean_used) for at, used in looks) / spread if spread else 0.0
    room = limit - looks[-1][1]
    if room <= 0:
        return 0.0
    return min(room / slope, FOR_EVER) if slope > 0 else FOR_EVER
