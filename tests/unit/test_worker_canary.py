"""A second consumer beside the first: whatever fails in between, the attempt ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pepperbus.config.model import Canary as Wish
from pepperbus.delivery.contract import Answer, Transport
from pepperbus.delivery.slots import Slots
from pepperbus.job import State
from pepperbus.worker import canary
from tests.unit.test_worker_pump import NAME, Consumer, Stage


class Broken(Consumer):
    """Every start is a bug of ours."""

    def start(self, *words: Any) -> None:
        raise RuntimeError("a bug of ours")


def staged(where: Path, first: Consumer, second: Consumer) -> Stage:
    stage = Stage(where)
    topic = replace(stage.topic, canary=Wish("", 1.0, url="http://127.0.0.1:9/"))
    stage.pump.consumer = canary.Canary(topic, first, second, None, stage.stats.record("canary"), stage.parts)
    return stage


def test_a_fall_back_that_raises_costs_an_attempt_and_no_place(tmp_path: Path) -> None:
    second = Consumer()
    stage = staged(tmp_path, Broken(), second)
    stage.push()
    stage.wait(lambda: second.waiting)
    second.waiting.pop()[1](Answer(Transport.ANSWERED, 500))
    stage.wait(lambda: stage.storage.depth(NAME).delayed == 1)
    assert stage.slots.used == 0
    assert stage.pump.under_way == 0


def test_an_answer_that_cannot_be_judged_goes_to_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Consumer(), Consumer()
    stage = staged(tmp_path, first, second)
    stage.topic = replace(stage.topic, zombie_grace=0.0)
    stage.pump.consumer.topic = stage.topic

    def judge(*words: Any, **more: Any) -> None:
        raise RuntimeError("a bug of ours")

    stage.push()
    stage.wait(lambda: second.waiting)
    monkeypatch.setattr(canary, "judge", judge)
    second.waiting.pop()[1](Answer(Transport.ANSWERED, 200))
    stage.wait(lambda: first.waiting)
    first.answer_all()
    stage.wait(lambda: stage.storage.depth(NAME) == (0, 0, 0, 0, 0))


def test_a_place_of_the_second_stays_taken_while_its_script_may_run(tmp_path: Path) -> None:
    first, second = Consumer(), Consumer()
    stage = staged(tmp_path, first, second)
    places = Slots(tmp_path / "second", 2)
    topic = replace(stage.topic, canary=Wish("", 1.0, url="http://127.0.0.1:9/"), zombie_grace=0.5)
    stage.pump.consumer = canary.Canary(topic, first, second, places, stage.stats.record("canary"), stage.parts)
    stage.push()
    stage.wait(lambda: second.waiting)
    second.waiting.pop()[1](Answer(Transport.TIMEOUT, detail="no answer"))
    assert places.used == 1, "the script may still run"
    stage.wait(lambda: first.waiting)
    stage.wait(lambda: not places.used)
    first.answer_all()


class Cutting(Consumer):
    """As every consumer does: what is under way when it is closed is cut."""

    def close(self) -> None:
        waiting, self.waiting = self.waiting, []
        for _, done in waiting:
            done(Answer(Transport.CUT, detail="the bus stopped"))


def test_what_is_cut_at_the_second_when_the_worker_leaves_is_not_begun_at_the_first(tmp_path: Path) -> None:
    """Its script may still run, and the first one would be cut in the same moment."""
    begun: list[Any] = []

    class First(Cutting):
        def start(self, *words: Any) -> None:
            begun.append(words)
            super().start(*words)

    second = Cutting()
    stage = staged(tmp_path, First(), second)
    stage.push()
    stage.wait(lambda: second.waiting)
    stage.pump.drain()
    stage.pump.consumer.close()
    stage.wait(lambda: stage.storage.depth(NAME).delayed == 1)
    assert begun == []
    assert stage.storage.peek(NAME, State.DELAYED).jobs[0].attempts == 1
