"""Which attempts become spans, and what is said when nothing can send them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pepperbus.clock import SystemClock
from pepperbus.config import tracing
from pepperbus.config.load import load
from pepperbus.config.notes import notes
from pepperbus.errors import ConfigError
from pepperbus.journal.contract import Row
from pepperbus.log import Log
from pepperbus.ticker.spans import Spans, is_recorded

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("event", "trace", "wanted"),
    [
        ("attempt", f"00-{TRACE}-00f067aa0ba902b7-01", True),
        ("popped", f"00-{TRACE}-00f067aa0ba902b7-03", True),
        ("released", f"00-{TRACE}-00f067aa0ba902b7-01", False),
        ("attempt", f"00-{TRACE}-00f067aa0ba902b7-00", False),
        ("attempt", f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
        ("attempt", f"00-{TRACE}-{'0' * 16}-01", False),
        ("attempt", f"00-{'x' * 32}-00f067aa0ba902b7-01", False),
        ("attempt", "13617577267756007424-2130706433-12017", False),
        ("attempt", "", False),
    ],
)
def test_which_rows_become_spans(event: str, trace: str, wanted: bool) -> None:
    assert is_recorded(Row(event, 1 << 63, "orders/mail", 1, in_trace=trace)) is wanted


def config(tmp_path: Path, endpoint: str) -> Path:
    (tmp_path / "queues.d").mkdir(exist_ok=True)
    file = tmp_path / "pepperbus.conf"
    file.write_text(f"[bus]\ndata_dir = data\nrun_dir = run\n[tracing]\nendpoint = {endpoint}\n")
    return file


def test_the_endpoint(tmp_path: Path) -> None:
    for given, sent in (
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://otlp.example.com/", "https://otlp.example.com/v1/traces"),
        ("https://otlp.example.com/otlp/v1/traces", "https://otlp.example.com/otlp/v1/traces"),
    ):
        assert load(config(tmp_path, given), {}).tracing.endpoint == sent
    with pytest.raises(ConfigError, match=r"http://host\[:port\]"):
        load(config(tmp_path, "127.0.0.1:4318"), {})


def test_check_and_log_say_that_the_extra_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made = load(config(tmp_path, "http://127.0.0.1:9"), {})
    assert not [note for note in notes(made) if "[tracing]" in note]
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    said = "[tracing] endpoint: no spans are sent, the extra is not installed: pip install 'pepperbus[otel]'"
    assert said in notes(made)
    monkeypatch.setattr("pepperbus.ticker.spans.is_installed", tracing.is_installed)
    spans = Spans(lambda: made, SystemClock(), Log("ticker", "-", "info", "json", ""), lambda work, *args: work(*args))
    spans.look()
    spans.look()
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["action"] == "no_spans"
