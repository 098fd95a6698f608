"""Gateways asking one another: who has gone is not missed, who hangs is an error, nobody is left lying about."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pepperbus.gateway import kin
from pepperbus.gateway.kin import Kin, Unheard


def test_all_others_answer_and_who_has_gone_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kin, "PATIENCE_S", 30.0)
    one, two = Kin(tmp_path, 0, lambda asked: b"one " + asked), Kin(tmp_path, 1, lambda asked: b"two " + asked)
    assert one.ask(b"?") == [], "nobody else is there yet"
    one.listen()
    two.listen()
    assert one.ask(b"?" * 300_000) == [b"two " + b"?" * 300_000]
    assert two.ask(b"?") == [b"one ?"]
    two.close()
    assert one.ask(b"?") == []
    with socket.socket(socket.AF_UNIX) as killed:  # its socket outlives it
        killed.bind(str(tmp_path / "kin" / f"2.{os.getpid()}"))
    assert one.ask(b"?") == []
    one.close()


def test_one_that_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kin, "PATIENCE_S", 0.1)
    one = Kin(tmp_path, 0, lambda asked: b"")
    one.listen()
    with socket.socket(socket.AF_UNIX) as hangs:
        hangs.bind(str(tmp_path / "kin" / f"3.{os.getpid()}"))
        hangs.listen()
        with pytest.raises(Unheard, match="gateway 3 of this node does not answer"):
            one.ask(b"?")
    one.close()


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    (tmp_path / "kin").mkdir()
    left = tmp_path / "kin" / f"1.{gone}"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(left))
    one = Kin(tmp_path, 0, lambda asked: b"")
    one.listen()
    assert not left.exists()
    one.close()
