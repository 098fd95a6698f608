"""Queues' files when things go wrong: a disk that fills in the middle, a file that cannot be replaced; a way back."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pepperbus.accounts.model import HOST_ROLES, Actor, Via
from pepperbus.clock import ManualClock
from pepperbus.errors import PepperbusError
from pepperbus.log import Log
from pepperbus.operations import closing, drain, queues, versions
from pepperbus.operations.queue_text import staying
from pepperbus.storage import drains
from pepperbus.web import closing as leaving
from tests.unit.test_closed_topics import WITHOUT, take, take_without_log
from tests.unit.test_web import Place


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    file_of(made).write_text(WITHOUT.format(log=""))
    made.office.actor = Actor("ann", Via.CLI, roles=HOST_ROLES)
    take(made)
    yield made
    made.office.close()


def file_of(place: Place) -> Path:
    return place.directory / "queues.d" / "orders.conf"


def kept(place: Place) -> list[str]:
    return [text for _at, _who, text in versions.kept(place.office, "orders", file_of(place))][:-1]


@contextmanager
def nothing_above(size: int) -> Iterator[None]:
    """As on a full disk: of what is written to a file only its beginning gets there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def not_writable(place: Place) -> Iterator[None]:
    """The new text has no place to be written to, as in a directory of somebody else's."""
    blocks = file_of(place).with_name(".orders.conf.new")
    blocks.mkdir()
    try:
        yield
    finally:
        blocks.rmdir()


def test_half_a_version_is_none(shop: Place) -> None:
    """It may be a right file with fewer topics, and somebody would go back to it."""
    half = WITHOUT.index("    [[log]]")
    keeping = versions.keeping(shop.office, "orders", file_of(shop))
    with nothing_above(half), pytest.raises(OSError, match="too large"), keeping:
        raise AssertionError("the change was begun")
    assert kept(shop) == []
    assert list((shop.directory / "data" / "versions" / "orders").iterdir()) == []


def test_a_change_that_could_not_be_written_leaves_no_version(shop: Place) -> None:
    """A hundred of them would push out all that really were."""
    before = file_of(shop).read_text()
    with not_writable(shop), pytest.raises(PepperbusError, match=r"\.orders\.conf\.new: "):
        queues.change(shop.office, "orders", {"mail/attempts": "3"})
    assert (kept(shop), file_of(shop).read_text()) == ([], before)
    queues.change(shop.office, "orders", {"mail/attempts": "3"})
    assert kept(shop) == [before]


def test_a_directory_that_is_not_there_is_said_in_one_line(shop: Place) -> None:
    (shop.directory / "queues.d").rename(shop.directory / "elsewhere")
    with pytest.raises(PepperbusError, match=r"queues\.d: No such file or directory"):
        queues.add(shop.office, "new", {"mail/run": "http", "mail/url": "http://127.0.0.1:9/x"})


def test_what_is_brought_back_does_not_go_again_by_itself(shop: Place) -> None:
    """Its last text says `closed = remove`: empty as it is, it would be gone within seconds."""
    office = shop.office
    closing.close(office, "orders/log", remove=True)
    take(shop)
    queues.remove(office, "orders/log")
    take_without_log(shop)
    at_ms = versions.newest(office, "orders")
    assert "closed = remove" in versions.text_of(office, "orders", at_ms)
    queues.rollback(office, "orders", at_ms)
    assert ("[[log]]" in file_of(shop).read_text(), "closed" in file_of(shop).read_text()) == (True, False)

    take(shop)
    closing.close(office, "orders", remove=True)
    take(shop)
    queues.change(office, "orders", {"mail/attempts": "3"})
    queues.rollback(office, "orders", versions.newest(office, "orders"))
    assert "closed = remove" in file_of(shop).read_text(), "it was closed before as well"
    queues.remove(office, "orders")
    queues.rollback(office, "orders", versions.newest(office, "orders"))
    assert "closed" not in file_of(shop).read_text()


def test_only_what_closes_is_left_out_of_what_is_brought_back() -> None:
    text = "closed = remove\n[topics]\n[[a]]\nclosed = remove\n[[[params]]]\nclosed = remove\n[[b]]\nclosed = yes\n"
    assert staying(text, "") == "[topics]\n[[a]]\n[[[params]]]\nclosed = remove\n[[b]]\nclosed = yes\n"
    assert staying(text, text) == text
    assert staying(text, "closed = remove\n") == text.replace("[[a]]\nclosed = remove\n", "[[a]]\n")


