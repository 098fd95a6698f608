"""Failpoints name what is there, are refused when they should be, and cost nothing when nobody asked for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pepperbus import failpoints
from pepperbus.errors import BootError
from pepperbus.failpoints import STEPS, VARIABLE, Injected, Order, arm, asked, find, orders


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_there(name: str) -> None:
    """It fails for who renames or moves such a function: name in `STEPS` the one that does this step now."""
    for place in (*(place.partition(" ")[2] for place in STEPS[name].places), *STEPS[name].within):
        owner, function = find(place)
        assert callable(getattr(owner, function)), place


def test_the_page_names_every_step() -> None:
    page = (Path(__file__).parents[2] / "docs/RELIABILITY.md").read_text()
    assert [name for name, step in STEPS.items() if f"| `{name}` | {step.what} |" not in page] == []


def test_what_is_written() -> None:
    assert orders("") == []
    assert orders(" worker.answered=kill@3, gateway.stored=hang! ,") == [
        Order("worker.answered", "kill", 3),
        Order("gateway.stored", "hang", always=True),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("worker.answerd=kill", "no step 'worker.answerd'; did you mean worker.answered?"),
        ("zzz=kill", "no step 'zzz'; there are gateway.read, gateway.numbered"),
        ("worker.answered=stop", "'worker.answered=stop': no action 'stop'; there are kill, hang, raise"),
        ("worker.answered", "'worker.answered' is no failpoint: write STEP=kill|hang|raise[@N][!]"),
        ("worker.answered=kill@0", "'worker.answered=kill@0' is no failpoint"),
    ],
)
def test_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(BootError) as error:
        asked({VARIABLE: text}, chaos=True)
    assert str(error.value).startswith(f"$PEPPERBUS_FAILPOINTS: {said}")
    assert "\n" not in str(error.value)


def test_refused_without_the_flag(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pepperbus.cli", "-c", str(tmp_path / "none.conf"), "serve"]
    environ = {**os.environ, VARIABLE: "worker.answered=kill"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=30)
    said = "pepperbus: $PEPPERBUS_FAILPOINTS is set, but failpoints need `pepperbus serve --chaos`: unset it, or add --chaos"
    assert (done.returncode, done.stderr.strip()) == (3, said)
    assert asked({}, chaos=True) == ""


class Thing:
    def write(self, data: bytes) -> bytes:
        self.seen = getattr(self, "seen", b"") + data
        return self.seen

    def outer(self) -> bytes:
        return self.write(b"inner")


def _arm(
    monkeypatch: pytest.MonkeyPatch, directory: Path, order: str, places: tuple[str, ...], within: str = ""
) -> type:
    """A class whose functions are wrapped."""
    fresh = type("Fresh", (), dict(Thing.__dict__))
    monkeypatch.setattr(sys.modules[__name__], "Fresh", fresh, raising=False)
    inside = (f"{__name__}:Fresh.{within}",) if within else ()
    monkeypatch.setitem(STEPS, "a.step", failpoints.Step(("worker",), places, "", inside))
    arm(f"a.step={order}", "gateway", directory)
    arm(f"a.step={order}", "worker", directory)
    return fresh


@pytest.mark.parametrize(("at", "seen"), [("before", b"12"), ("after", b"123"), ("halfway", b"12lo")])
def test_it_strikes_where_and_when_it_is_told_to(
    at: str, seen: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thing = _arm(monkeypatch, tmp_path, "raise@3", (f"{at} {__name__}:Fresh.write",))()
    thing.write(b"1")
    thing.write(b"2")
    with pytest.raises(Injected, match=r"failpoint a\.step"):
        thing.write(b"long" if at == "halfway" else b"3")
    assert thing.seen == seen
    assert (tmp_path / "failpoints" / "a.step").read_text().split()[1] == str(os.getpid())
    thing.write(b"")
    other = _arm(monkeypatch, tmp_path, "raise", (f"{at} {__name__}:Fresh.write",))()
    other.write(b"once in the life of a run directory")


def test_only_inside_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thing = _arm(monkeypatch, tmp_path, "raise!", (f"before {__name__}:Fresh.write",), "outer")()
    thing.write(b"outside")
    with pytest.raises(Injected):
        thing.outer()
    with pytest.raises(Injected):
        _arm(monkeypatch, tmp_path, "raise!", (f"before {__name__}:Fresh.write",), "outer")().outer()


@pytest.mark.parametrize("action", ["kill", "hang"])
def test_the_process_goes_no_line_further(action: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pepperbus.failpoints import Failpoint, Order\n"
        f"Failpoint(Order('a.step', '{action}'), Path(sys.argv[1])).pass_by(); print('further')"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        try:
            if action == "hang":
                _, status = os.waitpid(process.pid, os.WUNTRACED)
                assert os.WIFSTOPPED(status)
            else:
                assert process.wait(20) == -9
        finally:
            process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == b""


def test_unarmed_nothing_is_wrapped() -> None:
    for step in STEPS.values():
        for place in step.places:
            owner, name = find(place.partition(" ")[2])
            assert not hasattr(getattr(owner, name), "__wrapped__"), place
