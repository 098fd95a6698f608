"""Every page in a real browser, wide and at a phone's width, light and dark, in both languages: it shows, fits, asks nobody
else, complains of nothing, and axe-core finds nothing serious. `PEPPERBUS_ALL_LOOKS=1` takes every combination of every page.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import Browsing, browser, findings, wait  # noqa: F401
from tests.fixtures.bus import NODE, Buses
from tests.fixtures.http import answering, raw_server

FAILED = b"HTTP/1.1 200 OK\r\nCode: 500\r\nError-Code: E7\r\nContent-Length: 4\r\n\r\nboom"
DONE = b"HTTP/1.1 200 OK\r\nCode: 200\r\nContent-Length: 0\r\n\r\n"
QUEUE = """\
open = loopback
system = shop
[topics]
    [[{topic}]]
        run = http
        url = {url}
        ping = off
        attempts = 2
        backoff = fixed 1s
        {more}
"""
DAILY = ("/", "/queues", "/queues/orders/edit", "/topics/orders/mail", "/jobs/{job}")
PATHS = (
    *("/", "/queues", "/queues/new", "/queues/orders/edit", "/topics/orders/mail", "/topics/orders/mail/jobs"),
    *("/jobs/{job}", "/search?topic=orders/mail&state=retry", "/errors", "/console?topic=orders/mail"),
    *("/replays", "/replays/1", "/alarms", "/schedules", "/schedules/new"),
    *("/storage", "/consumers", "/nodes", "/queues/files", "/users?add", "/users/admin", "/me", "/audit"),
)
LOOKS = ((1440, "light", "en"), (390, "dark", "zh"))
#: The pages one is on all day in both looks, the others in one of them, turn about: a page takes a second of browser.
CASES = [(path, look) for i, path in enumerate(PATHS) for j, look in enumerate(LOOKS) if path in DAILY or (i + j) % 2]
if os.environ.get("PEPPERBUS_ALL_LOOKS"):
    CASES = [(path, look) for path in PATHS for look in itertools.product((1440, 390), ("light", "dark"), ("en", "zh"))]
ENGLISH = {"/": "Overview", "/queues": "Queues", "/storage": "Storage", "/nodes": "Nodes", "/errors": "Errors"}
CHINESE = {"/": "总览", "/queues": "队列", "/storage": "存储", "/nodes": "节点", "/errors": "错误"}


@pytest.fixture(scope="module")
def place(browser: Any) -> Iterator[tuple[Browsing, str]]:  # noqa: F811
    """A bus with something on every page: jobs done, dead and waiting; the id of a dead one."""
    buses = Buses()
    with raw_server(answering(FAILED)) as bad, raw_server(answering(DONE)) as good:
        queues = {
            "orders": QUEUE.format(topic="mail", url=bad.url, more=""),
            "sms": QUEUE.format(topic="send", url=good.url, more=""),
            "slow": QUEUE.format(topic="post", url=good.url, more="paused = yes"),
        }
        try:
            bus = buses.start(NODE, queues)
            client = bus.client()
            for queue in ("sms", "slow"):
                client.lpush(f"{queue}/x", *['{"order": 7}'] * 20)
            client.lpush("orders/x", *['{"order": 7, "名": "张三"}'] * 3)
            browsing = Browsing(browser, f"http://127.0.0.1:{bus.web_port}")
            browsing.log_in()
            job = _dead(bus)
            assert bus.cli("replay", "orders/mail", "--gray", "1", "--plan", "--yes").returncode == 0
            yield browsing, job
        finally:
            for made in buses.made:
                made.close()


def _dead(bus: Any) -> str:
    """The id of a job that has died."""
    import json

    until = time.monotonic() + 60
    while time.monotonic() < until:
        answer = bus.cli("--json", "jobs", "orders/mail")
        jobs = json.loads(answer.stdout)["jobs"] if answer.returncode == 0 else []
        if len(jobs) == 3:
            return str(jobs[0]["id"])
        time.sleep(0.2)
    raise AssertionError(answer.stdout + answer.stderr)


@pytest.mark.parametrize(
    ("path", "look"), CASES, ids=lambda one: one if isinstance(one, str) else "-".join(map(str, one))
)
def test_a_page_is_whole(place: tuple[Browsing, str], path: str, look: tuple[int, str, str]) -> None:
    browsing, job = place
    width, theme, language = look
    browsing.troubles.clear()
    page = browsing.page(path.format(job=job), width, theme, language)
    try:
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} px wide: something scrolls sideways"
        assert page.get_attribute("html", "data-bs-theme") == theme
        if path in ENGLISH:
            assert page.inner_text("h1") == (ENGLISH if language == "en" else CHINESE)[path]
        assert not findings(page)
        assert not browsing.troubles
    finally:
        page.context.close()


def test_a_page_lives(place: tuple[Browsing, str]) -> None:
    """What is pushed while the page is open shows without a reload."""
    browsing, _ = place
    page = browsing.page("/topics/slow/post")
    before = int(page.inner_text("a.tile >> nth=0 >> b"))
    page.evaluate("window.stays = true")
    port = int(browsing.base.rpartition(":")[2])
    page.context.request.post(
        f"http://127.0.0.1:{port}/api/v1/queues/slow/push",
        data={"contents": ["1", "2"]},
        headers={"X-CSRF-Token": page.get_attribute("meta[name=csrf-token]", "content")},
    )
    wait(page, f"+document.querySelector('a.tile b').textContent === {before + 2}")
    assert page.evaluate("window.stays"), "the page was loaded anew"
    page.context.close()


def test_a_page_nobody_looks_at_holds_no_stream(place: tuple[Browsing, str]) -> None:
    browsing, _ = place
    page = browsing.page("/queues")
    wait(page, "stream && stream.readyState === 1")
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    assert page.evaluate("stream") is None
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: false}); document.dispatchEvent(new Event('visibilitychange'))"
    )
    wait(page, "stream && stream.readyState === 1")
    page.context.close()


def test_without_javascript_it_is_all_there(place: tuple[Browsing, str]) -> None:
    browsing, job = place
    page = browsing.page(f"/jobs/{job}", scripts=False)
    assert "boom" in page.inner_text("main") or "E7" in page.inner_text("main")
    page.click("text=Run again >> nth=0")
    page.wait_for_load_state()
    assert page.url.endswith(f"/jobs/{job}")
    page.context.close()


def test_charts_are_drawn_from_the_kept_history(place: tuple[Browsing, str]) -> None:
    browsing, _ = place
    page = browsing.page("/topics/sms/send?back=300")
    page.wait_for_selector(".chart canvas >> nth=5")  # each is drawn when its figures have come
    assert page.locator(".chart canvas").count() == 6
    page.context.close()
