"""Which requests are guarded: a sample, all while the pool is full, and few because the machine was busy for a moment."""

from collections.abc import Iterator
from typing import Any

import pytest

from pepperbus.config.model import FastcgiPool
from pepperbus.delivery.fastcgi_pool import Pool


class Time:
    """A loop whose clock the test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at


@pytest.fixture
def pool() -> Iterator[Pool]:
    found: Any = Pool(FastcgiPool("p", "unix:/nowhere"))
    found.loop = Time()
    yield found
    found._sweep.close()


def guarded(pool: Pool, n: int = 64) -> int:
    return sum(pool.guarded() for _ in range(n))


def later(pool: Any, seconds: float) -> None:
    pool.loop.at += seconds


def taken(pool: Pool, waited_s: float) -> None:
    """One request that waits so long, alone."""
    later(pool, waited_s)
    pool.taken(waited_s)


def test_a_sample_is_guarded_while_children_are_free(pool: Pool) -> None:
    assert pool.guarded()  # the first
    for _ in range(100):
        taken(pool, 0.001)
    assert guarded(pool) == 4


def test_one_late_child_has_all_guarded_for_a_moment(pool: Pool) -> None:
    taken(pool, 0.01)
    assert guarded(pool) == 64
    later(pool, 0.05)
    assert guarded(pool) == 64
    later(pool, 0.05)
    assert guarded(pool) == 4


def test_the_longer_it_waited_the_longer_all_are_guarded(pool: Pool) -> None:
    taken(pool, 0.5)
    later(pool, 3.5)
    assert guarded(pool) == 64
    later(pool, 1.0)
    assert guarded(pool) == 4


def test_a_pool_that_stays_full_is_guarded_for_seconds(pool: Pool) -> None:
    for _ in range(3):
        taken(pool, 0.01)
    later(pool, 4.5)
    assert guarded(pool) == 64
    later(pool, 1.0)
    assert guarded(pool) == 4


def test_what_one_delay_made_late_counts_once(pool: Pool) -> None:
    later(pool, 0.03)
    for _ in range(8):  # the machine stood still, and all eight under way are seen to be taken now
        pool.taken(0.03)
    later(pool, 0.3)
    assert guarded(pool) == 4


def test_a_full_pool_is_found_with_requests_that_overlap(pool: Pool) -> None:
    for _ in range(12):  # one is taken every 10 ms, after it waited for 40
        later(pool, 0.01)
        pool.taken(0.04)
    later(pool, 4.5)
    assert guarded(pool) == 64


def test_a_child_in_time_ends_the_row_but_not_what_is_certain(pool: Pool) -> None:
    for _ in range(10):
        taken(pool, 0.01)
        taken(pool, 0.001)
    later(pool, 0.1)
    assert guarded(pool) == 4
    pool.is_full()  # refused
    taken(pool, 0.01)
    taken(pool, 0.001)
    later(pool, 4.5)
    assert guarded(pool) == 64
