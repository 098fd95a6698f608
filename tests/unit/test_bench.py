"""The bench's own parts that can be wrong without a server: goals, turns, table, plots."""

from __future__ import annotations

import json
import os
import signal
import xml.etree.ElementTree as ElementTree
from collections import namedtuple
from pathlib import Path
from typing import cast

import pytest

from scripts.benchmarks import live, main, plot, processes, table
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.rows import all_rows
from scripts.benchmarks.table import CannotRun, Goal, Row, sides

NO_BENCH = cast(Bench, None)


def row(goal: Goal | None = None, **fields: object) -> Row:
    usual = {"id": "P1", "title": "push", "engine": "redis", "command": "true", "unit": "/s"}
    return Row(**{**usual, "goal": goal, "measure": sides(lambda bench: 1.0), **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("figure", "mark"), [(0.54, "MISSED"), (0.55, "must"), (0.74, "must"), (0.75, "stretch"), (2.0, "stretch")]
)
def test_a_figure_that_should_be_high(figure: float, mark: str) -> None:
    assert Goal(0.55, 0.75).mark(figure) == mark


@pytest.mark.parametrize(("figure", "mark"), [(6.1, "MISSED"), (6, "must"), (2.6, "must"), (2.5, "stretch")])
def test_a_figure_that_should_be_low(figure: float, mark: str) -> None:
    assert Goal(6, 2.5, most=True).mark(figure) == mark


def test_the_sides_of_a_ratio_take_turns_at_going_first() -> None:
    order: list[str] = []

    def side(name: str) -> table.Side:
        def measure(bench: Bench) -> float:
            order.append(name)
            return 1.0

        return measure

    assert list(sides(side("a"), side("b"))(NO_BENCH, 4)) == [(1.0, 1.0)] * 4
    assert "".join(order) == "abbaabba"


def test_a_ratio_is_of_the_same_round() -> None:
    made = row(Goal(0.5, 1))
    for ours, theirs in ((10.0, 20.0), (30.0, 10.0), (8.0, 10.0)):
        made.add(ours, theirs)
    assert made.figures == [0.5, 3.0, 0.8]
    assert made.mark == "must"


def test_a_row_that_cannot_run_says_why_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    def measure(bench: Bench, rounds: int):  # type: ignore[no-untyped-def]
        raise CannotRun("no php-fpm here")
        yield

    broken, whole = row(measure=measure), row(id="P2")
    main.measure(NO_BENCH, [broken, whole], 2)
    assert "not run: no php-fpm here" in table.text([broken, whole])
    assert whole.ours == [1.0, 1.0]
    assert "P1 redis: not run: no php-fpm here" in capsys.readouterr().err


def test_missed_is_said_in_the_table() -> None:
    made = row(Goal(2, 3))
    made.add(1.0, None)
    assert table.text([made]).splitlines()[1].endswith("MISSED")


def test_time_that_the_host_gave_to_others_is_a_share_of_all_time() -> None:
    Times = namedtuple("Times", "user nice system idle iowait irq softirq steal guest guest_nice")
    before, now = Times(10, 0, 5, 80, 1, 0, 0, 4, 3, 0), Times(14, 0, 6, 82, 1, 0, 0, 7, 6, 0)
    assert processes.stolen(before, now) == pytest.approx(30)  # a guest's time is in user already
    assert processes.stolen(before, before) == 0


def test_sigterm_stops_the_whole_bench_not_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Others may still be asked for; what was started is stopped, whatever row it was."""
    closed, asked = [], []

    class Fake:
        def __init__(self, *_: object) -> None:
            pass

        def about(self) -> dict[str, object]:
            return {}

        def close(self) -> None:
            closed.append(True)

    def measured(bench: Bench) -> float:
        asked.append(True)
        os.kill(os.getpid(), signal.SIGTERM)
        return 1.0

    rows = [row(measure=sides(measured)), row(measure=sides(measured))]
    monkeypatch.setattr(main, "Bench", Fake)
    monkeypatch.setattr(main, "VAR", tmp_path)
    monkeypatch.setattr(main, "all_rows", lambda: rows)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main.main(["--rows", "P1"]) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (len(asked), len(closed)) == (1, 1)


def test_the_json_holds_every_round(tmp_path: Path) -> None:
    made = row(Goal(2, 3))
    made.add(1.0, 4.0)
    made.add(3.0, 4.0)
    table.write_json(tmp_path / "deep" / "bench.json", [made], {"cores": 2}, {"peers": []})
    found = json.loads((tmp_path / "deep" / "bench.json").read_text())
    assert found["rows"][0]["figures"] == [0.25, 0.75]
    assert found["rows"][0]["mark"] == "MISSED"
    assert found["about"] == {"cores": 2}


def test_every_target_has_its_rows_for_both_engines() -> None:
    rows = all_rows()
    assert {f"P{number}" for number in range(1, 16)} <= {made.id for made in rows}
    for both in ("P4", "P5", "P6", "P7", "P8", "P9", "P10", "P13", "P14", "P15", "S1", "S2"):
        assert {made.engine for made in rows if made.id == both} == {"embedded", "redis"}, both
    assert all(made.command for made in rows)


def test_an_unknown_row_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--rows", "P99"]) == 2
    assert "no such row: P99" in capsys.readouterr().err


def test_an_unknown_plot_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["--growth", "moon"])
    assert "no such plot: moon" in capsys.readouterr().err


def test_a_plot_is_svg_with_every_point_inside() -> None:
    lines = [plot.Series("a & b", [(1, 10), (100, 5), (10_000, 0)]), plot.Series("c", [(1, 7.5), (10_000, 9)])]
    root = ElementTree.fromstring(plot.svg("Title <1>", "jobs", "/s", lines))
    space = "{http://www.w3.org/2000/svg}"
    circles = root.findall(f"{space}circle")
    assert len(circles) == 5
    assert all(0 <= float(dot.get("cx", "-1")) <= 720 and 0 <= float(dot.get("cy", "-1")) <= 340 for dot in circles)
    heights = [float(dot.get("cy", "0")) for dot in circles[:3]]
    assert heights == sorted(heights), "less is lower"
    assert "a & b" in [text.text for text in root.findall(f"{space}text")]


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (99.96, "100.0"), (12.34, "12.3"), (1.234, "1.23"), (0.0512, "0.05")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert table.number(value) == text


def test_live_pages_are_held_against_the_slice_beside_them() -> None:
    """A machine that gets slower by the minute, half as fast with the pages: the pairs say so, the medians alone would not."""
    pairs = live.Pairs(4.0, events=[10, 20, 30])
    for rate in (9000.0, 3000.0, 1000.0):
        pairs.alone.append(live.Slice(rate, sidecar=10.0, gateway=500.0, push=50.0))
        pairs.beside.append(live.Slice(rate / 2, sidecar=40.0, gateway=500.0, push=60.0))
    shown = [*live.text(pairs)]
    assert shown[0] == "200 live pages, 3 pairs of slices of 4 s; 20 events came in a slice"
    assert "| pushes a second | 3,000.0 | 1,500.0 | 0.50 | 0.50 to 0.50 | 0.50 to 0.50 |" in shown
    assert "| sidecar: ms of CPU a second | 10.0 | 40.0 | +30.0 | +30.0 to +30.0 | +30.0 to +30.0 |" in shown
    assert [*live.text(live.Pairs())] == []
