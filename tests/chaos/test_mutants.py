"""Two of the mutants, so that the judge is never believed unexamined; `scripts/chaos --mutants` runs them all."""

from pathlib import Path

import pytest

from tests.chaos.mutants import examine


@pytest.mark.parametrize("name", ["answers before it has stored", "sends again after a reset"])
def test_a_crime_is_found_out(name: str, tmp_path: Path) -> None:
    assert examine(name, tmp_path, seed=3, seconds=4.0) == ""
