"""The rule that moves `concurrency = a..b`, against simulated targets: it finds the knee, stays there and never swings."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from pepperbus.ticker.scale_rule import LOOK_S, Seen, Stand, step, workers


class Target:
    """Serves up to `knee` at once without loss; beyond, attempts only wait inside it, and a little is lost to that."""

    def __init__(self, knee: Callable[[float], float], run_s: float = 0.2, refuses: int = 0, seed: int = 1) -> None:
        self.knee, self.run_s, self.refuses = knee, run_s, refuses
        self.random = random.Random(seed)
        self.waiting = 0.0

    def look(self, limit: int, now: float, arrivals: float) -> Seen:
        used = min(limit, self.refuses) if self.refuses else limit
        knee = self.knee(now)
        capacity = min(used, knee) / self.run_s / (1 + 0.03 * max(0.0, used - knee))
        capacity *= self.random.uniform(0.95, 1.05)
        there = self.waiting + arrivals * LOOK_S
        done = min(there, capacity * LOOK_S)
        self.waiting = there - done
        full = done >= there * 0.999 and not self.waiting
        run_s = self.run_s if full else used / capacity
        busy = done / LOOK_S * run_s
        refused = 3 if self.refuses and limit > self.refuses and not full else 0
        return Seen(int(self.waiting), done / LOOK_S, run_s, min(busy, used), refused)


def play(target: Target, looks: int, arrivals: Callable[[float], float], least: int = 2, most: int = 64) -> list[int]:
    stand, limits = Stand(least), []
    for number in range(looks):
        now = number * LOOK_S
        stand = step(stand, target.look(stand.limit, now, arrivals(now)), least, most, now)
        assert least <= stand.limit <= most
        assert stand.why
        limits.append(stand.limit)
    return limits


def moves(limits: list[int]) -> int:
    return sum(a != b for a, b in pairwise(limits))


ALWAYS = 10_000.0  # more than any target here does


@pytest.mark.parametrize("knee", [3, 5, 10, 24, 40])
@pytest.mark.parametrize("seed", range(5))
def test_it_finds_the_knee_and_stays(knee: int, seed: int) -> None:
    limits = play(Target(lambda now: knee, seed=seed), 720, lambda now: ALWAYS)  # an hour
    settled = limits[120:]  # after ten minutes
    assert all(0.7 * knee <= limit <= 1.5 * knee + 1 for limit in settled), (min(settled), max(settled))
    assert moves(limits[240:]) <= 12  # later trials only, each taken back


def test_it_goes_to_the_most_where_there_is_no_knee() -> None:
    limits = play(Target(lambda now: 1000), 200, lambda now: ALWAYS, most=16)
    assert limits[40] == 16
    assert set(limits[40:]) == {16}


def test_it_starts_low_and_stays_low_without_need() -> None:
    limits = play(Target(lambda now: 20), 400, lambda now: 4.0)  # one at once would nearly do
    assert set(limits) == {2}


def test_a_steady_load_settles_without_swinging() -> None:
    limits = play(Target(lambda now: 30), 720, lambda now: 40.0)  # needs eight at once
    assert min(limits[120:]) >= 8
    assert moves(limits[240:]) <= 4


def test_a_peak_is_followed_up_and_down() -> None:
    peak = lambda now: 60.0 if 600 <= now < 1800 else 2.0  # noqa: E731
    limits = play(Target(lambda now: 30), 720, peak)
    assert max(limits[:120]) == 2
    assert max(limits[120:360]) >= 12
    assert limits[-1] <= 4


def test_refusals_are_heard_at_once() -> None:
    limits = play(Target(lambda now: 100, refuses=5), 720, lambda now: ALWAYS)
    assert all(3 <= limit <= 6 for limit in limits[60:])
    assert sum(limit > 5 for limit in limits[240:]) <= 8


def test_a_target_that_becomes_weaker_gets_less() -> None:
    limits = play(Target(lambda now: 24 if now < 1800 else 6), 1440, lambda now: ALWAYS)
    assert 17 <= limits[350] <= 34
    assert limits[-1] <= 12
    assert moves(limits[-360:]) <= 12


def test_longer_jobs_are_no_reason_for_less() -> None:
    target = Target(lambda now: 12)
    stand = Stand(2)
    for number in range(1440):
        target.run_s = 0.2 if number < 700 else 0.8
        stand = step(stand, target.look(stand.limit, number * LOOK_S, ALWAYS), 2, 64, number * LOOK_S)
    assert stand.limit >= 9


def test_what_the_target_says_of_itself_counts() -> None:
    stand = step(Stand(16), Seen(100, 10.0, 1.0, 16.0, 0, "php-fpm: no child is free, 7 wait there"), 2, 32, 0.0)
    assert stand.limit == 12
    assert "7 wait there" in stand.why


def test_workers_follow_the_processor() -> None:
    now, calm, why = workers(1, 1, 4, 500, 0.95, 2.0, 0)
    assert (now, calm) == (2, 0)
    assert "95% of a core each" in why
    assert workers(2, 1, 4, 500, 1.9, 0.1, 0)[0] == 2  # nothing to be had
    assert workers(4, 1, 4, 500, 3.9, 2.0, 0)[0] == 4
    assert workers(1, 1, 4, 500, 0.3, 2.0, 0)[0] == 1  # the target is what is slow
    for _ in range(19):
        now, calm, why = workers(now, 1, 4, 0, 0.2, 2.0, calm)
        assert now == 2
    assert workers(now, 1, 4, 0, 0.2, 2.0, calm)[0] == 1
