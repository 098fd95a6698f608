"""Gateways of one node wake each other: only those that wait, and for the queue that was pushed to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from pepperbus.config.model import gateway_wake
from pepperbus.family.bell import Bell
from pepperbus.gateway.neighbours import Neighbours


@pytest.fixture
def wakes() -> Iterator[dict[str, int]]:
    fds = {gateway_wake(index): os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for index in range(3)}
    yield fds
    for fd in fds.values():
        os.close(fd)


def test_who_waits_is_told(tmp_path: Path, wakes: dict[str, int]) -> None:
    heard: list[str] = []
    waits = Neighbours(tmp_path, 0, wakes, heard.append)
    pushes = Neighbours(tmp_path, 1, wakes, heard.append)
    waits.listen(["orders", "mail"])
    assert waits.waits(True), "the others did not know"
    assert not waits.waits(True)
    Bell(tmp_path).ring("orders")
    pushes.tell()
    with gevent.Timeout(20):
        while not heard:
            gevent.sleep(0.001)
    assert heard == ["orders"]
    waits.close()
    pushes.close()


def test_who_does_not_wait_is_left_alone(tmp_path: Path, wakes: dict[str, int]) -> None:
    quiet = Neighbours(tmp_path, 0, wakes, print)
    pushes = Neighbours(tmp_path, 1, wakes, print)
    quiet.waits(True)
    quiet.waits(False)
    pushes.waits(True)  # and nobody wakes itself
    pushes.tell()
    for fd in wakes.values():
        with pytest.raises(BlockingIOError):
            os.eventfd_read(fd)


def test_a_successor_begins_as_one_that_does_not_wait(tmp_path: Path, wakes: dict[str, int]) -> None:
    Neighbours(tmp_path, 0, wakes, print).waits(True)
    Neighbours(tmp_path, 0, wakes, print)
    Neighbours(tmp_path, 1, wakes, print).tell()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(wakes[gateway_wake(0)])
