"""What readers of a stream have, counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

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
