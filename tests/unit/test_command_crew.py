"""Processes of `run = command` while things go wrong around them: a full disk, a bug, a worker that leaves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from pepperbus.config.model import Topic
from pepperbus.delivery import command_crew
from pepperbus.delivery.command_crew import Crew
from pepperbus.delivery.command_marks import Marks
from pepperbus.delivery.command_process import Process
from pepperbus.delivery.command_seats import Seats
from pepperbus.delivery.command_start import Command
from pepperbus.log import Log


@pytest.fixture
def command(tmp_path: Path) -> Command:
    topic = Topic("q", "t", storage="local", run="command", command=("sleep", "1000"), directory=str(tmp_path))
    config: Any = SimpleNamespace(bus=SimpleNamespace(run_dir=tmp_path / "run"))
    return Command(topic, config)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        gevent.sleep(0.01)


def start(command: Command) -> Process:
    return Process(command, lines=False, stdin=False)


def test_a_process_that_cannot_be_marked_does_not_stay(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would ever end it, and the next try would start one more."""
    started: list[int] = []

    def full(marks: Marks, pid: int) -> None:
        started.append(pid)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Marks, "add", full)
    with pytest.raises(OSError, match="No space"):
        start(command)
    until(lambda: not os.path.exists(f"/proc/{started[0]}"))


def test_one_that_starts_while_the_worker_leaves_is_sent_away(command: Command, tmp_path: Path) -> None:
    entered: list[int] = []
    made: list[Process] = []

    def slowly() -> Process:
        entered.append(1)
        gevent.sleep(0.2)  # as a fork does on a busy machine
        made.append(start(command))
        return made[0]

    crew = Crew("q/t", slowly, lambda: "", 0, 0)
    crew.keep(Seats(tmp_path / "seats", 1), lambda: 1, Log("worker.0", str(tmp_path / "log")))
    until(lambda: entered)
    crew.leave()
    until(lambda: made)
    assert made[0].ended.wait(20)


def test_a_start_that_raises_ends_neither_the_keeping_nor_a_seat(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_crew, "_BACKOFF_S", (0.05, 0.1))
    left = [RuntimeError("a bug of ours")]

    def starts() -> Process:
        if left:
            raise left.pop()
        return start(command)

    crew = Crew("q/t", starts, lambda: "", 0, 0)
    crew.keep(Seats(tmp_path / "seats", 1), lambda: 1, Log("worker.0", str(tmp_path / "log")))
    until(lambda: crew.members)
    crew.end(0.1)
    assert crew.gone(20)


def test_workers_share_the_processes_of_a_topic(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever came first has all; the others get their part, however busy the first one is, and nobody more than that."""
    monkeypatch.setattr(command_crew, "_TURN_S", 0.05)

    def crew() -> Crew:
        made = Crew("q/t", lambda: start(command), lambda: "", 0, 0)
        made.keep(Seats(tmp_path / "seats", 5), lambda: 5, Log("worker.0", str(tmp_path / "log")))
        return made

    def stand(*sizes: int) -> None:
        until(lambda: tuple(len(one.staying()) for one in crews) == sizes)
        assert sum(len(one.members) for one in crews) <= 5

    crews = [crew()]
    stand(5)
    busy = [crews[0].take(f"job {n}") for n in range(5)]
    crews.append(crew())
    until(lambda: crews[1]._seats and crews[0]._seats and crews[0]._seats.has_too_many())
    assert len(crews[0].staying()) == 5, "who is at work stays"
    for process in busy[:3]:
        assert process is not None
        crews[0].give(process, True)
    stand(3, 2)
    crews.append(crew())
    stand(2, 2, 1)
    assert not any(one._seats and one._seats.has_too_many() for one in crews)
    crews[2].leave()
    stand(3, 2, 0)
    for one in crews:
        one.end(0.1)
        assert one.gone(20)


def test_who_has_jobs_takes_what_the_others_leave(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a range only the least is kept; beyond it a job may start any, until another worker wants some, too."""
    monkeypatch.setattr(command_crew, "_TURN_S", 0.05)
    crews = []
    for _ in range(2):
        crews.append(Crew("q/t", lambda: start(command), lambda: "", 0, 0))
        crews[-1].keep(Seats(tmp_path / "seats", 4), lambda: 1, Log("worker.0", str(tmp_path / "log")))
        until(lambda: sum(len(one.members) for one in crews) == 1)
    first, second = crews
    taken = [first.take(f"job {n}") for n in range(4)]
    assert None not in taken
    assert second.take("another") is None
    until(lambda: first._seats and first._seats.has_too_many())
    for process in taken:
        assert process is not None
        first.give(process, True)
    until(lambda: second.take("another"))
    until(lambda: second.take("one more"))
    for one in crews:
        one.end(0.1)
        assert one.gone(20)
