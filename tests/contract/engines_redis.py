"""The Redis engine for the suite, twice: with all of Redis' commands, and as `mode = pika` with Pika's commands only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pepperbus.clock import ManualClock
from pepperbus.config.model import StorageConfig
from pepperbus.config.secret import Secret
from pepperbus.storage import open_storage
from tests.contract.rig import Engine, Rig
from tests.fixtures.redis import ALWAYS, running


@contextmanager
def redis(directory: Path, clock: ManualClock) -> Iterator[Rig]:
    with running(ALWAYS) as server:
        config = StorageConfig("main", "redis", Secret(server.url))
        yield Rig(lambda: open_storage(config, clock), clock, hands_on_the_clock=False)


@contextmanager
def redis_pika(directory: Path, clock: ManualClock) -> Iterator[Rig]:
    with running(ALWAYS) as server:
        config = StorageConfig("main", "redis", Secret(server.pika_url), "pika")
        yield Rig(lambda: open_storage(config, clock), clock, hands_on_the_clock=False)


ENGINES: dict[str, Engine] = {"redis": redis, "redis-pika": redis_pika}
