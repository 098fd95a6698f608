"""docs/RELIABILITY.md tells the truth about what is tested: every test and fault it names exists, and no fault is missing."""

from __future__ import annotations

import re
from pathlib import Path

from tests.chaos.faults import CLOCK_FAULTS, FAULTS, REDIS_FAULTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/RELIABILITY.md").read_text()


def test_every_test_it_names_exists() -> None:
    there = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE)) - {"test_security"}
    assert named - there == set()


def test_every_fault_of_the_nemesis_is_named_and_no_other() -> None:
    table = PAGE[PAGE.index("## The fault list") :]
    named = set(re.findall(r'"([a-z -]+)"', table))
    assert named == {*FAULTS, *REDIS_FAULTS, *CLOCK_FAULTS}
