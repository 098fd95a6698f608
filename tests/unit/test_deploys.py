"""Marks on the time line: who sets them, who sees them, what the bus sets by itself, how they reach a chart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pepperbus.accounts.model import Actor, Role
from pepperbus.clock import SystemClock
from pepperbus.config.load import load
from pepperbus.errors import Forbidden, UsageError
from pepperbus.journal import deploys as store
from pepperbus.journal import lines
from pepperbus.journal.contract import Row
from pepperbus.journal.log import LogWriter
from pepperbus.operations import deploys
from pepperbus.ticker import deploys as ticker
from tests.unit.test_web import QUEUE, Place, log_in


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    (tmp_path / "queues.d" / "money.conf").write_text(QUEUE.replace("shop", "bank"))
    place.office.take(load(tmp_path / "node.conf", {}))
    yield place
    place.office.close()


def office(place: Place, **roles: str) -> Any:
    return place.office.acting(Actor("ann", roles={system: Role(role) for system, role in roles.items()}))


def test_a_mark_is_its_systems(place: Place) -> None:
    deploys.mark(office(place, shop="operator"), " shop  2.4 ", "shop")
    (mark,) = deploys.marks(office(place, shop="viewer"))
    assert (mark.text, mark.who, mark.kind) == ("shop 2.4", "ann", "mark")
    assert deploys.marks(office(place, bank="admin")) == []
    everybody = office(place, **{"*": "operator"})
    deploys.mark(everybody, "all of it")
    assert [m.text for m in deploys.marks(office(place, bank="viewer"))] == ["all of it"]
    assert [m.text for m in deploys.marks(everybody, name="money/mail")] == ["all of it"]
    with pytest.raises(Forbidden):
        deploys.mark(office(place, shop="operator"), "x")
    with pytest.raises(Forbidden):
        deploys.mark(office(place, shop="viewer"), "x", "shop")
    for text, system in ((" ", ""), ("x" * 201, ""), ("x", "none")):
        with pytest.raises(UsageError):
            deploys.mark(everybody, text, system)


def test_the_bus_says_what_it_did_itself(place: Place) -> None:
    config = place.office.config
    marks = ticker.Marks(SystemClock(), None)
    marks.started(config, "boot1")
    marks.started(config, "boot1")  # only the ticker was replaced
    changed = replace(config.queues["money"], workers=3)
    marks.took(config, replace(config, queues={**config.queues, "money": changed}))
    marks.took(config, replace(config, generation=9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ticker, "_CODE", "0.2.0 1")
        marks.started(config, "boot1")
    marks.started(config, "boot2")
    chief = office(place, **{"*": "viewer"})
    assert [(m.kind, m.queues) for m in deploys.marks(chief)] == [
        ("start", ()), ("reload", ("money",)), ("upgrade", ()), ("start", ()),
    ]  # fmt: skip
    assert "reload" not in [m.kind for m in deploys.marks(office(place, shop="viewer"))], "of another system's queue"
    assert "reload" not in [m.kind for m in deploys.marks(chief, name="orders/mail")]


def test_the_file_stays_small(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_BYTES", 4096)
    data_dir = place.office.config.bus.data_dir
    for n in range(200):
        store.add(data_dir, store.Deploy(n, "mark", f"deployed number {n}"))
    assert (data_dir / store.FILE).stat().st_size < 4200
    kept = store.read(data_dir)
    assert [one.at_ms for one in kept] == list(range(kept[0].at_ms, 200))
    with (data_dir / store.FILE).open("ab") as file:
        file.write(b'{"at_ms": 1, "ki')
    assert store.read(data_dir) == kept


def test_a_mark_reaches_chart_and_page(place: Place) -> None:
    place.desk.monitor.sample()
    client = log_in(place.app.test_client(), place.desk, "hand", shop="operator")
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/topics/orders/mail/mark", data={"text": "shop 2.4"}, headers=form).status_code == 303
    (mark,) = client.get("/topics/orders/mail/points/rates?back=300").get_json()["marks"]
    assert mark["text"] == "shop 2.4 (hand)"
    assert "shop 2.4 (hand)" in client.get("/topics/orders/mail").get_data(as_text=True)
    assert client.post("/topics/money/mail/mark", data={"text": "x"}, headers=form).status_code == 403


def test_errors_are_new_since_the_last_deployment(place: Place) -> None:
    now = place.office.clock.now_ms()
    writer = LogWriter(place.config.bus.data_dir / "journal", "worker.orders.0", 64)
    store.add(place.config.bus.data_dir, store.Deploy(now - 60_000, "mark", "shop 2.4", "ann"))
    for at_ms, reason in (
        (now - 120_000, "old trouble"),
        (now - 30_000, "old trouble"),
        (now - 20_000, "fresh trouble"),
    ):
        writer.add(Row("attempt", 1 << 63, "orders/mail", at_ms, 1, outcome="dead", reason=reason))
    writer.close()
    text = place.text("/errors")
    assert "1 new since shop 2.4 (ann)" in text
    assert "old trouble" in text
    text = place.text("/errors?new=1")
    assert "fresh trouble" in text
    assert "old trouble" not in text
