"""Hysteresis: one measure against one limit. Floor 3, pure.

A track leans when its measure says the opposite of what it is: quiet, but the threshold is reached; open, but it is below
the other one. When it has leaned without a break for as long as the limit wants, it turns. Time is handed in as what passed
since the last look, so a clock that jumps and a restart of any length turn nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from pepperbus.config.alarm_settings import Limit


class Track(NamedTuple):
    """`leant_s`: for how long it has leaned; below 0: it does not."""

    is_open: bool = False
    leant_s: float = -1.0


QUIET = Track()


def step(track: Track, limit: Limit, value: float | None, passed_s: float, *, falls: bool = False) -> Track:
    """The track after one more look.

    `value` None: nothing is known, so nothing changes. `falls`: the smaller the value, the worse.
    """
    if value is None:
        return track
    sign = -1.0 if falls else 1.0
    if track.is_open:
        leans, wanted = sign * value < sign * limit.end, limit.end_for
    else:
        leans, wanted = sign * value >= sign * limit.begin, limit.begin_for
    if not leans:
        return Track(track.is_open)
    leant = track.leant_s + passed_s if track.leant_s >= 0 else 0.0
    return Track(not track.is_open) if leant >= wanted else Track(track.is_open, leant)
