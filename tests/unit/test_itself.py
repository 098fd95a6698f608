"""Which commit runs: from what pip noted, or from the checkout; rubbish in either is no commit, and no error."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from pepperbus.operations import itself

COMMIT = "4bf92f3577b34da6a3ce929d0e0e473600f067aa"


class Noted:
    def __init__(self, text: str) -> None:
        self.text = text

    def read_text(self, name: str) -> str | None:
        return self.text if name == "direct_url.json" else None


@pytest.mark.parametrize(
    ("note", "commit"),
    [
        (f'{{"url": "https://x", "vcs_info": {{"vcs": "git", "commit_id": "{COMMIT}"}}}}', COMMIT),
        ('{"url": "file:///srv/x", "dir_info": {"editable": true}}', ""),
        *((rubbish, "") for rubbish in ("", "{", "[]", "null", '{"vcs_info": null}', '{"vcs_info": {"commit_id": 7}}')),
        ('{"vcs_info": {"commit_id": "<script>"}}', ""),
    ],
)
def test_what_pip_noted(note: str, commit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Noted(note))
    monkeypatch.setattr(itself.pepperbus, "__file__", str(tmp_path / "lib" / "pepperbus" / "__init__.py"))
    assert itself._commit() == commit


@pytest.mark.parametrize(
    ("files", "commit"),
    [
        ({"HEAD": COMMIT}, COMMIT),
        ({"HEAD": "ref: refs/heads/main\n", "refs/heads/main": COMMIT + "\n"}, COMMIT),
        ({"HEAD": "ref: refs/heads/main\n", "packed-refs": f"# pack-refs\n{COMMIT} refs/heads/main\n"}, COMMIT),
        ({"HEAD": "ref: refs/heads/main\n"}, ""),
        ({"HEAD": "\udc80", "packed-refs": ""}, ""),
        ({}, ""),
    ],
)
def test_what_the_checkout_stands_at(files: dict[str, str], commit: str, tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(errors="surrogateescape"))
    assert itself._checked_out(tmp_path) == commit
