"""The systemd unit as systemd judges it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "etc" / "systemd" / "pepperbus.service"
MOST = 20  # tenths: an exposure of 2.0, "OK"; an unhardened unit has 9.6
ANALYZE = shutil.which("systemd-analyze")
pytestmark = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def exposure(unit: Path) -> tuple[int, float, str]:
    command = [ANALYZE or "", "security", "--offline=true", f"--threshold={MOST}", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    if found is None:
        pytest.skip(f"this systemd-analyze judges no file: {done.stderr.strip()[:200]}")
    return done.returncode, float(found[1]), done.stdout


def test_the_unit_is_hardened() -> None:
    code, score, shown = exposure(UNIT)
    assert (code, score <= MOST / 10) == (0, True), shown


@pytest.mark.parametrize("line", ["CapabilityBoundingSet=", "SystemCallFilter=", "NoNewPrivileges=yes"])
def test_the_judgement_would_see_a_line_that_goes(tmp_path: Path, line: str) -> None:
    weaker = tmp_path / UNIT.name
    kept = [one for one in UNIT.read_text().splitlines() if not one.startswith(line)]
    weaker.write_text("\n".join(kept) + "\n")
    assert exposure(weaker)[1] > exposure(UNIT)[1]
