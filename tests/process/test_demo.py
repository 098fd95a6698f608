"""The first command of the README, as a newcomer types it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_demo_runs_the_main_job_and_cleans_up(tmp_path):
    env = {**os.environ, "PEPPERBUS_VENV": sys.prefix, "PEPPERBUS_DEMO_DIR": str(tmp_path / "demo")}
    command = [ROOT / "scripts" / "demo", "--once", "--jobs", "500"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=110)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "accepted  500 orders, 1000 jobs" in result.stdout
    assert "done      998\n" in result.stdout
    assert "dead      2 kept" in result.stdout  # order 500 fails in both topics whenever it is tried
    assert not (tmp_path / "demo").exists()
