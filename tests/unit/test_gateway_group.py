"""What readers of a stream have, counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pepperbus.errors import StorageUnavailable
from pepperbus.gateway import taken as settling
from pepperbus.gateway.group import Group
from pepperbus.gateway.popping import let_go
from pepperbus.gateway.taken import Taken
from pepperbus.job import Job
from pepperbus.storage.contract import Leased


def taken(place: Any, number: int) -> Taken:
    return Taken(place, Leased("feed/t", number, b"", 1), Job(number, "t", b"content"), "me", "t", 0, 0.0, "local")


def test_a_job_that_comes_a_second_time_is_had_once() -> None:
    """This node was silent for so long that another gave its jobs back, and then it leased one again."""
    place: Any = SimpleNamespace(topic=SimpleNamespace(lease=60.0), in_hand=3, record=SimpleNamespace(add=print))
    first, second = SimpleNamespace(unacked=0), SimpleNamespace(unacked=0)
    group = Group()
    consumer = group.consumer(b"me", 0)
    for number in (1, 2):
        group.deliver(taken(place, number), consumer, first, 0, 0.0)
    group.deliver(taken(place, 1), consumer, second, 0, 50.0)
    assert (first.unacked, second.unacked, consumer.pending, place.in_hand) == (1, 1, 2, 2)
    assert [one.taken.leased.job_id for one in group.expired(61.0)] == [2], "the one whose time is over is seen"
    assert len(group.drop_all(group.expired(1000.0))) == 2
    assert (first.unacked, second.unacked, consumer.pending, group.is_full(b"me")) == (0, 0, 0, False)


def test_a_bug_of_an_engine_leaves_the_job_with_its_client() -> None:
    """Else nobody would ever say what became of it, and its lease would last as long as the gateway."""
    had: Any = object()
    session: Any = SimpleNamespace(holding=[had], left=False)
    with pytest.raises(RuntimeError), let_go(session, [had]):
        raise RuntimeError("a bug of an engine")
    assert session.holding == [had]


def test_an_end_that_an_engine_cannot_take_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "_AGAIN_S", 0.001)
    lines: list[str] = []
    process: Any = SimpleNamespace(log=SimpleNamespace(warning=lambda *words, **_: lines.append(words[1])))
    lane: Any = SimpleNamespace(closed=False, config=SimpleNamespace(name="local"))
    away = [StorageUnavailable("away")] * 2
    stored: list[int] = []
    given_up: list[int] = []

    def store(_: Any, ends: list[int]) -> None:
        if 2 in ends:
            raise KeyError("a bug of an engine")
        if away:
            raise away.pop()
        stored.extend(ends)

    settling.surely(process, [1, 2, 3], lambda: lane, store, lambda end, why: given_up.append(end))
    assert (stored, given_up) == ([1, 3], [2])
    assert lines[0] == "KeyError('a bug of an engine')"