def test_a_change_that_nobody_saw_is_not_taken_back_along(shop: Place) -> None:
    """The list of changes lay open while somebody else saved: going back would undo his as well."""
    office = shop.office
    queues.change(office, "orders", {"mail/attempts": "3"})
    seen = versions.newest(office, "orders")
    shop.office.clock = ManualClock(seen + 1000)
    queues.change(office, "orders", {"mail/timeout": "30s"})
    with pytest.raises(PepperbusError, match="orders was changed since this list was opened: look at it again"):
        queues.rollback(office, "orders", seen, seen=seen)
    assert "timeout = 30s" in file_of(shop).read_text()
    text = shop.text("/queues/orders/edit")
    assert f'name="seen" value="{versions.newest(office, "orders")}"' in text
    queues.rollback(office, "orders", seen, seen=versions.newest(office, "orders"))
    assert "timeout" not in file_of(shop).read_text()


def test_what_cannot_be_removed_is_not_tried_each_second(shop: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try is written down in the audit log. And it is said where people look."""
    closing.close(shop.office, "orders/log", remove=True)
    take(shop)
    looks = leaving.Leaving(shop.office, Log("web", str(shop.directory / "log")), shop.desk.stuck)
    now = time.monotonic()
    monkeypatch.setattr(leaving.time, "monotonic", lambda: now)
    looks.look()
    with not_writable(shop):
        for _ in range(100):
            now += 6
            assert looks.look() == []
    tried = [one for one in shop.office.audit.search().entries if one.what == "queue.remove"]
    assert 2 <= len(tried) <= 8
    assert ".orders.conf.new" in shop.desk.stuck["orders/log"]
    shop.desk.monitor.forget()
    assert ".orders.conf.new" in shop.text("/")
    now += 700
    assert looks.look() == ["orders/log"]
    assert shop.desk.stuck == {}


def test_a_drain_that_never_began_can_be_begun_again(shop: Place) -> None:
    """Killed between its record and the file, it would else be `still on its way` for ever."""
    config = shop.office.config
    far = replace(config.storages["local"], name="far")
    shop.office.take(replace(config, storages={**config.storages, "far": far}))
    shop.office._storages["far"] = shop.office.storage("local")
    one = drains.Drain("orders/log", "local", "far", 1)
    config.bus.data_dir.mkdir(exist_ok=True)
    drains.update(config.bus.data_dir, lambda known: known.update({"orders/log": one}))
    file_of(shop).write_text("storage = local\n" + file_of(shop).read_text())
    other = msgspec.structs.replace(one, since_ms=shop.office.clock.now_ms())
    drains.update(config.bus.data_dir, lambda known: known.update({"orders/log": other}))
    with pytest.raises(PepperbusError, match="still on its way from local to far"):  # somebody is at it
        drain.drain(shop.office, "orders/log", "far", alone=True)
    drains.update(config.bus.data_dir, lambda known: known.update({"orders/log": one}))
    drain.drain(shop.office, "orders/log", "far", alone=True)
    assert "storage = far" in file_of(shop).read_text()
    assert drains.read(config.bus.data_dir)["orders/log"].since_ms > 1


def test_of_two_who_begin_a_drain_one_is_refused(shop: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have looked, then both write: jobs that went to the first one's storage would be left there."""
    config = shop.office.config
    storages = {name: replace(config.storages["local"], name=name) for name in ("local", "far", "near")}
    shop.office.take(replace(config, storages=storages))
    for name in ("far", "near"):
        shop.office._storages[name] = shop.office.storage("local")
    config.bus.data_dir.mkdir(exist_ok=True)
    file_of(shop).write_text("storage = local\n" + file_of(shop).read_text())
    update = drains.update

    def first(data_dir: Path, change: object) -> None:
        monkeypatch.setattr(drains, "update", update)
        drain.drain(shop.office, "orders/log", "near", alone=True)
        update(data_dir, change)

    monkeypatch.setattr(drains, "update", first)
    with pytest.raises(PepperbusError, match="still on its way from local to near"):
        drain.drain(shop.office, "orders/log", "far", alone=True)
    assert "storage = near" in file_of(shop).read_text()
    assert drains.read(config.bus.data_dir)["orders/log"].target == "near"
