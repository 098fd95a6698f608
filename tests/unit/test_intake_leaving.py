"""A list that is no longer in the configuration is left, also when its Redis is away at that moment."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gevent
import pytest
import redis
from gevent.event import Event

from pepperbus.config.model import Intake
from pepperbus.config.secret import Secret
from pepperbus.ticker import intakes
from pepperbus.ticker.intake_elements import read_raw


class Source:
    """Nothing to take, and then its Redis is gone."""

    waits = False
    taken_from = Event()
    refused = "refused"

    def __init__(self, *words: Any) -> None:
        pass

    def claim(self) -> str:
        return ""

    def left(self) -> tuple[str, list[bytes]]:
        return "", []

    def keep(self) -> None:
        pass

    def lengths(self) -> tuple[int, int]:
        return 0, 0

    def take(self, n: int) -> list[bytes]:
        self.taken_from.set()
        return []

    def leave(self) -> None:
        raise redis.ConnectionError("Connection refused")

    def close(self) -> None:
        pass


class Store:
    closed = ""

    def __init__(self, *words: Any) -> None:
        pass

    def resume(self) -> None:
        pass

    def room(self, n: int) -> int:
        return n


def test_it_is_left_though_redis_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intakes, "Source", Source)
    monkeypatch.setattr(intakes, "Store", Store)
    child: Any = SimpleNamespace(log=SimpleNamespace(warning=lambda *words, **facts: None))
    config: Any = SimpleNamespace(bus=SimpleNamespace(node="here", data_dir="/nowhere"))
    intake = Intake("i", Secret("redis://127.0.0.1:1"), "k")
    what = intakes.Listed("q", intake, "k", read_raw)
    taking = intakes._Taking(what, child, child, {}, lambda: config)
    greenlet = gevent.spawn(taking.run)
    assert Source.taken_from.wait(20), "it never began to take"
    greenlet.kill(block=False)
    greenlet.join(20)
    assert greenlet.ready(), "it went on taking"
