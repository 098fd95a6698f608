"""A data_dir whose disk is not mounted, or that another bus has: said at start, not papered over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pepperbus.errors import BootError
from pepperbus.family.highwater import HighWater
from pepperbus.master import mounts, opened
from pepperbus.master.mounts import unmounted
from tests.fixtures.fpm import fastcgi_config


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    fstab, mounted = tmp_path / "fstab", tmp_path / "mounts"
    fstab.write_text(
        "# /dev/x /commented ext4\nUUID=1 / ext4 defaults 0 1\nUUID=2 /mnt/data/ ext4 noauto 0 2\n"
        "UUID=3 /mnt/two\\040words ext4 defaults\nUUID=4 none swap sw 0 0\nbroken\n"
    )
    mounted.write_text("/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\n")
    return fstab, mounted


@pytest.mark.parametrize(
    ("directory", "point"),
    [
        ("/mnt/data/pepperbus", "/mnt/data"),
        ("/mnt/data", "/mnt/data"),
        ("/mnt/two words/x/y", "/mnt/two words"),
        ("/mnt/database", ""),
        ("/commented/x", ""),
        ("/var/lib/pepperbus", ""),
    ],
)
def test_what_fstab_wants_and_nobody_mounted(tables: tuple[Path, Path], directory: str, point: str) -> None:
    assert unmounted(Path(directory), *tables) == point


def test_a_mounted_disk_is_fine(tables: tuple[Path, Path]) -> None:
    tables[1].write_text("/dev/vda / ext4 rw 0 0\n/dev/vdb /mnt/data ext4 rw 0 0\n")
    assert unmounted(Path("/mnt/data/pepperbus"), *tables) == ""


def test_without_tables_nothing_is_said(tmp_path: Path) -> None:
    assert unmounted(Path("/mnt/data"), tmp_path / "none", tmp_path / "none") == ""


def test_the_bus_does_not_start_and_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, config = fastcgi_config("unix:/x", "/x.php", tmp_path / "disk")
    fstab = tmp_path / "fstab"
    fstab.write_text(f"UUID=1 {tmp_path}/disk ext4 defaults 0 2\n")
    monkeypatch.setattr(opened, "unmounted", lambda directory: unmounted(directory, fstab, mounts.MOUNTS))
    with pytest.raises(BootError, match=f"mount {tmp_path}/disk"):
        opened.open_all(config)
    assert not (tmp_path / "disk").exists()


def test_two_buses_do_not_share_their_data(tmp_path: Path) -> None:
    """A copied configuration, or a second container: it would give back, and run, what the first one is running."""
    _, config = fastcgi_config("unix:/x", "/x.php", tmp_path / "data")
    config = replace(config, gateway=replace(config.gateway, listen=()), web=replace(config.web, listen=()))
    first, second, third = (
        replace(config, bus=replace(config.bus, run_dir=tmp_path / name)) for name in ("run", "other", "third")
    )
    running = opened.open_all(first)
    gateway = HighWater(first.bus.data_dir / "ids", "gateway.0")
    with pytest.raises(BootError, match=r"in use by another bus .gateway.0.mark is locked.*a data_dir of its own"):
        opened.open_all(second)
    gateway.close()
    running.close()
    opened.open_all(third).close()
