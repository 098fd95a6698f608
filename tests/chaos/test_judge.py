"""The judge's own examination: it must find each crime it is there for, and blame nobody for nothing."""

from pathlib import Path

import pytest

from tests.chaos import bounds
from tests.chaos.blame import recovery
from tests.chaos.checker import Dead, Report, check
from tests.chaos.ledger import read

PRODUCERS = "S 1 1.0 ok\nA 1 101 1.1\nS 2 2.0 never\nA 2 102 2.1\nS 3 3.0 ok\nE 3 queue full\nS 4 4.0 ok\nU 4 UNKNOWN\n"
CONSUMER = (
    "B 1 a 1 101 1.2 whole\nF 1 a 1 101 1.3\nB 1 b 1 101 1.2 whole\nF 1 b 1 101 1.3\n"
    "B 2 a 1 102 2.2 whole\nF 2 a 1 102 2.3\nB 2 b 1 102 2.2 whole\n"
)
NEMESIS = "fault 2.250000 kill_worker\nover 2.260000 kill_worker\n"
DIED = Dead("attempt 4 of 4 failed")


def again(n: int, attempt: int, began: float, ended: float) -> str:
    return f"B {n} a {attempt} 10{n} {began} whole\nF {n} a {attempt} 10{n} {ended}\n"


def judge(
    tmp_path: Path, p: str = PRODUCERS, x: str = CONSUMER, n: str = NEMESIS, dead: Dead | None = DIED, stuck: str = ""
) -> Report:
    for name, text in (("p", p), ("x", x), ("n", n)):
        (tmp_path / name).write_text(text)
    graves = {"a": {}, "b": {"102": dead} if dead else {}}
    return check(
        [tmp_path / "p"], tmp_path / "x", tmp_path / "n", graves, {"a": set(), "b": {stuck} if stuck else set()}
    )


@pytest.mark.parametrize(
    ("found", "changes"),
    [
        ("", {}),
        ("", {"x": CONSUMER + again(2, 2, 2.4, 2.5)}),  # the killed worker explains it
        ("", {"x": CONSUMER + again(2, 2, 2.4, 2.5), "n": NEMESIS.replace("2.2", "2.0")}),  # sent before it was killed
        ("no fault explains", {"x": CONSUMER + again(2, 2, 2.4, 2.5), "n": NEMESIS.replace("2.2", "1.0")}),
        ("lost", {"x": CONSUMER.replace("F 1 a 1 101 1.3\n", "")}),
        ("stuck", {"dead": None, "stuck": "102"}),
        ("stuck", {"x": CONSUMER + again(2, 1, 2.4, 2.5).replace(" a ", " b "), "stuck": "102"}),  # it ended, and still waits
        ("liars", {"x": CONSUMER + "B 3 a 1 103 3.5 whole\n"}),
        ("phantoms", {"x": CONSUMER + "B 9 a 1 109 3.5 whole\n"}),
        ("corrupt", {"x": CONSUMER + "B 4 a 1 104 4.5 TORN\nF 4 a 1 104 4.6\n"}),
        ("", {"x": CONSUMER + "B 4 a 1 104 4.5 TORN\n"}),  # torn, and refused by the consumer
        ("no fault explains", {"x": CONSUMER + again(1, 2, 1.5, 1.6)}),
        ("no fault explains", {"x": CONSUMER + again(2, 2, 2.4, 2.5), "n": NEMESIS.replace("worker", "gateway")}),
        ("began twice", {"x": CONSUMER + again(2, 1, 2.4, 2.5)}),
        ("more often than attempts allow", {"x": CONSUMER.replace("B 2 b 1", f"B 2 b {bounds.HIGHEST_ATTEMPT + 1}")}),
        ("behind a living worker", {"x": CONSUMER.replace("1.3\nB 1 b", "1.9\nB 1 b") + again(1, 2, 1.5, 1.6),
                                    "n": "fault 1.400000 fpm_down\nover 1.450000 fpm_down\n"}),
        ("", {"x": CONSUMER.replace("1.3\nB 1 b", "1.9\nB 1 b") + again(1, 2, 1.5, 1.6),
              "n": "fault 1.400000 kill_worker\nover 1.450000 kill_worker\n"}),
        ("without a reason", {"dead": Dead("", 4)}),
        ("without a reason", {"dead": Dead("attempt 2 failed", 2)}),
        ("", {"dead": Dead("its worker died 3 times while it ran", 3)}),
    ],
)  # fmt: skip
def test_it_finds(found: str, changes: dict[str, str], tmp_path: Path) -> None:
    verdict = "\n".join(judge(tmp_path, **changes).verdict)
    assert (found in verdict) if found else not verdict, verdict


def crowd(jobs: int, faults: list[tuple[float, str]]) -> dict[str, str]:
    """`jobs` jobs that ended at 10 and again at 20, with these faults in between."""
    numbers = range(10, 10 + jobs)
    return {
        "p": "".join(f"S {n} 1.0 ok\nA {n} 5{n} 1.1\n" for n in numbers),
        "x": "".join(
            f"B {n} {topic} {attempt} 5{n} {at} whole\nF {n} {topic} {attempt} 5{n} {at + 0.1}\n"
            for n in numbers
            for topic, attempt, at in (("a", 1, 10.0), ("b", 1, 10.0), ("a", 2, 20.0))
        ),
        "n": "".join(f"fault {at} {name}\nover {at} {name}\n" for at, name in faults),
    }


def test_a_fault_explains_no_more_than_it_may_repeat(tmp_path: Path) -> None:
    most = bounds.RUNNING
    assert not judge(tmp_path, **crowd(most, [(15.0, "fpm_down")])).verdict
    report = judge(tmp_path, **crowd(most + 2, [(15.0, "fpm_down")]))
    assert len(report.blame.crowded) == 2
    assert not judge(
        tmp_path, **crowd(most + 2, [(14.0, "fpm_child"), (15.0, "fpm_down"), (16.0, "fpm_child")])
    ).verdict
    assert report.blame.by_kind == {"fpm down": [most]}


def test_how_long_the_load_needs_to_come_back(tmp_path: Path) -> None:
    """100 jobs a second; at 10 s a gateway is killed and nothing is accepted for 1.5 s."""
    times = [i / 100 for i in range(2000) if not 10.0 < i / 100 < 11.5]
    (tmp_path / "p").write_text("".join(f"S {i} {at} ok\nA {i} {i} {at}\n" for i, at in enumerate(times)))
    (tmp_path / "x").write_text(
        "".join(f"B {i} a 1 {i} {at} whole\nF {i} a 1 {i} {at}\n" for i, at in enumerate(times))
    )
    (tmp_path / "n").write_text("fault 10.0 kill_gateway\nover 10.0 kill_gateway\n")
    (took,) = recovery(read([tmp_path / "p"], tmp_path / "x", tmp_path / "n"))["kill gateway"]
    assert 1.4 < took < 1.6
