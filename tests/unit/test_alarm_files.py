"""The files for Prometheus and Grafana: Prometheus' own checker takes the rules, Grafana's file is whole."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pepperbus.alarms.rules import RULES

ETC = Path(__file__).parents[2] / "etc"
RULE_FILE, DASHBOARD = ETC / "prometheus/pepperbus.rules.yml", ETC / "grafana/pepperbus.json"
_METRIC = re.compile(r"\bpepperbus_[a-z_]+\b")


def metrics_in_rules() -> set[str]:
    """Every metric that a rule asks for."""
    text = RULE_FILE.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", "summary:", "zh:"))]
    return set(_METRIC.findall("\n".join(lines)))


def metrics_in_dashboard() -> set[str]:
    """Every metric that a panel or a variable asks for."""
    found = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in found["panels"] for target in panel["targets"]]
    asked += [str(one.get("definition", "")) for one in found["templating"]["list"]]
    return set(_METRIC.findall("\n".join(asked)))


def test_promtool_takes_the_rules() -> None:
    promtool = shutil.which("promtool") or str(Path(sys.executable).with_name("promtool"))
    if not Path(promtool).exists():
        pytest.skip("no promtool here: scripts/setup test gets it out of Debian's package prometheus where apt can")
    done = subprocess.run([promtool, "check", "rules", str(RULE_FILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout, "as many as the bus has itself"


def test_the_dashboard_is_whole() -> None:
    found = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"]) >= 12
    taken: set[tuple[int, int]] = set()
    for panel in found["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, f"{panel['title']} lies upon another panel"
        assert max(x for x, _ in cells) < 24
        taken |= cells
    known = {one["name"] for one in found["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text(encoding="utf-8"))) <= known
