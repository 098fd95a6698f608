"""The engines the suite runs over. `engines_redis.py` beside this file adds its own through its table `ENGINES`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from pepperbus.clock import ManualClock
from pepperbus.config.model import StorageConfig
from pepperbus.storage import open_storage
from pepperbus.storage.contract import Storage
from pepperbus.storage.memory import MemoryStorage
from tests.contract.rig import Engine, Producer, Rig


@contextmanager
def memory(directory: Path, clock: ManualClock) -> Iterator[Rig]:
    yield Rig(lambda: MemoryStorage(StorageConfig("main", "memory"), clock), clock, keeps=False)


@contextmanager
def embedded(directory: Path, clock: ManualClock) -> Iterator[Rig]:
    config = StorageConfig("main", "embedded", path=directory / "main")
    yield Rig(lambda: open_storage(config, clock), clock)


ENGINES: dict[str, Engine] = {"memory": memory, "embedded": embedded}
if find_spec("tests.contract.engines_redis"):
    from tests.contract import engines_redis

    ENGINES |= engines_redis.ENGINES


@pytest.fixture(params=sorted(ENGINES))
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with ENGINES[request.param](tmp_path, ManualClock()) as made:
        yield made


@pytest.fixture
def storage(rig: Rig) -> Iterator[Storage]:
    made = rig.make()
    made.open()
    yield made
    made.close()


@pytest.fixture
def producer(rig: Rig) -> Producer:
    return Producer(rig.clock)
