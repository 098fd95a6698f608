"""The short form of the chaos test; `scripts/chaos` is the long one. The judge itself is examined in test_judge.py."""

from pathlib import Path

import pytest

from tests.chaos.run import run


@pytest.mark.timeout(400)
@pytest.mark.parametrize("engine", ["embedded", "redis"])
def test_nothing_accepted_is_lost(engine: str, tmp_path: Path) -> None:
    """20,000 jobs for two topics under the faults of the list, as many as find room in a minute."""
    report = run(tmp_path, engine, jobs=20_000, faults=45, seed=20_261_123, seconds=55)
    assert not report.verdict, f"{report}\nledgers and logs: {tmp_path}"
    assert report.faults >= 12
    assert report.accepted > 10_000  # the others were refused: a machine under load pushes longer into each fault
    assert report.done + report.dead == 2 * report.accepted
