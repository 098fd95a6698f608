"""The verdict against a job's budget: a table."""

import pytest

from pepperbus.config.backoff import Backoff
from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Act, TargetEffect, Verdict
from pepperbus.storage.contract import Leased, Outcome
from pepperbus.worker.outcome import decide

NOW = 2_000_000_000_000
TOPIC = Topic("q", "t", "local", "fastcgi", attempts=3, backoff=Backoff("fixed", (10.0,), False), max_age=100.0)


def verdict(act, spent=True, **extra):
    return Verdict(act, TargetEffect.NEUTRAL, spent, 500, reason="boom", **extra)


@pytest.mark.parametrize(
    ("given", "attempt", "age_s", "outcome", "wait_s", "spent", "reason"),
    [
        (verdict(Act.DONE, False), 1, 0, Outcome.DONE, None, True, ""),
        (verdict(Act.DONE, False), 3, 1000, Outcome.DONE, None, True, ""),  # done is done, however old
        (verdict(Act.RETRY), 1, 0, Outcome.RETRY, 10, True, ""),
        (verdict(Act.RETRY), 2, 0, Outcome.RETRY, 10, True, ""),
        (verdict(Act.RETRY), 3, 0, Outcome.DEAD, None, True, "attempt 3 of 3 failed: boom"),
        (verdict(Act.RETRY, after_s=77.0), 1, 0, Outcome.RETRY, 77, True, ""),
        (verdict(Act.RETRY), 1, 101, Outcome.DEAD, None, True, "max_age: boom"),
        (verdict(Act.DEAD), 1, 0, Outcome.DEAD, None, True, "boom"),
        (verdict(Act.BACK, False), 3, 0, Outcome.BACK, None, False, ""),  # a refusal never costs an attempt
        (verdict(Act.BACK, False, after_s=5.0), 3, 0, Outcome.RETRY, 5, False, ""),
        (verdict(Act.BACK, False, after_s=5.0), 3, 101, Outcome.DEAD, None, False, "max_age: boom"),
        (verdict(Act.RETRY, zombie=True), 1, 0, Outcome.RETRY, 60, True, ""),  # never beside a running script
    ],
)
def test_decide(given, attempt, age_s, outcome, wait_s, spent, reason):
    leased = Leased("q/t", 7, b"", attempt)
    settle = decide(TOPIC, leased, NOW - age_s * 1000, given, NOW, 0.5)
    assert (settle.topic, settle.job_id, settle.outcome, settle.reason) == ("q/t", 7, outcome, reason)
    if wait_s is not None:
        assert settle.due_ms == NOW + wait_s * 1000
    if outcome is not Outcome.DONE:
        assert settle.spent is spent


def test_age_counts_from_the_first_due_time():
    leased = Leased("q/t", 7, b"", 1, first_due_ms=NOW - 5000)
    assert decide(TOPIC, leased, NOW - 10_000_000, verdict(Act.RETRY), NOW, 0.0).outcome is Outcome.RETRY


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (Backoff("exponential", (5.0, 3600.0), False), [5, 10, 20, 40]),
        (Backoff("linear", (30.0,), False), [30, 60, 90, 120]),
        (Backoff("fixed", (30.0,), False), [30, 30, 30, 30]),
        (Backoff("list", (1.0, 10.0, 60.0), False), [1, 10, 60, 60]),
    ],
)
def test_backoff(backoff, waits):
    assert [backoff.wait_s(n) for n in range(1, 5)] == waits
    assert Backoff("exponential", (5.0, 3600.0), False).wait_s(1000) == 3600


def test_jitter_takes_at_most_half():
    backoff = Backoff("fixed", (10.0,), True)
    assert backoff.wait_s(1, 0.0) == 5.0
    assert backoff.wait_s(1, 0.999) == pytest.approx(9.995)
