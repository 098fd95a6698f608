"""The short form of the chaos test, and the judge's own examination: it must find each crime it is there for."""

from pathlib import Path

import pytest

from tests.chaos.checker import check
from tests.chaos.run import run


@pytest.mark.timeout(400)
@pytest.mark.parametrize("engine", ["embedded", "redis"])
def test_nothing_accepted_is_lost(engine: str, tmp_path: Path) -> None:
    """20,000 jobs for two topics, every fault of the list about once; see `scripts/chaos` for the long form."""
    report = run(tmp_path, engine, jobs=20_000, faults=19, seed=20_261_123, seconds=60, verbose=True)
    assert not report.verdict, f"{report}\nledgers and logs: {tmp_path}"
    assert report.faults >= 12
    assert report.accepted > 15_000
    assert report.done + report.dead == 2 * report.accepted


HONEST = {
    "p": "S 1 1.0\nA 1 id1 1.1\nS 2 2.0\nA 2 id2 2.1\nS 3 3.0\nE 3 queue full\nS 4 4.0\nU 4 UNKNOWN\n",
    "x": "B 1 a 1 id1 1.2 whole\nF 1 a 1 id1 1.3\nB 1 b 1 id1 1.2 whole\nF 1 b 1 id1 1.3\n"
    "B 2 a 1 id2 2.2 whole\nF 2 a 1 id2 2.3\nB 2 b 1 id2 2.2 whole\n",
    "n": "fault 2.25 kill_worker\n",
}


@pytest.mark.parametrize(
    ("crime", "found", "changes"),
    [
        ("none", "", {}),
        ("a lost job", "lost", {"x": HONEST["x"].replace("F 1 a 1 id1 1.3\n", "")}),
        ("a liar", "liars", {"x": HONEST["x"] + "B 3 a 1 id3 3.5 whole\n"}),
        ("a phantom", "phantoms", {"x": HONEST["x"] + "B 9 a 1 id9 3.5 whole\n"}),
        ("an unexplained duplicate", "no fault explains", {"x": HONEST["x"] + "B 1 a 2 id1 1.5 whole\nF 1 a 2 id1 1.6\n"}),
        ("an attempt not counted", "began twice", {"x": HONEST["x"] + "B 2 a 1 id2 2.4 whole\nF 2 a 1 id2 2.5\n"}),
        ("a crowded fault", "more duplicates", {"x": HONEST["x"] + "".join(
            f"B 2 a {i} id2 2.{i} whole\nF 2 a {i} id2 2.{i}\n" for i in (3, 4, 5))}),
    ],
)  # fmt: skip
def test_the_judge_finds(crime: str, found: str, changes: dict[str, str], tmp_path: Path) -> None:
    paths = {}
    for name, text in (HONEST | changes).items():
        paths[name] = tmp_path / name
        paths[name].write_text(text)
    dead = {"a": {}, "b": {"id2": "attempt 4 of 4 failed"}}
    report = check([paths["p"]], paths["x"], paths["n"], dead, {"a": set(), "b": set()}, in_flight=2)
    verdict = "\n".join(report.verdict)
    assert (found in verdict) if found else not verdict, f"{crime}: {verdict!r}"


def test_the_judge_finds_a_stuck_job(tmp_path: Path) -> None:
    for name, text in HONEST.items():
        (tmp_path / name).write_text(text)
    paths = [tmp_path / name for name in "pxn"]
    report = check([paths[0]], paths[1], paths[2], {"a": {}, "b": {}}, {"a": set(), "b": {"id2"}}, in_flight=2)
    assert report.stuck == ["2/b"]
