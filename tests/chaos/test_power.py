"""Power cuts, a few of them; `scripts/chaos --power CUTS` makes more. The control must lose, or the cut is none."""

from pathlib import Path

import pytest

from tests.chaos import power
from tests.chaos.disk import LoopDisk

pytestmark = pytest.mark.skipif(bool(LoopDisk.unavailable()), reason=LoopDisk.unavailable() or "possible")


@pytest.mark.parametrize("engine", ["embedded", "redis"])
def test_an_answered_push_survives(engine: str, tmp_path: Path) -> None:
    found = power.run(tmp_path, engine, cuts=1, seed=5)
    assert min(found.answered) > 100, str(found)
    assert found.lost == [0], str(found)


def test_a_bus_that_syncs_nothing_is_found_out(tmp_path: Path) -> None:
    found = power.run(tmp_path, "embedded", cuts=1, seed=6, mutant="syncs nothing")
    assert (tmp_path / "cut-0" / "before" / "committed").exists()
    assert sum(found.lost), str(found)
