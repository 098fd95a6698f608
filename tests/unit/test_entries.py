"""Ids of stream entries: from a job's id and back, and the ranges that clients write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepperbus.gateway import entries
from pepperbus.ids import EPOCH_MS, LAST_MS


@given(st.integers(1 << 63, (1 << 64) - 1))
def test_there_and_back(job_id: int) -> None:
    spelled = entries.spell(entries.entry_of(job_id))
    entry = entries.parse(spelled)
    assert entry is not None
    assert entries.job_of(entry) == job_id
    ms, _, low = spelled.decode().partition("-")
    assert EPOCH_MS <= int(ms) <= LAST_MS < 1 << 63
    assert int(low) < 1 << 24


@given(st.integers(1 << 63, (1 << 64) - 2))
def test_entries_rise_as_ids_do(job_id: int) -> None:
    assert entries.entry_of(job_id) < entries.entry_of(job_id + 1)


@pytest.mark.parametrize(
    "word", [b"", b"x", b"-", b"1-", b"-1", b"1-2-3", b"+1", b"1-x", b"99999999999999999999999", b" 1"]
)
def test_what_is_no_id(word: bytes) -> None:
    assert entries.parse(word) is None


def test_foreign_ids_mean_no_job() -> None:
    assert [entries.job_of(entry) for entry in ((0, 1), (1, 1), (EPOCH_MS, 1 << 24), (LAST_MS + 1, 0))] == [0] * 4


def test_ranges() -> None:
    assert entries.parse_range(b"-", b"+") == (entries.LOWEST, entries.HIGHEST)
    assert entries.parse_range(b"5", b"7") == ((5, 0), (7, entries.HIGHEST[1]))
    assert entries.parse_range(b"(5-3", b"(7-0") == ((5, 4), (6, entries.HIGHEST[1]))
    assert entries.parse_range(b"x", b"+") is None
