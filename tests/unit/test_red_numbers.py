"""Every number that a page shows in red or amber leads to what it counts. A sidecar in process over a bus in trouble."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import gevent
import pytest

from pepperbus import stats
from pepperbus.config.load import load
from pepperbus.delivery import fpm_status
from pepperbus.journal import growth
from pepperbus.journal.contract import Row
from pepperbus.storage.contract import Health
from tests.unit.test_web import IDS, NODE, Place

_VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "use", "polyline", "rect", "wbr"}
_LOUD = ({"num", "bad"}, {"num", "warn"}, {"tile", "bad"}, {"bar", "bad"}, {"bar", "warn"})
_FPM = {"active processes": 5, "total processes": 5, "listen queue": 7, "max listen queue": 9}
_FPM |= {"max children reached": 3, "accepted conn": 100, "slow requests": 2}
POOL = """\
[fastcgi]
    [[pool]]
        address = 127.0.0.1:9
        status = 127.0.0.1:9/status
"""
QUEUES = """\
password = the-secret
storage = local
system = shop
[topics]
    [[mail]]
        run = fastcgi
        pool = pool
        script = /srv/mail.php
    [[audit]]
        run = http
        url = http://127.0.0.1:9/none
[schedule]
    [[tick]]
        expression = @yearly
"""
#: Page -> how many loud numbers it shows at least: a page that shows none proves nothing.
PAGES = {
    "/": 4,
    "/?system=shop": 4,
    "/queues": 2,
    "/queues?state=with-dead": 1,
    "/topics/orders/mail": 3,
    "/storage": 2,
    "/consumers": 3,
    "/nodes": 1,
    "/errors": 2,
    "/alarms": 0,
    "/replays": 0,
    "/schedules": 0,
    "/schedules/orders/tick": 0,
    "/search": 0,
    "/console": 0,
    "/me": 0,
    "/users": 0,
    "/audit": 0,
}


class Loud(HTMLParser):
    """The loud elements of a page: each with the link it stands in, or that stands in it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []  # what it looks like, where it leads
        self._open: list[tuple[str, str, int]] = []  # tag, href of a link, which of `found` it is (-1: none)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        classes = set(given.get("class", "").split())
        href = given.get("href", "") if tag == "a" else ""
        note = tag == "p" and "note" in classes and bool(classes & {"bad", "warn"})
        number = -1
        if note or any(loud <= classes for loud in _LOUD):
            outer = next((link for _tag, link, _n in reversed(self._open) if link), "")
            number = len(self.found)
            self.found.append((f"<{tag} class={given['class']!r}>", href or outer))
        if href:
            for _tag, _link, n in self._open:  # a link inside what is loud explains it too
                if n >= 0 and not self.found[n][1]:
                    self.found[n] = (self.found[n][0], href)
        if tag not in _VOID:
            self._open.append((tag, href, number))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass


@pytest.fixture
def troubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Dead jobs, failures, a closed consumer, a backlog that only grows, a storage that fills, workers that died."""
    place = Place(tmp_path)
    (tmp_path / "node.conf").write_text(NODE.replace("@PORT@", str(place.port)) + POOL)
    (tmp_path / "queues.d" / "orders.conf").write_text(QUEUES)
    place.office.take(load(tmp_path / "node.conf", {}))
    place.config = place.office.config
    place.push(9)
    place.kill(3, "attempt 1 of 1 failed: no mail server 7")
    _journal(place)
    data_dir, now = place.config.bus.data_dir, place.office.clock.now_ms()
    growth.add(data_dir, *(growth.Fill(now - (10 - i) * 3_600_000, "local", i * 1000, 100_000) for i in range(11)))
    process = {"role": "worker", "state": "ready", "pid": 7, "restarts": 3, "reason": "killed by SIGSEGV"}
    status = {"ready": True, "processes": [{"name": "worker.orders.0", **process}]}

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        return dict(status) if request["op"] == "status" else {"ok": True, "answers": {}}

    place.office.ask = ask
    monkeypatch.setattr(fpm_status, "of", lambda pool: dict(_FPM))
    storage = place.office.storage("local")
    full = Health(True, "1", "process", 95, 100, "")
    monkeypatch.setattr(storage, "health", lambda: full, raising=True)
    record = place.writer.record("orders/mail")
    record.set("state", stats.STATES.index("stopped"))
    place.desk.monitor.sample()
    record.add("failed", 40)
    place.writer.record("orders").add("pushed", 30)
    record.add("pushed", 30)
    gevent.sleep(0.05)
    place.desk.monitor.sample()
    yield place
    place.office.close()


def _journal(place: Place) -> None:
    now = place.office.clock.now_ms()
    with place.office.journal_writer() as journal:
        for n in range(4):
            outcome = "dead" if n else "retry"
            reason = f"no mail server {n}"
            row = Row("attempt", IDS.next(), "orders/mail", now - n, 1, outcome=outcome, code=500, reason=reason)
            journal.add(row)


def test_every_loud_number_is_a_link_that_leads_somewhere(troubled: Place) -> None:
    lost: list[str] = []
    links: set[str] = set()
    for page, least in PAGES.items():
        answer = troubled.get(page, Accept="text/html")
        assert answer.status_code == 200, (page, answer.get_data(as_text=True)[:500])
        loud = Loud()
        loud.feed(answer.get_data(as_text=True))
        assert len(loud.found) >= least, (page, loud.found)
        lost += [f"{page}: {what}" for what, href in loud.found if not href]
        links |= {href for _what, href in loud.found if href}
    assert not lost, lost
    assert "/topics/orders/mail/jobs?state=dead" in links
    assert "/queues?pool=pool&sort=-running" in links
    for link in links:
        assert troubled.get(link, Accept="text/html").status_code == 200, link


def test_what_a_link_leads_to_is_filtered_already(troubled: Place) -> None:
    troubled.push(1, "orders/audit")
    queues = troubled.text("/queues")
    assert "orders/audit" in queues
    for words in ("pool=pool", "state=with-dead"):
        listed = troubled.text(f"/queues?{words}")
        assert "orders/mail" in listed
        assert 'id="row-orders--audit"' not in listed
    assert (
        "orders/mail"
        not in troubled.text("/queues?storage=elsewhere").partition('id="live"')[2].partition("</table>")[0]
    )


def test_the_walk_sees_a_number_without_a_link() -> None:
    loud = Loud()
    loud.feed(
        '<a href="/x"><b class="num bad">1</b></a><p class="note bad">2 <a href="/y">y</a></p><i class="num warn">3</i>'
    )
    assert [href for _what, href in loud.found] == ["/x", "/y", ""]
