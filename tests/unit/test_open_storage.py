"""Engines are found by the type of the configuration entry, also those other packages install."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from pepperbus import storage as storages
from pepperbus.config.model import StorageConfig
from pepperbus.errors import ConfigError
from pepperbus.storage.embedded import EmbeddedStorage
from pepperbus.storage.memory import MemoryStorage


def test_the_type_picks_the_engine(tmp_path: Path) -> None:
    assert isinstance(storages.open_storage(StorageConfig("a", "memory")), MemoryStorage)
    made = storages.open_storage(StorageConfig("a", "embedded", path=tmp_path / "a"))
    assert isinstance(made, EmbeddedStorage)
    assert not (tmp_path / "a").exists()  # nothing is touched before open()


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"storage shop: type 'tape' .* embedded, memory, redis"):
        storages.open_storage(StorageConfig("shop", "tape"))


def test_an_installed_package_may_bring_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("tape", "pepperbus.storage.memory:MemoryStorage", storages.GROUP)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry] if group == storages.GROUP else [])
    assert isinstance(storages.open_storage(StorageConfig("shop", "tape")), MemoryStorage)
